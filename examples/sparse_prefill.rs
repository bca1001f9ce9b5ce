//! A chunk of a long prompt: HiP selects blocks of keys, and attention reads these, the first keys and the last ones. The two lse values
//! give the captured share of dense attention's weight.
//!
//! `cargo run --release --example sparse_prefill`

use wattn::{AttentionProblem, AttentionShape, DType, Hip, HostInputs, HostTensor, Mask, SelectionProblem, cpu};

const DIM: u32 = 32;

fn main() -> wattn::Result<()> {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 256,
        seq_len_kv: 8192,
        num_q_heads: 4,
        num_kv_heads: 2,
        head_dim: DIM,
        head_dim_v: DIM,
    };
    // Neighbouring keys are alike, as those of models are: the tree search depends on it.
    let mut q = walk(shape.q(), 1, 0.9);
    q.data_mut().iter_mut().for_each(|x| *x *= 2.0); // so that some keys matter more than others
    let (k, v) = (walk(shape.k(), 2, 0.98), walk(shape.v(), 3, 0.0));
    let inputs = HostInputs::new(&q, &k, &v);

    // With a GPU: `Context::select` and `Context::attend` take the same arguments.
    let selection = SelectionProblem::new(shape, DType::F32, Hip::default());
    let blocks = cpu::select(&selection, &inputs.for_selection())?;
    println!("lists {:?} of blocks of {} keys", blocks.shape(), selection.blocks().block_size);
    println!("the first query block of head 0 reads {:?}...", &blocks.list(0, 0, 0)[..8]);

    // Attention takes lists as data: a caller may bring its own.
    let dense = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
    let sparse = dense.clone().with_blocks(selection.blocks());
    let output = cpu::attend(&sparse, &inputs.with_blocks(&blocks))?;

    let exact = cpu::attend(&dense, &inputs)?;
    let masses = output.lse.data().iter().zip(exact.lse.data()).map(|(sparse, dense)| (sparse - dense).exp());
    let mass = masses.sum::<f32>() / output.lse.data().len() as f32;
    let hip = Hip::default();
    let keys = hip.sink_size + hip.top_k + hip.window_size;
    println!("{keys} of {} keys capture {:.1} % of the weight", shape.seq_len_kv, 100.0 * mass);
    let share = keys as f32 / shape.seq_len_kv as f32;
    assert!(mass > 2.0 * share, "blocks found by search must capture more than blocks at random");
    Ok(())
}

/// Rows that are each `memory` times the row before, plus some noise, with variance 1 (a walk along the sequence).
fn walk(shape: [u32; 4], seed: u64, memory: f32) -> HostTensor {
    let mut tensor = HostTensor::zeros(shape);
    let width = (shape[2] * shape[3]) as usize;
    let noise = (1.0 - memory * memory).sqrt();
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    for i in 0..tensor.data().len() {
        let before = if i < width { 0.0 } else { tensor.data()[i - width] };
        let fresh: f32 = 3f32.sqrt() * random(); // a uniform number of variance 1
        tensor.data_mut()[i] = memory * before + noise * fresh;
    }
    tensor
}
