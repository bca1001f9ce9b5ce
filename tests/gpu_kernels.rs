//! A caller's own kernels: their results, and errors of descriptors and slots that do not fit.

mod common;

use common::gpu::{buffer, contexts, read_words};
use wattn::{Binding, Context, Error, Kernel, Module, Need, Pipeline, Slots, Specialization, kernels};

const TEXT: &str = "
struct Params {
    len: u32,
    offset: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn shift(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= params.len { return; }
    var sum = params.offset;
    for (var i = 0u; i < at.x; i++) { // unroll
        sum += 1.0;
    }
    y[at.x] = sum + activate(x[at.x]);
}";
const BINDINGS: &[Binding] = &[Binding::uniform("params", &["len", "offset"]), Binding::read("x"), Binding::write("y")];

static SHIFT: Kernel = Kernel::new("shift", TEXT).binding(BINDINGS);
static SQUARED: Module = Module::new("activation", "squared", "fn activate(x: f32) -> f32 { return x * x; }");

fn shift() -> Specialization {
    Specialization::new(&SHIFT).with_module(&SQUARED).with_constant("WORKGROUP_SIZE", 64)
}

fn params(len: u32, offset: f32) -> [u32; 2] {
    [len, offset.to_bits()]
}

/// The mark in the caller's text means nothing: the pass would refuse a bound that is no constant.
#[test]
fn a_kernel_from_outside_runs() {
    for ctx in contexts() {
        let pipeline = Pipeline::prepare(ctx, &shift()).unwrap();
        let x: Vec<f32> = (0..100).map(|i| i as f32 * 0.5).collect();
        let y = vec![-1.0f32; 100];
        let (x_buffer, y_buffer) = (buffer(ctx, &x), buffer(ctx, &y));
        let params = params(90, 3.0);
        let slots =
            Slots::new().buffer("y", &y_buffer).uniform("params", bytemuck::cast_slice(&params)).buffer("x", &x_buffer);
        let step = pipeline.bind(ctx, &slots, [2, 1, 1]).unwrap();
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        step.encode(&mut encoder);
        ctx.queue().submit([encoder.finish()]);
        let found: Vec<f32> = read_words(ctx, &y_buffer).into_iter().map(f32::from_bits).collect();
        for (at, found) in found.iter().enumerate() {
            let expected = if at < 90 { 3.0 + at as f32 + x[at] * x[at] } else { -1.0 };
            assert_eq!(*found, expected, "{} at {at}", ctx.describe());
        }
    }
}

/// The crate's own kernels have bounds checks too when a caller binds them: here to buffers shorter than the uniform says.
#[test]
fn a_kernel_of_the_crate_is_guarded_where_a_caller_binds_it() {
    for ctx in contexts() {
        let variant = Specialization::new(&kernels::SAMPLE_QUERIES)
            .with_module(&kernels::modules::SELECT_PARAMS)
            .with_module(&kernels::modules::STRETCH)
            .with_module(&kernels::modules::ELEM_F32)
            .with_module(&kernels::modules::SAMPLING_STRIDE)
            .with_constant("HEAD_DIM4", 1)
            .with_constant("WORKGROUP_SIZE", 64);
        let pipeline = Pipeline::prepare(ctx, &variant).unwrap();
        let (q, samples) = (buffer(ctx, &[1.0f32; 4]), buffer(ctx, &[0.0f32; 4]));
        let words: usize = variant.bindings()[..].iter().map(|binding| binding.fields.len()).sum();
        let params = vec![0x00ff_ffffu32; words];
        let mut slots = Slots::new().buffer("q", &q).buffer("samples", &samples);
        for binding in variant.bindings().iter().filter(|binding| !binding.kind.is_storage()) {
            slots = slots.uniform(binding.name, bytemuck::cast_slice(&params[..binding.fields.len()]));
        }
        let step = pipeline.bind(ctx, &slots, [1, 1, 1]).unwrap();
        let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        step.encode(&mut encoder);
        ctx.queue().submit([encoder.finish()]);
        assert_eq!(read_words(ctx, &q), [1.0f32.to_bits(); 4], "{}", ctx.describe());
    }
}

fn refused(ctx: &Context, kernel: &'static Kernel, modules: &[&'static Module]) -> Error {
    let variant = Specialization::new(kernel).with_constant("WORKGROUP_SIZE", 64);
    let variant = modules.iter().fold(variant, |variant, module| variant.with_module(module));
    Pipeline::prepare(ctx, &variant).unwrap_err()
}

