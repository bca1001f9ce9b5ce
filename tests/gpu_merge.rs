//! The merge op on every adapter, against an f64 merge and against `twins::merge_splits`.

mod common;

use common::Random;
use common::gpu::{buffer, check_twin, contexts, read_all, submit};
use wattn::cpu::twins;
use wattn::{
    Context, DType, DeviceCaps, LSE_EMPTY, Layout, Merge, MergeArgs, MergePlan, MergeProblem, TensorView, TensorViewMut,
};

struct Parts {
    problem: MergeProblem,
    out: Vec<f32>,
    lse: Vec<f32>,
}

impl Parts {
    /// About every third part is empty, in some rows all parts are, marked in either of two ways. Empty parts hold NaN, which must not
    /// reach a sum.
    fn new([num_parts, num_rows, head_dim_v]: [u32; 3], spread: f32) -> Self {
        let mut random = Random(u64::from(num_parts * num_rows));
        let mut parts = Self { problem: MergeProblem { num_parts, num_rows, head_dim_v }, out: vec![], lse: vec![] };
        for _ in 0..num_parts {
            for row in 0..num_rows {
                let empty = row % 5 == 3 || random.bits().is_multiple_of(3);
                let nothing = if random.bits().is_multiple_of(2) { LSE_EMPTY } else { f32::NEG_INFINITY };
                parts.lse.push(if empty { nothing } else { spread * random.unit() });
                parts.out.extend((0..head_dim_v).map(|_| if empty { f32::NAN } else { random.unit() }));
            }
        }
        parts
    }

    /// The definition, in f64.
    fn expected(&self) -> (Vec<f64>, Vec<f64>) {
        let [num_parts, num_rows, dim] =
            [self.problem.num_parts, self.problem.num_rows, self.problem.head_dim_v].map(|n| n as usize);
        let (mut out, mut lse) = (vec![0.0; num_rows * dim], vec![f64::from(LSE_EMPTY); num_rows]);
        for row in 0..num_rows {
            let parts = || (0..num_parts).map(|part| part * num_rows + row).filter(|&at| self.lse[at] > LSE_EMPTY);
            if parts().next().is_none() {
                continue;
            }
            let sum: f64 = parts().map(|at| f64::from(self.lse[at]).exp()).sum();
            for at in parts() {
                for d in 0..dim {
                    out[row * dim + d] += f64::from(self.lse[at]).exp() / sum * f64::from(self.out[at * dim + d]);
                }
            }
            lse[row] = sum.ln();
        }
        (out, lse)
    }
}

/// Runs a merge with the tensors at these offsets, in elements, between guards of 7.
fn run(ctx: &Context, parts: &Parts, offset: usize) -> (Vec<f32>, Vec<f32>) {
    run_planned(ctx, ctx.caps(), parts, offset)
}

/// The same merge on a device with these caps.
fn run_planned(ctx: &Context, caps: &DeviceCaps, parts: &Parts, offset: usize) -> (Vec<f32>, Vec<f32>) {
    let MergeProblem { num_parts, num_rows, head_dim_v } = parts.problem;
    let guarded = |data: &[f32]| [vec![7.0; offset], data.to_vec(), vec![7.0; 5]].concat();
    let (out_len, lse_len) = ((num_rows * head_dim_v) as usize, num_rows as usize);
    let parts_out = buffer(ctx, &guarded(&parts.out));
    let parts_lse = buffer(ctx, &guarded(&parts.lse));
    let (out, lse) = (buffer(ctx, &guarded(&vec![7.0; out_len])), buffer(ctx, &guarded(&vec![7.0; lse_len])));
    let layout = |batch, seq, dim| Layout::seq_major(batch, seq, 1, dim).with_offset(offset as u64);
    let plan = MergePlan::new(&parts.problem, caps).unwrap();
    let bound = Merge::prepare(ctx, &plan)
        .unwrap()
        .bind(MergeArgs::new(
            TensorView::new(&parts_out, DType::F32, layout(num_parts, num_rows, head_dim_v)),
            TensorView::new(&parts_lse, DType::F32, layout(num_parts, num_rows, 1)),
            TensorViewMut::new(&out, DType::F32, layout(1, num_rows, head_dim_v)),
            TensorViewMut::new(&lse, DType::F32, layout(1, num_rows, 1)),
        ))
        .unwrap();
    submit(ctx, |encoder| bound.encode(encoder));
    let unguarded = |buffer, len: usize| {
        let data = read_all::<f32>(ctx, buffer);
        assert!(data[..offset].iter().chain(&data[offset + len..]).all(|&x| x == 7.0), "written past its ends");
        data[offset..offset + len].to_vec()
    };
    (unguarded(&out, out_len), unguarded(&lse, lse_len))
}

/// Few parts, which an invocation merges alone, and many, which several invocations share, as on GPUs.
#[test]
fn merges_as_defined() {
    for ctx in contexts() {
        let mut gpu = ctx.caps().clone();
        gpu.software = false;
        check_merges(ctx, ctx.caps(), &[1, 2, 3, 7, 64], &[0, 1, 15, 16, 17, 131]);
        check_merges(ctx, &gpu, &[1, 4, 5, 9, 33, 128, 133], &[0, 1, 17, 131]);
        check_merges(ctx, &gpu, &[4096], &[3]);
    }
}

