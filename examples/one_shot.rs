//! Slices in, vectors out: causal attention with grouped heads, on a GPU if there is one, else on the CPU.
//!
//! `cargo run --release --example one_shot`

use wattn::{
    AttentionProblem, AttentionShape, ContextOptions, DType, Engine, HostInputs, HostTensor, Mask, SoftwareAdapters,
    cpu,
};

fn main() -> wattn::Result<()> {
    // Four query heads share two key/value heads. The last query sits on the last key.
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 48,
        seq_len_kv: 80,
        num_q_heads: 4,
        num_kv_heads: 2,
        head_dim: 32,
        head_dim_v: 32,
    };
    let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
    let [q, k, v] = [(shape.q(), 7), (shape.k(), 11), (shape.v(), 13)].map(|(shape, step)| waves(shape, step));
    let inputs = HostInputs::new(&q, &k, &v);

    // `Engine::best()` would pass over software devices, which are slower than the CPU path. Taking them lets
    // the example show the GPU path on any machine.
    let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
    let engine = Engine::best_with(&options).wait()?;
    println!("computing on {engine}");
    let output = engine.attend(&problem, &inputs).wait()?;

    let exact = cpu::oracle::attend(&problem, &inputs)?;
    let pairs = output.out.data().iter().zip(exact.out.data());
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("out {:?}, lse {:?}", output.out.shape(), output.lse.shape());
    println!("first row {:.4?}..., lse {:.4}", &output.out.row(0, 0, 0)[..4], output.lse.row(0, 0, 0)[0]);
    println!("largest difference from f64: {worst:.1e}");
    assert!(worst < 1e-5, "the result is wrong");
    Ok(())
}

/// Some numbers between -1 and 1.
fn waves(shape: [u32; 4], step: usize) -> HostTensor {
    let mut tensor = HostTensor::zeros(shape);
    for (i, x) in tensor.data_mut().iter_mut().enumerate() {
        *x = (i * step) as f32 % 251.0 / 125.5 - 1.0;
    }
    tensor
}
