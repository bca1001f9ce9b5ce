//! Ceilings of the CPU, on all threads that the CPU path uses.

use std::hint::black_box;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Ceiling, CeilingKind, best_run_on_cpu};
use crate::bench::clock::Elapsed;
use crate::bench::{BenchError, BenchResult};

/// Words that one thread copies at a time, and the number of such pieces: 256 MiB in all, larger than every cache.
const PIECE: usize = 1 << 18;
const PIECES: u32 = 256;

/// Independent chains of a thread, enough to hide the latency of an operation.
const CHAINS: usize = 16;

/// Rows and columns of matrices that stay in a core's cache.
const EDGE: usize = 192;

pub(super) fn measure() -> BenchResult<Vec<Ceiling>> {
    let none = |kind| Ceiling::new(kind, None, "the CPU path computes in f32");
    Ok(vec![copy(), multiply_add()?, none(CeilingKind::F16), none(CeilingKind::Matrix)])
}

fn copy() -> Ceiling {
    let from = vec![1u32; PIECE * PIECES as usize];
    let mut to = vec![0u32; from.len()];
    let (pieces, seconds) = no_error(best_run_on_cpu(PIECES, PIECES, |pieces| {
        let len = PIECE * pieces as usize;
        Ok(Elapsed::of(|| {
            to[..len]
                .par_chunks_mut(PIECE)
                .zip(from.par_chunks(PIECE))
                .for_each(|(to, from)| black_box(to).copy_from_slice(black_box(from)));
        })
        .wall)
    }));
    let bytes = 2.0 * 4.0 * PIECE as f64 * f64::from(pieces);
    let note = format!("{} MiB copied by {} threads", bytes as u64 >> 21, rayon::current_num_threads());
    Ceiling::new(CeilingKind::Copy, Some(bytes / seconds), note)
}

fn multiply_add() -> BenchResult<Ceiling> {
    let threads = rayon::current_num_threads();
    let arch = pulp::Arch::new();
    let mut results = Vec::new();
    let (iterations, seconds) = no_error(best_run_on_cpu(1 << 10, 1 << 22, |iterations| {
        Ok(Elapsed::of(|| results = rayon::broadcast(|_| arch.dispatch(MultiplyAdd { iterations }))).wall)
    }));
    for &Multiplied { lanes, sum } in &results {
        // Exact: everything here is a power of two.
        let expected = (CHAINS * lanes) as f32 * iterations as f32;
        if sum != expected {
            return Err(BenchError::Ceiling { kernel: "multiply_add on the CPU", got: sum, expected });
        }
    }
    let lanes = results.first().map_or(0, |result| result.lanes);
    let chains = 2.0 * (CHAINS * lanes * threads) as f64 * f64::from(iterations) / seconds;
    // The library that multiplies the CPU path's matrices may use wider vectors.
    let products = products()?;
    let (rate, what) = if chains > products {
        (chains, format!("chains of multiplications and additions in vectors of {lanes}"))
    } else {
        (products, format!("products of {EDGE} x {EDGE} matrices"))
    };
    Ok(Ceiling::new(CeilingKind::F32, Some(rate), format!("{what}, {threads} threads")))
}

/// Steps of the chains of [`reference`]: about a millisecond.
const REFERENCE: u32 = 1 << 18;

/// Operations a second of a short fixed piece of work on all threads: the fastest of several runs.
pub(in crate::bench) fn reference() -> f64 {
    let arch = pulp::Arch::new();
    let run = || {
        let mut lanes = 0;
        let elapsed = Elapsed::of(|| {
            lanes = rayon::broadcast(|_| arch.dispatch(MultiplyAdd { iterations: REFERENCE }).lanes).iter().sum();
        });
        2.0 * (CHAINS * lanes) as f64 * f64::from(REFERENCE) / elapsed.wall.max(f64::MIN_POSITIVE)
    };
    (0..5).map(|_| run()).fold(0.0, f64::max)
}

/// Operations a second of products of small matrices, each thread with its own.
fn products() -> BenchResult<f64> {
    let ones = vec![1.0f32; EDGE * EDGE];
    let mut last = Vec::new();
    let (repeats, seconds) = no_error(best_run_on_cpu(1, 1 << 16, |repeats| {
        Ok(Elapsed::of(|| {
            last = rayon::broadcast(|_| {
                let mut product = ones.clone();
                let [a, b] = [&ones, &ones].map(|ones| MatRef::from_row_major_slice(black_box(ones), EDGE, EDGE));
                for _ in 0..repeats {
                    let to = MatMut::from_row_major_slice_mut(&mut product, EDGE, EDGE);
                    matmul(to, Accum::Replace, a, b, 1.0, Par::Seq);
                }
                product
            });
        })
        .wall)
    }));
    let expected = EDGE as f32;
    if let Some(&got) = last.iter().flatten().find(|&&got| got != expected) {
        return Err(BenchError::Ceiling { kernel: "a product on the CPU", got, expected });
    }
    Ok(2.0 * EDGE.pow(3) as f64 * last.len() as f64 * f64::from(repeats) / seconds)
}

fn no_error<T>(result: Result<T, core::convert::Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// Chains `x = factor x + addend`, as `shaders/bench/multiply_add.wgsl` has them.
struct MultiplyAdd {
    iterations: u32,
}

struct Multiplied {
    /// Lanes of a vector.
    lanes: usize,
    /// The sum over all chains and lanes.
    sum: f32,
}

impl WithSimd for MultiplyAdd {
    type Output = Multiplied;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Multiplied {
        let (factor, addend) = (simd.splat_f32s(black_box(1.0)), simd.splat_f32s(black_box(1.0)));
        let mut chains = [simd.splat_f32s(0.0); CHAINS];
        for _ in 0..black_box(self.iterations) {
            for chain in &mut chains {
                *chain = simd.mul_add_e_f32s(*chain, factor, addend);
            }
        }
        let sum = chains.into_iter().map(|chain| simd.reduce_sum_f32s(chain)).sum();
        black_box(Multiplied { lanes: size_of::<S::f32s>() / size_of::<f32>(), sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_count_their_steps() {
        let Multiplied { lanes, sum } = pulp::Arch::new().dispatch(MultiplyAdd { iterations: 1000 });
        assert_eq!(sum, (CHAINS * lanes * 1000) as f32);
    }

    #[test]
    fn rates_are_those_of_a_computer() {
        for ceiling in measure().unwrap() {
            match ceiling.kind {
                CeilingKind::Copy | CeilingKind::F32 => {
                    let rate = ceiling.rate.unwrap();
                    assert!((1e8..1e14).contains(&rate), "{ceiling:?}");
                }
                _ => assert_eq!(ceiling.rate, None),
            }
        }
    }
}