fn check_merges(ctx: &Context, caps: &DeviceCaps, numbers_of_parts: &[u32], numbers_of_rows: &[u32]) {
    for head_dim_v in [4, 36] {
        for &num_parts in numbers_of_parts {
            for &num_rows in numbers_of_rows {
                // lse close together, and so far apart that most weights are 0.
                for spread in [1.0, 50.0] {
                    let parts = Parts::new([num_parts, num_rows, head_dim_v], spread);
                    let what = format!("{} {:?} spread {spread}", ctx.describe(), parts.problem);
                    let (out, lse) = run_planned(ctx, caps, &parts, 0);
                    let twin = twins::merge_splits(&parts.problem, &parts.out, &parts.lse).unwrap();
                    check_twin(wattn::Tier::Baseline, (&out, &lse), (&twin.0, &twin.1), &what);
                    let expected = parts.expected();
                    // exp(x) of a device is off by (3 + 2 |x|) ulp, and |x| is at most twice the spread; the sums
                    // of num_parts terms by one rounding each.
                    let allowed = f64::from(f32::EPSILON)
                        * (2.0 * (3.0 + 4.0 * f64::from(spread)) + 2.0 * f64::from(num_parts) + 4.0);
                    for (got, expected) in out.iter().zip(&expected.0) {
                        assert!((f64::from(*got) - expected).abs() <= allowed, "{what}: {got} {expected}");
                    }
                    for (got, expected) in lse.iter().zip(&expected.1) {
                        let size = 1.0 + expected.abs();
                        assert!((f64::from(*got) - expected).abs() <= allowed * size, "{what}: lse {got} {expected}");
                    }
                }
            }
        }
    }
}

/// Offsets below, at and past the alignment of a binding, between guards; the bits do not depend on them.
#[test]
fn offsets_change_nothing() {
    let parts = Parts::new([3, 17, 36], 1.0);
    for ctx in contexts() {
        let expected = run(ctx, &parts, 0);
        for offset in [4, 60, 64, 68, 1000] {
            assert_eq!(run(ctx, &parts, offset), expected, "{} offset {offset}", ctx.describe());
        }
        assert_eq!(run(&ctx.with_checked_shaders().unwrap(), &parts, 4), expected, "with bounds checks");
    }
}

/// A NaN or an infinity in the lse or in the out of a part: the part's row is NaN, or its column not finite, however little the part
/// weighs; -infinity means the same as LSE_EMPTY. The kernel and its twin agree.
#[test]
fn bad_parts_are_not_hidden() {
    let clean = Parts::new([3, 17, 36], 200.0);
    let at = |row: usize, part: usize| part * 17 + row;
    let row = (0..17).find(|&row| (0..3).all(|part| clean.lse[at(row, part)] > LSE_EMPTY)).unwrap();
    for ctx in contexts() {
        for part in 0..3 {
            for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut parts = Parts { out: clean.out.clone(), lse: clean.lse.clone(), problem: clean.problem };
                parts.lse[at(row, part)] = bad;
                let mut without = Parts { out: clean.out.clone(), lse: clean.lse.clone(), problem: clean.problem };
                without.lse[at(row, part)] = LSE_EMPTY;
                let expected = run(ctx, &without, 0);
                let twin = twins::merge_splits(&parts.problem, &parts.out, &parts.lse).unwrap();
                for (who, (out, lse)) in [("kernel", run(ctx, &parts, 0)), ("twin", twin)] {
                    let what = format!("{} {who}: lse {bad} in part {part}", ctx.describe());
                    for (i, (got, expected)) in out.iter().zip(&expected.0).enumerate() {
                        let spoiled = i / 36 == row && bad != f32::NEG_INFINITY;
                        let near = (got - expected).abs() <= 1e-4; // lse up to 200: see merges_as_defined
                        assert!(if spoiled { got.is_nan() } else { near }, "{what}: out[{i}] {got} {expected}");
                    }
                    assert_eq!(lse[row].is_nan(), bad != f32::NEG_INFINITY, "{what}: {}", lse[row]);
                }
            }
            for bad in [f32::NAN, f32::INFINITY] {
                let mut parts = Parts { out: clean.out.clone(), lse: clean.lse.clone(), problem: clean.problem };
                parts.out[at(row, part) * 36 + 8] = bad;
                let twin = twins::merge_splits(&parts.problem, &parts.out, &parts.lse).unwrap();
                let (expected, _) = run(ctx, &clean, 0);
                for (who, (out, lse)) in [("kernel", run(ctx, &parts, 0)), ("twin", twin)] {
                    let what = format!("{} {who}: out {bad} in part {part}", ctx.describe());
                    assert!(if bad.is_nan() { out[row * 36 + 8].is_nan() } else { out[row * 36 + 8] == bad }, "{what}");
                    assert!(lse[row].is_finite() && out[row * 36 + 7].is_finite(), "{what}");
                    assert!((out[row * 36 + 9] - expected[row * 36 + 9]).abs() <= 1e-4, "{what}");
                }
            }
        }
    }
}

/// A NaN in a part reaches the lse or the column of its own row only.
#[test]
fn nan_stays_in_its_row() {
    let mut parts = Parts::new([2, 17, 36], 1.0);
    parts.lse.iter_mut().for_each(|lse| *lse = lse.max(-1.0)); // none is empty
    parts.out.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = 0.5);
    for ctx in contexts() {
        let clean = run(ctx, &parts, 0);
        let mut bad = Parts { out: parts.out.clone(), lse: parts.lse.clone(), ..parts };
        bad.out[5 * 36 + 8] = f32::NAN;
        let (out, lse) = run(ctx, &bad, 0);
        assert!(out[5 * 36 + 8].is_nan());
        assert_eq!(lse, clean.1);
        for (at, (got, clean)) in out.iter().zip(&clean.0).enumerate() {
            assert!(at == 5 * 36 + 8 || got == clean, "{at}: {got} {clean}");
        }
    }
}
