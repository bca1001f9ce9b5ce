//! Generating token by token: everything is bound once, the KV cache grows in place, and the number of keys lies in a
//! GPU buffer. A step allocates nothing but its command encoder.
//!
//! `cargo run --release --example decode_loop`

use wattn::{
    Attention, AttentionArgs, AttentionPlan, AttentionProblem, AttentionShape, Context, ContextOptions, DType,
    HostInputs, HostTensor, Layout, Mask, SoftwareAdapters, TensorView, TensorViewMut, U32View, cpu,
};

const CAPACITY: u32 = 1024;
const TOKENS: u32 = 100;
const HEADS: u32 = 2;
const GROUP: u32 = 4;
const DIM: u32 = 32;

fn main() -> wattn::Result<()> {
    let context = Context::request(&ContextOptions::default().with_software(SoftwareAdapters::Accept)).wait()?;
    let (device, queue) = (context.device(), context.queue());
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 1,
        seq_len_kv: CAPACITY, // an upper bound: the buffer below holds the actual number
        num_q_heads: HEADS * GROUP,
        num_kv_heads: HEADS,
        head_dim: DIM,
        head_dim_v: DIM,
    };
    let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal).with_seq_lens_kv();
    let buffer = |label, elements: u32| {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let size = u64::from(elements) * 4;
        device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
    };
    let (q, out, len) = (buffer("q", HEADS * GROUP * DIM), buffer("out", HEADS * GROUP * DIM), buffer("len", 1));
    let (k, v) = (buffer("k", CAPACITY * HEADS * DIM), buffer("v", CAPACITY * HEADS * DIM));

    let plan = AttentionPlan::new(&problem, context.caps())?;
    println!("{}\n{plan}", context.describe());
    let row = || Layout::seq_major(1, 1, HEADS * GROUP, DIM);
    let cache = Layout::seq_major(1, CAPACITY, HEADS, DIM);
    let bound = Attention::prepare(&context, &plan)?.bind(
        AttentionArgs::new(
            TensorView::new(&q, DType::F32, row()),
            TensorView::new(&k, DType::F32, cache),
            TensorView::new(&v, DType::F32, cache),
            TensorViewMut::new(&out, DType::F32, row()),
        )
        .with_seq_lens_kv(U32View::new(&len, 0, 1)),
    )?;

    let (mut keys, mut values, mut query) = (Vec::new(), Vec::new(), Vec::new());
    for token in 0..TOKENS {
        // A model would compute k and v on the GPU and copy them into the cache; here they come from the host.
        let rows = |step, count| (0..count).map(move |i| ((token * 17 + i) * step % 251) as f32 / 125.5 - 1.0);
        let (new_k, new_v): (Vec<f32>, Vec<f32>) = (rows(7, HEADS * DIM).collect(), rows(11, HEADS * DIM).collect());
        query = rows(13, HEADS * GROUP * DIM).collect();
        let at = u64::from(token * HEADS * DIM) * 4;
        queue.write_buffer(&k, at, bytemuck::cast_slice(&new_k));
        queue.write_buffer(&v, at, bytemuck::cast_slice(&new_v));
        queue.write_buffer(&q, 0, bytemuck::cast_slice(&query));
        // All writes of a submission land before its commands: one length, hence one submission, for each token.
        queue.write_buffer(&len, 0, bytemuck::bytes_of(&(token + 1)));
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        bound.encode(&mut encoder);
        queue.submit([encoder.finish()]);
        keys.extend(new_k);
        values.extend(new_v);
    }

    let got: HostTensor = context.read(TensorView::new(&out, DType::F32, row())).wait()?;
    let problem = AttentionProblem::new(AttentionShape { seq_len_kv: TOKENS, ..shape }, DType::F32);
    let host = |heads, data: Vec<f32>| HostTensor::new([1, data.len() as u32 / heads / DIM, heads, DIM], data);
    let (q, k, v) = (host(HEADS * GROUP, query)?, host(HEADS, keys)?, host(HEADS, values)?);
    let exact = cpu::attend(&problem, &HostInputs::new(&q, &k, &v))?;
    let worst = got.data().iter().zip(exact.out.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{TOKENS} tokens; the last one differs from the CPU path by at most {worst:.1e}");
    assert!(worst < 1e-5, "the result is wrong");
    Ok(())
}
