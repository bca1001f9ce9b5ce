//! Generating token by token with sparse attention: selection and attention are bound once, the lists stay in GPU buffers,
//! and each step computes only the stages whose refresh is due. Nothing is read back in between.
//!
//! `cargo run --release --example sparse_decode`

use wattn::{
    Attention, AttentionArgs, AttentionPlan, AttentionProblem, AttentionShape, BlockListsView, Context, ContextOptions,
    DType, HostInputs, HostTensor, InfiniteHip, Layout, Mask, Preset, Selection, SelectionArgs, SelectionPlan,
    SelectionProblem, SoftwareAdapters, TensorView, TensorViewMut, U32View, cpu,
};

const CAPACITY: u32 = 4096;
const TOKENS: u32 = 33;
const HEADS: u32 = 2;
const DIM: u32 = 32;
/// Elements of q and of the result: each head of keys serves four query heads.
const ROW: u32 = 4 * HEADS * DIM;

/// Numbers in [-1, 1).
fn numbers(count: u32, seed: u32) -> Vec<f32> {
    let mix = |i: u32| i.wrapping_mul(0x9e37_79b1) ^ (i.wrapping_mul(0x85eb_ca6b) >> 13);
    (0..count).map(|i| (mix(i ^ seed) >> 8) as f32 / (1u32 << 23) as f32 - 1.0).collect()
}

fn main() -> wattn::Result<()> {
    let context = Context::request(&ContextOptions::default().with_software(SoftwareAdapters::Accept)).wait()?;
    let (device, queue) = (context.device(), context.queue());
    let [batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads] = [1, 1, CAPACITY, 4 * HEADS, HEADS];
    let [head_dim, head_dim_v] = [DIM; 2];
    let shape = AttentionShape { batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim, head_dim_v };
    let mut method = InfiniteHip::from(Preset::Debug);
    method.stages.iter_mut().zip([8, 4, 2]).for_each(|(stage, interval)| stage.refresh_interval = interval);
    let selection = SelectionProblem::new(shape, DType::F32, method).with_seq_lens_kv();
    let lists = selection.blocks();
    let problem =
        AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal).with_seq_lens_kv().with_blocks(lists);
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let buffer = |label, elements: u32| {
        let size = u64::from(elements) * 4;
        device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false })
    };
    let (q, out, len) = (buffer("q", ROW), buffer("out", ROW), buffer("len", 1));
    let [k, v] = ["k", "v"].map(|label| buffer(label, CAPACITY * HEADS * DIM));
    let (indices, counts) = (buffer("block_indices", lists.max_blocks), buffer("block_counts", 1));
    let (row, cache) = (Layout::seq_major(1, 1, 4 * HEADS, DIM), Layout::seq_major(1, CAPACITY, HEADS, DIM));
    let view = |buffer, layout| TensorView::new(buffer, DType::F32, layout);
    let (seq_lens_kv, block_counts) = (Some(U32View::new(&len, 0, 1)), U32View::new(&counts, 0, 1));
    let blocks = BlockListsView::new(U32View::new(&indices, 0, lists.max_blocks.into()), block_counts);
    let plan = SelectionPlan::new(&selection, context.caps())?;
    let args = SelectionArgs::new(view(&q, row), view(&k, cache), blocks).with_seq_lens_kv(seq_lens_kv);
    let select = Selection::prepare(&context, &plan)?.bind(args)?;
    let plan = AttentionPlan::new(&problem, context.caps())?;
    let ([q_view, k_view, v_view], blocks) = ([view(&q, row), view(&k, cache), view(&v, cache)], Some(blocks));
    let out_view = TensorViewMut::new(&out, DType::F32, row);
    let args = AttentionArgs::new(q_view, k_view, v_view, out_view).with_seq_lens_kv(seq_lens_kv).with_blocks(blocks);
    let attend = Attention::prepare(&context, &plan)?.bind(args)?;

    // A prompt in the cache; a model would continue behind it.
    let [keys, values] = [1, 2].map(|seed| numbers(CAPACITY * HEADS * DIM, seed));
    queue.write_buffer(&k, 0, bytemuck::cast_slice(&keys));
    queue.write_buffer(&v, 0, bytemuck::cast_slice(&values));
    for token in 0..TOKENS {
        queue.write_buffer(&q, 0, bytemuck::cast_slice(&numbers(ROW, 3 + token)));
        queue.write_buffer(&len, 0, bytemuck::bytes_of(&(CAPACITY - TOKENS + token + 1)));
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        select.encode_step(&mut encoder, token.into()); // at most seven dispatches, none where no list is due
        attend.encode(&mut encoder); // one, or two where the keys are split
        queue.submit([encoder.finish()]);
    }

    let got: HostTensor = context.read(view(&out, row)).wait()?;
    let q = HostTensor::new(shape.q(), numbers(ROW, 3 + TOKENS - 1))?;
    let (k, v) = (HostTensor::new(shape.k(), keys)?, HostTensor::new(shape.v(), values)?);
    let inputs = HostInputs::new(&q, &k, &v);
    let lists = cpu::select(&selection, &inputs.for_selection())?;
    let exact = cpu::attend(&problem, &inputs.with_blocks(&lists))?;
    let worst = got.data().iter().zip(exact.out.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{TOKENS} tokens; the last one differs from the CPU path by at most {worst:.1e}");
    assert!(worst < 1e-5, "the result is wrong");
    Ok(())
}
