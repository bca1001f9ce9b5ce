//! Properties of attention that hold for any input, on the CPU path.

mod common;

use common::{Case, Exp, MASKS, Magnitudes, Random, bound, shape};
use proptest::prelude::*;
use wattn::cpu::{self, CpuTiling};
use wattn::{AttentionOutput, AttentionShape, Error, HostTensor, LSE_EMPTY, Mask, MergeProblem};

/// Bound of a row whose |q|, |k| and |v| are at most 1.
fn loosest_bound(shape: &AttentionShape) -> (f64, f64) {
    let score = f64::from(shape.head_dim).sqrt();
    let num_keys = shape.seq_len_kv as usize;
    let (out, lse) =
        bound(&Magnitudes { num_keys, score, value: vec![1.0], largest_value: 1.0 }, shape.head_dim, Exp::Cpu);
    (out[0], lse)
}

/// Two results of one problem: each is within the bound of the exact result.
fn close(shape: &AttentionShape, a: &AttentionOutput, b: &AttentionOutput) -> Result<(), TestCaseError> {
    let (bound_out, bound_lse) = loosest_bound(shape);
    for (a, b, bound) in [(&a.out, &b.out, bound_out), (&a.lse, &b.lse, bound_lse)] {
        prop_assert_eq!(a.shape(), b.shape());
        for (a, b) in a.data().iter().zip(b.data()) {
            prop_assert!((f64::from(*a) - f64::from(*b)).abs() <= 2.0 * bound, "{} {} {:e}", a, b, bound);
        }
    }
    Ok(())
}

/// `[batch, from[seq], head, dim]`.
fn gather(tensor: &HostTensor, from: &[usize], heads: &[usize]) -> HostTensor {
    let [batch, _, _, dim] = tensor.shape();
    let mut data = Vec::new();
    for b in 0..batch as usize {
        for &seq in from {
            for &head in heads {
                data.extend_from_slice(tensor.row(b, seq, head));
            }
        }
    }
    HostTensor::new([batch, from.len() as u32, heads.len() as u32, dim], data).unwrap()
}

fn tilings() -> impl Strategy<Value = CpuTiling> {
    (1..9u32, 1..9u32, 1..20u32, prop_oneof![Just(0u32), Just(1000)]).prop_map(
        |(tile_q, tile_kv, split_kv, stream_rows)| {
            CpuTiling::default()
                .with_tile_q(tile_q)
                .with_tile_kv(tile_kv)
                .with_split_kv(split_kv)
                .with_stream_rows(stream_rows)
        },
    )
}

