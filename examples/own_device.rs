//! Inside a program that has its own device: its buffers, its encoder, its compute pass, one submission.
//!
//! q, k and v come from one matrix product as `[seq, q | k | v, head, dim]`; strided views read them where they lie.
//!
//! `cargo run --release --example own_device`

use wattn::{
    Attention, AttentionArgs, AttentionPlan, AttentionProblem, AttentionShape, Context, DType, HostInputs, HostTensor,
    Layout, Mask, TensorView, TensorViewMut, cpu,
};
use wgpu::util::DeviceExt as _;

const SEQ: u32 = 48;
const HEADS: u32 = 2;
const DIM: u32 = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The program's own device. Kernels need no feature and no limit beyond WebGPU's defaults, and are faster with more.
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let adapter = pollster::block_on(instance.request_adapter(&wgpu::RequestAdapterOptions::default()))?;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: wattn::wanted_features(&adapter),
        required_limits: wattn::wanted_limits(&adapter),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))?;
    let fused: Vec<f32> = (0..SEQ * 3 * HEADS * DIM).map(|i| (i * 7 % 251) as f32 / 125.5 - 1.0).collect();
    let qkv = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
        label: Some("qkv"),
        contents: bytemuck::cast_slice(&fused),
        usage: wgpu::BufferUsages::STORAGE,
    });
    let out = device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("out"),
        size: u64::from(SEQ * HEADS * DIM) * 4,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });

    // Once: plan, compile, bind.
    let context = Context::with_adapter(&adapter, device.clone(), queue.clone())?;
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: SEQ,
        seq_len_kv: SEQ,
        num_q_heads: HEADS,
        num_kv_heads: HEADS,
        head_dim: DIM,
        head_dim_v: DIM,
    };
    let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
    let plan = AttentionPlan::new(&problem, context.caps())?;
    println!("{}\n{plan}", context.describe());
    let row = u64::from(HEADS * DIM);
    let strided = |part: u64| Layout { shape: shape.q(), strides: [0, 3 * row, DIM.into()], offset: part * row };
    let view = |part| TensorView::new(&qkv, DType::F32, strided(part));
    let packed = || TensorViewMut::new(&out, DType::F32, Layout::seq_major(1, SEQ, HEADS, DIM));
    let args = AttentionArgs::new(view(0), view(1), view(2), packed());
    let bound = Attention::prepare(&context, &plan)?.bind(args)?;

    // Every frame: into the pass that is open.
    let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
    bound.encode_in(&mut pass);
    drop(pass);
    queue.submit([encoder.finish()]);

    let got: HostTensor = context.read(packed().as_view()).wait()?;
    let part = |part: usize| {
        let rows = fused.chunks_exact(3 * row as usize).flat_map(|token| &token[part * row as usize..][..row as usize]);
        HostTensor::new(shape.q(), rows.copied().collect())
    };
    let exact = cpu::oracle::attend(&problem, &HostInputs::new(&part(0)?, &part(1)?, &part(2)?))?;
    let worst = got.data().iter().zip(exact.out.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("largest difference from f64: {worst:.1e}");
    assert!(worst < 1e-5, "the result is wrong");
    Ok(())
}
