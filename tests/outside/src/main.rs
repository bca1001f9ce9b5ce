//! A caller's kernel in wattn's layer: described, specialised, compiled, bound by name and run, beside modules of the crate. Its result is
//! compared with the host's.

use wattn::kernels::modules;
use wattn::{
    Binding, Context, ContextOptions, Error, Kernel, Module, Pipeline, Slots, SoftwareAdapters, Specialization,
};

/// y = activate(x) * scale, four at a time, read by a module of the crate.
static ACTIVATE: Kernel = Kernel::new(
    "activate_all",
    "
struct Call {
    num_vec4: u32,
    scale: f32,
}
@group(0) @binding(CALL_BINDING) var<uniform>             call: Call;
@group(0) @binding(X_BINDING)    var<storage, read>       x: array<Elem4>;
@group(0) @binding(Y_BINDING)    var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP_SIZE)
fn activate_all(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x < call.num_vec4 {
        y[at.x] = activate4(widen(x[at.x])) * call.scale;
    }
}",
)
.binding(&[Binding::uniform("call", &["num_vec4", "scale"]), Binding::read("x"), Binding::write("y")])
.labelled("outside.activate_all");

/// Two members of a family from outside, of which the second binds a buffer.
static SQUARED: Module = Module::new(
    "activation",
    "squared_relu",
    "fn activate4(x: vec4<f32>) -> vec4<f32> { let kept = max(x, vec4<f32>()); return kept * kept; }",
);
static WEIGHTED: Module = Module::new(
    "activation",
    "weighted",
    "
@group(0) @binding(WEIGHTS_BINDING) var<storage, read> weights: array<vec4<f32>>;
fn activate4(x: vec4<f32>) -> vec4<f32> { return x * weights[0]; }",
)
.binding(&[Binding::read("weights")]);

/// The kernel of the text, with a binding that the text does not declare.
static UNDECLARED: Kernel = Kernel::new("activate_all", "").binding(&[Binding::write("y")]);

const SCALE: f32 = 0.5;

fn main() -> Result<(), Error> {
    let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
    let ctx = Context::request(&options).wait()?;
    println!("on {}", ctx.describe());
    let x: Vec<f32> = (0..1000u16).map(|i| f32::from(i) / 8.0 - 20.0).collect();
    let weights = [1.0f32, 2.0, 3.0, 4.0];
    let squared = |_: usize, x: f32| x.max(0.0) * x.max(0.0) * SCALE;
    let weighted = |at: usize, x: f32| x * weights[at % 4] * SCALE;
    check(&ctx, &SQUARED, &x, &weights, squared)?;
    check(&ctx, &WEIGHTED, &x, &weights, weighted)?;

    let error = Pipeline::prepare(&ctx, &Specialization::new(&UNDECLARED)).expect_err("no entry point");
    assert!(matches!(error, Error::EntryPoint { kernel: "activate_all", .. }), "{error}");
    println!("check: ok");
    Ok(())
}

fn check(
    ctx: &Context,
    activation: &'static Module,
    x: &[f32],
    weights: &[f32],
    expected: impl Fn(usize, f32) -> f32,
) -> Result<(), Error> {
    let variant = Specialization::new(&ACTIVATE)
        .with_module(&modules::ELEM_F32)
        .with_module(activation)
        .with_constant("WORKGROUP_SIZE", 64);
    let pipeline = Pipeline::prepare(ctx, &variant)?;

    let y = wgpu::BufferUsages::COPY_SRC;
    let (x_buffer, weights_buffer) = (buffer(ctx, x, wgpu::BufferUsages::empty()), buffer(ctx, weights, y));
    let y_buffer = buffer(ctx, &vec![f32::MAX; x.len()], y);
    let call = [x.len() as u32 / 4, SCALE.to_bits()];
    let mut slots =
        Slots::new().uniform("call", bytemuck::cast_slice(&call)).buffer("x", &x_buffer).buffer("y", &y_buffer);
    if variant.bindings().iter().any(|binding| binding.name == "weights") {
        slots = slots.buffer("weights", &weights_buffer);
    }
    let step = pipeline.bind(ctx, &slots, [(x.len() as u32 / 4).div_ceil(64), 1, 1])?;
    let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    step.encode(&mut encoder);
    ctx.queue().submit([encoder.finish()]);

    let layout = wattn::Layout::seq_major(1, 1, 1, x.len() as u32);
    let found = ctx.read::<f32>(wattn::TensorView::new(&y_buffer, wattn::DType::F32, layout)).wait()?;
    for (at, (&x, &found)) in x.iter().zip(found.data()).enumerate() {
        let expected = expected(at, x);
        assert!(
            (found - expected).abs() <= 1e-6 * expected.abs(),
            "{} at {at}: {found}, not {expected}",
            activation.name()
        );
    }
    println!("{}: {} numbers are right", activation.name(), x.len());
    Ok(())
}

fn buffer(ctx: &Context, contents: &[f32], usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let bytes: &[u8] = bytemuck::cast_slice(contents);
    let buffer = ctx.device().create_buffer(&wgpu::BufferDescriptor {
        label: Some("outside"),
        size: bytes.len() as u64,
        usage: usage | wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    ctx.queue().write_buffer(&buffer, 0, bytes);
    buffer
}