prop_compose! {
    fn cases()(
        batch in 0..3u32,
        lengths in [0..24u32, 0..40u32],
        heads in [1..4u32, 1..6u32],
        widths in [1..20u32, 1..20u32],
        mask in 0..MASKS.len(),
        seed in any::<u32>(),
    ) -> Case<f32> {
        let [head_dim, head_dim_v] = widths.map(|n| 4 * n);
        Case::random(AttentionShape { head_dim, head_dim_v, ..shape(batch, lengths, heads) }, MASKS[mask], seed.into())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tiling_is_within_the_bound(case in cases(), tiling in tilings()) {
        case.check(&case.attend(&tiling), "any tiling");
    }

    #[test]
    fn halves_of_the_keys_merge_to_the_whole(mut case in cases(), tiling in tilings(), cut in 0.0..1.0f64) {
        case.mask = Mask::Full;
        let len = case.shape.seq_len_kv as usize;
        let cut = (cut * (len + 1) as f64) as usize;
        let heads: Vec<usize> = (0..case.shape.num_kv_heads as usize).collect();
        let (mut outs, mut lses) = (Vec::new(), Vec::new());
        for keys in [0..cut, cut..len] {
            let keys: Vec<usize> = keys.collect();
            let mut part = case.clone();
            part.shape.seq_len_kv = keys.len() as u32;
            [part.k, part.v] = [&case.k, &case.v].map(|tensor| gather(tensor, &keys, &heads));
            let AttentionOutput { out, lse, .. } = part.attend(&tiling);
            outs.extend(out.into_data());
            lses.extend(lse.into_data());
        }
        let num_rows = case.shape.batch_size * case.shape.seq_len_q * case.shape.num_q_heads;
        let problem = MergeProblem { num_parts: 2, num_rows, head_dim_v: case.shape.head_dim_v };
        let (out, lse) = cpu::merge(&problem, &outs, &lses).unwrap();
        let merged = AttentionOutput::new(HostTensor::new(case.shape.out(), out).unwrap(), HostTensor::new(case.shape.lse(), lse).unwrap());
        close(&case.shape, &merged, &case.attend(&tiling))?;
    }

    #[test]
    fn the_order_of_keys_does_not_matter(mut case in cases(), tiling in tilings(), seed in any::<u64>()) {
        case.mask = Mask::Full;
        let mut order: Vec<usize> = (0..case.shape.seq_len_kv as usize).collect();
        let mut random = Random(seed);
        order.sort_by_cached_key(|_| random.bits());
        let heads: Vec<usize> = (0..case.shape.num_kv_heads as usize).collect();
        let mut shuffled = case.clone();
        [shuffled.k, shuffled.v] = [&case.k, &case.v].map(|tensor| gather(tensor, &order, &heads));
        close(&case.shape, &case.attend(&tiling), &shuffled.attend(&tiling))?;
    }

    #[test]
    fn a_group_equals_repeated_kv_heads(case in cases(), tiling in tilings()) {
        let keys: Vec<usize> = (0..case.shape.seq_len_kv as usize).collect();
        let heads: Vec<usize> = (0..case.shape.num_q_heads).map(|h| (h / case.shape.group_size()) as usize).collect();
        let mut repeated = case.clone();
        repeated.shape.num_kv_heads = case.shape.num_q_heads;
        [repeated.k, repeated.v] = [&case.k, &case.v].map(|tensor| gather(tensor, &keys, &heads));
        close(&case.shape, &case.attend(&tiling), &repeated.attend(&tiling))?;
    }

    #[test]
    fn one_shift_of_all_scores_changes_only_lse(mut case in cases(), tiling in tilings(), shift in -1.0..1.0f32) {
        // Coordinate 0 of q is 1, so that coordinate 0 of k, times the scale, is added to every score of its row.
        let dim = case.shape.head_dim as usize;
        case.q.data_mut().iter_mut().step_by(dim).for_each(|q| *q = 1.0);
        case.k.data_mut().iter_mut().step_by(dim).for_each(|k| *k = 0.0);
        let plain = case.attend(&tiling);
        case.k.data_mut().iter_mut().step_by(dim).for_each(|k| *k = shift);
        let mut shifted = case.attend(&tiling);
        let by = shift / (dim as f32).sqrt();
        shifted.lse.data_mut().iter_mut().filter(|lse| **lse != LSE_EMPTY).for_each(|lse| *lse -= by);
        close(&case.shape, &plain, &shifted)?;
    }

    #[test]
    fn out_is_within_the_values_it_averages(case in cases(), tiling in tilings()) {
        let (slack, _) = loosest_bound(&case.shape);
        let largest = case.v.data().iter().fold(0.0f32, |max, v| max.max(v.abs()));
        for &x in case.attend(&tiling).out.data() {
            prop_assert!(f64::from(x.abs()) <= f64::from(largest) + slack);
        }
    }
}

#[test]
fn empty_parts_are_not_read() {
    let problem = MergeProblem { num_parts: 3, num_rows: 2, head_dim_v: 4 };
    let nan = [f32::NAN; 4];
    let outs = [nan, nan, [1.0, 2.0, 3.0, 4.0], nan, nan, nan].concat();
    let lses = [LSE_EMPTY, LSE_EMPTY, 0.5, LSE_EMPTY, LSE_EMPTY, LSE_EMPTY];
    let (out, lse) = cpu::merge(&problem, &outs, &lses).unwrap();
    assert_eq!(out, [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!(lse, [0.5, LSE_EMPTY]);
}

#[test]
fn merging_weighs_by_lse() {
    // Weights 3 : 1, far from 0, where exp(lse) overflows.
    let problem = MergeProblem { num_parts: 2, num_rows: 1, head_dim_v: 4 };
    for base in [0.0f32, 1000.0, -1000.0] {
        let lses = [base + 3f32.ln(), base];
        let (out, lse) = cpu::merge(&problem, &[4.0, 0.0, 8.0, 1.0, 0.0, 4.0, 0.0, 1.0], &lses).unwrap();
        let rounding = 2.0 * base.abs() * f32::EPSILON + 1e-6;
        for (got, expected) in out.iter().zip([3.0, 1.0, 6.0, 1.0]) {
            assert!((got - expected).abs() <= 8.0 * rounding, "{base}: {out:?}");
        }
        assert!((lse[0] - (base + 4f32.ln())).abs() <= rounding, "{base}: {lse:?}");
    }
}

#[test]
fn a_part_that_is_nan_makes_its_row_nan_and_no_other() {
    let problem = MergeProblem { num_parts: 2, num_rows: 2, head_dim_v: 4 };
    let (out, lse) = cpu::merge(&problem, &[1.0; 16], &[f32::NAN, 0.0, 0.0, 0.0]).unwrap();
    assert!(out[..4].iter().all(|x| x.is_nan()) && lse[0].is_nan(), "{out:?} {lse:?}");
    assert_eq!(out[4..], [1.0; 4]);
}

#[test]
fn merge_checks_its_slices() {
    let problem = MergeProblem { num_parts: 2, num_rows: 3, head_dim_v: 4 };
    let wrong_out = cpu::merge(&problem, &[0.0; 23], &[0.0; 6]);
    assert!(matches!(wrong_out, Err(Error::Length { tensor: "parts_out", expected: 24, actual: 23 })));
    let wrong_lse = cpu::merge(&problem, &[0.0; 24], &[0.0; 7]);
    assert!(matches!(wrong_lse, Err(Error::Length { tensor: "parts_lse", expected: 6, actual: 7 })));
    let none = MergeProblem { num_rows: 0, ..problem };
    assert_eq!(cpu::merge(&none, &[], &[]).unwrap(), (vec![], vec![]));
    let largest = MergeProblem { num_parts: u32::MAX, num_rows: u32::MAX, head_dim_v: 256 };
    assert!(matches!(cpu::merge(&largest, &[], &[]), Err(Error::Length { .. })));
}
