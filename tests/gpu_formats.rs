//! Modules that are taken once for each tensor: element formats of a caller's.

mod common;

use common::gpu::{buffer, contexts, read_words};
use wattn::{Binding, Context, Error, Kernel, Module, Pipeline, Slots, Specialization, kernels::modules};

/// A product of two tensors, each in a format of its own.
static DOT: Kernel = Kernel::new(
    "dot_rows",
    "
@group(0) @binding(A_BINDING) var<storage, read> a: array<AElem4>;
@group(0) @binding(B_BINDING) var<storage, read> b: array<BElem4>;
@group(0) @binding(Y_BINDING) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(1)
fn dot_rows(@builtin(global_invocation_id) at: vec3<u32>) {
    y[at.x] = dot(widen_a(a[at.x]), widen_b(b[at.x]));
}",
)
.binding(&[Binding::read("a"), Binding::read("b"), Binding::write("y")]);

/// Bytes with a scale for each vec4.
static BYTES: Module = Module::new(
    "elem",
    "bytes",
    "
@group(0) @binding(SCALES_BINDING) var<storage, read> scales: array<f32>;
const FROM = 0; /* widen is a name of the text, not of this comment's */
struct Elem4 { block: u32, bits: u32 }
fn widen(elem: Elem4) -> vec4<f32> { return vec4<f32>(unpack4xI8(elem.bits)) * scales[elem.block + u32(FROM)]; }",
)
.binding(&[Binding::read("scales")]);

fn bytes_of(numbers: &[[i8; 4]]) -> Vec<u32> {
    (0u32..).zip(numbers).flat_map(|(at, four)| [at, u32::from_le_bytes(four.map(i8::cast_unsigned))]).collect()
}

fn run(ctx: &Context, variant: &Specialization, slots: &Slots<'_>, y: &wgpu::Buffer, len: u32) -> Vec<f32> {
    let step = Pipeline::prepare(ctx, variant).unwrap().bind(ctx, slots, [len, 1, 1]).unwrap();
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    step.encode(&mut encoder);
    ctx.queue().submit([encoder.finish()]);
    read_words(ctx, y).into_iter().map(f32::from_bits).collect()
}

#[test]
fn a_format_of_a_caller_is_taken_for_each_tensor() {
    let numbers = [[1i8, -2, 3, 4], [5, 6, -7, 8], [9, 10, 11, -128]];
    let others = [[2i8, 2, 2, 2], [-1, 0, 1, 3], [1, 1, 1, 1]];
    let floats: Vec<f32> = others.iter().flatten().map(|&x| f32::from(x) * 0.5).collect();
    let (a_scales, b_scales) = ([0.5f32, 2.0, 1.0], [1.0f32, 0.25, 4.0]);
    let expected = |b_of: &dyn Fn(usize, usize) -> f32| -> Vec<f32> {
        let dot = |i: usize| (0..4).map(|c| f32::from(numbers[i][c]) * a_scales[i] * b_of(i, c)).sum();
        (0..3).map(dot).collect()
    };
    for ctx in contexts() {
        let (a, b, b_floats) =
            (buffer(ctx, &bytes_of(&numbers)), buffer(ctx, &bytes_of(&others)), buffer(ctx, &floats));
        let (a_scaled, b_scaled) = (buffer(ctx, &a_scales), buffer(ctx, &b_scales));
        let y = buffer(ctx, &[0.0f32; 3]);
        let slots = || Slots::new().buffer("a", &a).buffer("y", &y).buffer("scales_a", &a_scaled);

        let both = Specialization::new(&DOT).with_module_for("a", &BYTES).with_module_for("b", &BYTES);
        let names: Vec<_> = both.bindings().iter().map(|binding| binding.name).collect();
        assert_eq!(names, ["a", "b", "y", "scales_a", "scales_b"]);
        assert_eq!((both.modules().count(), both.modules_for("b").next()), (2, Some(&BYTES)));
        let found = run(ctx, &both, &slots().buffer("b", &b).buffer("scales_b", &b_scaled), &y, 3);
        assert_eq!(found, expected(&|i, c| f32::from(others[i][c]) * b_scales[i]), "{}", ctx.describe());

        // Beside one of the crate's.
        let mixed = Specialization::new(&DOT).with_module_for("a", &BYTES).with_module_for("b", &modules::ELEM_F32);
        let found = run(ctx, &mixed, &slots().buffer("b", &b_floats), &y, 3);
        assert_eq!(found, expected(&|i, c| floats[4 * i + c]), "{}", ctx.describe());
    }
}

#[test]
fn names_that_meet_are_told() {
    let ctx = contexts().first().unwrap();
    let told = |variant: Specialization| match Pipeline::prepare(ctx, &variant) {
        Err(error @ Error::Name { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let of_a = || Specialization::new(&DOT).with_module_for("a", &BYTES);
    let expected = "kernel `dot_rows`: `scales_a` is declared by a:bytes and by a:bytes";
    assert_eq!(told(of_a().with_module_for("a", &BYTES)), expected);
    let expected = "kernel `dot_rows`: `AElem4` is declared by a:bytes and by a:elem_f32";
    assert_eq!(told(of_a().with_module_for("a", &modules::ELEM_F32)), expected);
    let expected = "kernel `dot_rows`: `Elem4` is declared by bytes and by elem_bf16";
    assert_eq!(told(Specialization::new(&DOT).with_module(&BYTES).with_module(&modules::ELEM_BF16)), expected);

    static WIDENS_B: Kernel = Kernel::new("widen_b", "@compute @workgroup_size(1) fn widen_b() {}");
    let expected = "kernel `widen_b`: `widen_b` is declared by b:elem_f32 and by kernel widen_b";
    assert_eq!(told(Specialization::new(&WIDENS_B).with_module_for("b", &modules::ELEM_F32)), expected);

    // Texts of the crate as well.
    let twice = Specialization::new(&wattn::kernels::POOL_BLOCKS);
    let twice = twice.with_module(&modules::ELEM_F32).with_module(&modules::ELEM_F32);
    let expected = "kernel `pool_blocks`: `Elem4` is declared by elem_f32 and by elem_f32";
    assert_eq!(told(twice), expected);

    // A tensor that is not taken has no name.
    let error = Pipeline::prepare(ctx, &of_a()).unwrap_err();
    assert!(matches!(&error, Error::Wgsl { message, .. } if message.contains("BElem4")), "{error}");
}
