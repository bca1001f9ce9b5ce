//! The CPU twins of the kernels against the f64 oracle: shows that the kernels' tiles, order of sums and splits are right, without a GPU.

mod common;

use common::{Case, Exp, MASKS, masks_for_lengths, shape};
use half::{bf16, f16};
use wattn::cpu::twins;
use wattn::{
    AttentionOutput, AttentionPlan, AttentionShape, DeviceCaps, Element, HostTensor, LSE_EMPTY, Mask, MergeProblem,
    Sharing, Tier, Tiling,
};

/// Tiles of 4 rows and 16 keys.
const TINY: Tiling = Tiling::new(4, 2, 4, 2);

/// Tiles of 3 rows and 16 keys.
const TINY_COLUMNS: Tiling = Tiling::new(4, 3, 4, 4).with_sharing(Sharing::Columns);

fn plan<T: Element>(case: &Case<T>, tiling: Tiling) -> AttentionPlan {
    let mut problem = case.problem().with_lse();
    if case.seq_lens_kv.is_some() {
        problem = problem.with_seq_lens_kv();
    }
    AttentionPlan::with_tiling(&problem, &DeviceCaps::BASELINE, Tier::Baseline, tiling).unwrap()
}

/// Decode and merge, as the plan's two dispatches do.
fn split<T: Element>(case: &Case<T>, plan: &AttentionPlan) -> AttentionOutput {
    let partials = twins::attend_decode(plan, &case.inputs()).unwrap();
    let shape = &case.shape;
    let num_rows = shape.batch_size * shape.seq_len_q * shape.num_q_heads;
    let problem = MergeProblem { num_parts: plan.tiling().num_splits, num_rows, head_dim_v: shape.head_dim_v };
    let (out, lse) = twins::merge_splits(&problem, &partials.out, &partials.lse).unwrap();
    AttentionOutput::new(HostTensor::new(shape.out(), out).unwrap(), HostTensor::new(shape.lse(), lse).unwrap())
}

fn check<T: Element>(case: &Case<T>, tiling: Tiling) {
    // The exponential of the standard library is as exact as ours, but takes a rounded product in base 2, so that the bound for devices
    // holds.
    let exp = Exp::Gpu(tiling.tile_kv());
    let prefill = plan(case, tiling);
    case.check_with(&twins::attend_prefill(&prefill, &case.inputs()).unwrap(), exp, &format!("{case:?} {tiling:?}"));
    for num_splits in [2, 3, 7] {
        let tiling = tiling.with_num_splits(num_splits);
        case.check_with(&split(case, &plan(case, tiling)), exp, &format!("{case:?} {tiling:?}"));
    }
}

/// 0, 1, tile - 1, tile, tile + 1, 2 tile + 1 and a prime, for rows and for keys; two heads a group.
#[test]
fn every_border_and_mask() {
    for seq_len_q in [0, 1, 2, 3, 5, 13] {
        for seq_len_kv in [0, 1, 15, 16, 17, 33, 53] {
            for mask in MASKS {
                let shape = shape(1, [seq_len_q, seq_len_kv], [1, 2]);
                check(&Case::<f32>::random(shape, mask, 1), TINY);
                check(&Case::<f32>::random(shape, mask, 1), TINY_COLUMNS);
            }
        }
    }
}

#[test]
fn every_tiling() {
    let case = Case::<f32>::random(shape(2, [9, 70], [2, 3]), Mask::Window { left: Some(40), right: Some(3) }, 2);
    for lanes in [4, 8, 16] {
        for rows in [1, 4, 8] {
            for keys in [4, 8, 16] {
                for sharing in [Sharing::Keys, Sharing::Tiles] {
                    check(&case, Tiling::new(lanes, rows, keys, 1).with_sharing(sharing));
                }
            }
        }
    }
}

/// Lanes that share the rows of keys: any number of rows, keys and groups.
#[test]
fn every_tiling_of_columns() {
    let case = Case::<f32>::random(shape(2, [9, 70], [2, 3]), Mask::Window { left: Some(40), right: Some(3) }, 2);
    for lanes in [4, 16] {
        for rows in [1, 3, 8] {
            for keys in [1, 3, 4] {
                for groups in [1, 5] {
                    let sharing = Sharing::Columns;
                    check(&case, Tiling::new(lanes, rows, keys, groups).with_sharing(sharing));
                }
            }
        }
    }
}

#[test]
fn every_dtype_and_group_size() {
    for group in [1, 2, 3, 16] {
        let shape = AttentionShape { head_dim: 20, head_dim_v: 12, ..shape(2, [5, 37], [2, group]) };
        check(&Case::<f16>::random(shape, Mask::Causal, 3), TINY);
        check(&Case::<bf16>::painted(shape, Mask::Full), TINY);
    }
}

#[test]
fn lengths_of_their_own_never_read_past_the_end() {
    for mask in masks_for_lengths() {
        let mut case = Case::<f32>::random(shape(3, [5, 37], [2, 2]), mask, 4);
        let lens = [20, 0, 37];
        case.seq_lens_kv = Some(lens.to_vec());
        for (b, &len) in lens.iter().enumerate() {
            for tensor in [&mut case.k, &mut case.v] {
                tensor.data_mut()[b * 37 * 32..][..37 * 32][len as usize * 32..].fill(f32::NAN);
            }
        }
        check(&case, TINY);
    }
}

/// More splits than tiles: some splits are empty, and say so.
#[test]
fn empty_splits_say_so() {
    let case = Case::<f32>::random(shape(1, [1, 33], [1, 1]), Mask::Full, 5);
    let plan = plan(&case, TINY.with_num_splits(7));
    let partials = twins::attend_decode(&plan, &case.inputs()).unwrap();
    let empty: Vec<bool> = partials.lse.iter().map(|&lse| lse == LSE_EMPTY).collect();
    // Three tiles of 16 keys: those that end at split 7 / 3, 14 / 3 and 7, rounded up.
    assert_eq!(empty, [true, true, false, true, false, true, false]);
    for (empty, out) in empty.iter().zip(partials.out.chunks_exact(16)) {
        assert_eq!(*empty, out.iter().all(|&x| x == 0.0));
    }
}