#[test]
fn descriptors_that_do_not_fit_their_text_are_told() {
    let ctx = contexts().first().unwrap();
    let told = |kernel, modules: &[_]| refused(ctx, kernel, modules).to_string();

    // A name that no declaration has.
    let error = refused(ctx, &SHIFT, &[]);
    assert!(matches!(&error, Error::Wgsl { kernel: "shift", message } if message.contains("activate")), "{error}");

    static NO_ENTRY: Kernel = Kernel::new("moved", TEXT).binding(BINDINGS);
    assert_eq!(
        told(&NO_ENTRY, &[&SQUARED]),
        "kernel `moved` has no compute entry point of that name; its text has: shift"
    );

    static WRONG_NAME: Kernel = Kernel::new("shift", TEXT).binding(&[
        Binding::uniform("params", &["len", "offset"]),
        Binding::read("input"),
        Binding::write("y"),
    ]);
    let expected = "kernel `shift`, binding 1: the descriptor declares read `input`, the text has read `x`";
    assert_eq!(told(&WRONG_NAME, &[&SQUARED]), expected);

    static WRONG_KIND: Kernel = Kernel::new("shift", TEXT).binding(&[
        Binding::uniform("params", &["len", "offset"]),
        Binding::write("x"),
        Binding::write("y"),
    ]);
    let expected = "kernel `shift`, binding 1: the descriptor declares read_write `x`, the text has read `x`";
    assert_eq!(told(&WRONG_KIND, &[&SQUARED]), expected);

    static TOO_FEW: Kernel =
        Kernel::new("shift", TEXT).binding(&[Binding::uniform("params", &["len", "offset"]), Binding::read("x")]);
    let expected = "kernel `shift`, binding 2: the descriptor declares nothing, the text has read_write `y`";
    assert_eq!(told(&TOO_FEW, &[&SQUARED]), expected);

    static TABLE: Module = Module::new("activation", "table", "fn activate(x: f32) -> f32 { return x; }")
        .binding(&[Binding::read("table")]);
    let expected = "kernel `shift`, binding 3: the descriptor declares read `table`, the text has nothing";
    assert_eq!(told(&SHIFT, &[&TABLE]), expected);

    static OTHER_GROUP: Module = Module::new(
        "activation",
        "other_group",
        "@group(1) @binding(0) var<storage, read> table: array<f32>;
         fn activate(x: f32) -> f32 { return table[0]; }",
    );
    let expected = "kernel `shift`, binding 0: the descriptor declares nothing outside bind group 0, the text has \
                    `table` in group 1";
    assert_eq!(told(&SHIFT, &[&OTHER_GROUP]), expected);

    static WRONG_FIELDS: Kernel = Kernel::new("shift", TEXT).binding(&[
        Binding::uniform("params", &["offset", "len"]),
        Binding::read("x"),
        Binding::write("y"),
    ]);
    let expected = "kernel `shift`, uniform `params`: the descriptor declares offset, len in 8 bytes, the text has len, \
                    offset in 8 bytes";
    assert_eq!(told(&WRONG_FIELDS, &[&SQUARED]), expected);

    static WIDE: Module =
        Module::new("activation", "wide", "fn activate(x: f32) -> f32 { return x; }").needing(&[Need::Matrices]);
    let features = ctx.device().features();
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        let error = refused(ctx, &SHIFT, &[&WIDE]);
        let feature = "EXPERIMENTAL_COOPERATIVE_MATRIX";
        assert!(
            matches!(error, Error::MissingFeature { needed_for: "shift", feature: it } if it == feature),
            "{error}"
        );
    }
}

#[test]
fn slots_that_do_not_fit_are_told() {
    let ctx = contexts().first().unwrap();
    let pipeline = Pipeline::prepare(ctx, &shift()).unwrap();
    let (x, y) = (buffer(ctx, &[1.0f32; 8]), buffer(ctx, &[0.0f32; 8]));
    let params = params(8, 0.0);
    let params: &[u8] = bytemuck::cast_slice(&params);
    let told = |slots: Slots<'_>, grid: [u32; 3]| pipeline.bind(ctx, &slots, grid).unwrap_err().to_string();
    let base = || Slots::new().uniform("params", params).buffer("x", &x);
    let whole = || base().buffer("y", &y);

    assert_eq!(told(base(), [1; 3]), "kernel `shift`, binding `y`: nothing is given for it");
    assert_eq!(told(whole().buffer("z", &y), [1; 3]), "kernel `shift`, binding `z`: the kernel has no such binding");
    assert_eq!(told(whole().buffer("x", &x), [1; 3]), "kernel `shift`, binding `x`: is given twice");
    assert_eq!(
        told(base().uniform("y", params), [1; 3]),
        "kernel `shift`, binding `y`: is a storage buffer, not a uniform"
    );
    assert_eq!(
        told(Slots::new().uniform("params", &params[..4]).buffer("x", &x).buffer("y", &y), [1; 3]),
        "`params` holds 1 elements, its shape needs 2"
    );
    assert!(matches!(
        pipeline.bind(ctx, &base().range("y", &y, 16, 32), [1; 3]),
        Err(Error::OutOfBounds { tensor: "y", end: 48, len: 32 })
    ));
    assert_eq!(told(base().range("y", &y, 0, 0), [1; 3]), "kernel `shift`, binding `y`: wgpu binds nothing empty");
    assert!(matches!(
        pipeline.bind(ctx, &base().buffer("y", &x), [1; 3]),
        Err(Error::Overlap { written: "y", other: "x" })
    ));
    assert!(matches!(
        pipeline.bind(ctx, &Slots::new().buffer("params", &x).buffer("x", &x).buffer("y", &y), [1; 3]),
        Err(Error::Usage { tensor: "params", .. })
    ));
    assert!(matches!(pipeline.bind(ctx, &whole(), [1 << 20, 1, 1]), Err(Error::Limit { .. })));
}

/// All requests for the same text share one compilation, whichever descriptor it came from.
#[test]
fn equal_descriptors_are_one_pipeline() {
    static AGAIN: Kernel = Kernel::new("shift", TEXT).binding(BINDINGS);
    static OTHER: Module = Module::new("activation", "squared", "fn activate(x: f32) -> f32 { return x * x * x; }");
    assert_eq!(shift(), Specialization::new(&AGAIN).with_module(&SQUARED).with_constant("WORKGROUP_SIZE", 64));
    assert_ne!(shift(), Specialization::new(&SHIFT).with_module(&OTHER).with_constant("WORKGROUP_SIZE", 64));
}
