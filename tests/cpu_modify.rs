//! Modifiers of scores on the CPU path, against the oracle.

mod common;

use common::modified::{CHAINS, ModifiedCase, check_hidden_nan, hidden_nan};
use common::{Case, Exp, MASKS, shape};
use half::{bf16, f16};
use wattn::cpu::{self, CpuTiling};
use wattn::{
    Alibi, AttentionProblem, BatchIndex, Bias, DType, Element, Error, HostTensor, LSE_EMPTY, Mask, Softcap,
    published_slopes,
};

/// Tiles that stream and tiles of matrices, with borders everywhere.
fn tilings() -> [CpuTiling; 3] {
    let of = |tile_q, tile_kv, stream_rows| {
        let mut tiling = CpuTiling::default();
        (tiling.tile_q, tiling.tile_kv, tiling.stream_rows) = (tile_q, tile_kv, stream_rows);
        tiling
    };
    [CpuTiling::default(), of(3, 5, 0), of(64, 7, 1000)]
}

fn check<T: Element>(case: &ModifiedCase<T>) {
    for tiling in tilings() {
        let got = case.with_inputs(|inputs| cpu::attend_with_tiling(&case.problem(), inputs, &tiling)).unwrap();
        case.check(&got, Exp::Cpu, &format!("{case:?} {tiling:?}"));
    }
}

#[test]
fn every_chain_mask_and_group() {
    for chain in CHAINS {
        for (seed, mask) in (1..).zip(MASKS) {
            for group in [1, 3] {
                for lengths in [[1, 19], [13, 37], [21, 5], [3, 0]] {
                    check(&ModifiedCase::new(Case::<f32>::random(shape(3, lengths, [2, group]), mask, seed), chain));
                }
            }
        }
    }
}

#[test]
fn every_dtype_and_lengths_of_their_own() {
    fn of<T: Element>() {
        for chain in CHAINS {
            let mut case = Case::<T>::random(shape(3, [9, 40], [1, 2]), Mask::Causal, 5);
            case.seq_lens_kv = Some(vec![40, 11, 0]);
            check(&ModifiedCase::new(case, chain));
        }
    }
    of::<f32>();
    of::<f16>();
    of::<bf16>();
}

#[test]
fn every_chain_over_lists() {
    for (seed, chain) in (1..).zip(CHAINS) {
        for lengths in [[1, 70], [13, 70], [21, 9]] {
            check(&ModifiedCase::with_lists(Case::<f32>::random(shape(3, lengths, [2, 2]), Mask::Causal, seed), chain));
        }
    }
}

/// The value of a hidden key stays out, that of a seen one comes in, whatever it is.
#[test]
fn values_of_hidden_keys_stay_out() {
    for tiling in tilings() {
        let case = hidden_nan::<f32>();
        let got = case.with_inputs(|inputs| cpu::attend_with_tiling(&case.problem(), inputs, &tiling)).unwrap();
        check_hidden_nan(&got, &format!("{tiling:?}"));
    }
}

#[test]
fn slopes_are_the_published_ones() {
    // Of 12 heads: those of 8, then every other one of 16.
    let of_12 = published_slopes(12);
    assert_eq!(of_12[..8], published_slopes(8));
    assert_eq!(of_12[8..], [0.5f32.sqrt(), 0.5f32.powf(1.5), 0.5f32.powf(2.5), 0.5f32.powf(3.5)]);
    assert_eq!(published_slopes(1), [1.0 / 256.0]);
    assert!(published_slopes(0).is_empty());
}

/// A row whose keys are all hidden gives zeros.
#[test]
fn a_row_without_keys() {
    let case = Case::<f32>::random(shape(1, [4, 9], [1, 1]), Mask::Full, 3);
    let mut case = ModifiedCase { case, mods: Vec::new(), sinks: None, lists: None, tensors: Vec::new() };
    case.tensors.push(("none", common::modified::Tensor::BF16(common::fill([1, 1, 1, 9], |_| bf16::MIN.to_f32()))));
    case.add(Bias::new("none", [1, 1, 1, 9], DType::BF16));
    let got = case.with_inputs(|inputs| cpu::attend(&case.problem(), inputs)).unwrap();
    assert!(got.out.data().iter().all(|&x| x == 0.0) && got.lse.data().iter().all(|&x| x == LSE_EMPTY));
}

#[test]
fn what_is_wrong_is_named() {
    let case = Case::<f32>::random(shape(2, [4, 9], [1, 2]), Mask::Full, 3);
    let refused =
        |modifier: wattn::ScoreMod| case.problem().with_score_mod(modifier).validate().unwrap_err().to_string();
    for cap in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-38] {
        assert!(refused(Softcap::new(cap).into()).starts_with("softcap = "), "{cap}");
    }
    assert_eq!(refused(Alibi::with_slopes(&[1.0; 3]).into()), "`alibi slopes` holds 3 elements, its shape needs 2");
    assert_eq!(refused(Alibi::with_slopes(&[1.0, f32::NAN]).into()), "alibi slopes = NaN: must be finite");
    let bias = |name, shape| Bias::new(name, shape, DType::F32);
    assert_eq!(refused(bias("b", [2, 2, 9, 4]).into()), "`b` has shape [2, 2, 9, 4], expected [2, 2, 4, 9]");
    let by = |rule, batches| refused(bias("b", [batches, 1, 1, 1]).with_batch_index(rule).into());
    assert_eq!(by(BatchIndex::Divided(2), 2), "`b` has shape [2, 1, 1, 1], expected [1, 2, 4, 9]");
    assert_eq!(by(BatchIndex::Modulo(3), 2), "`b` has shape [2, 1, 1, 1], expected [3, 2, 4, 9]");
    assert!(by(BatchIndex::Modulo(0), 1).contains("divides by 0"));
    for name in ["", "Bias", "a b", "q", "_x", "workspace"] {
        assert!(
            matches!(
                case.problem().with_score_mod(bias(name, [1; 4])).validate(),
                Err(Error::Argument { argument, .. }) if argument == name
            ),
            "{name:?}"
        );
    }
    let twice = case.problem().with_score_mod(bias("b", [1; 4])).with_score_mod(bias("b", [1; 4]));
    assert!(twice.validate().unwrap_err().to_string().contains("two biases"));
    let long = (0..9).fold(case.problem(), |problem, _| problem.with_score_mod(Softcap::new(1.0)));
    assert!(matches!(long.validate(), Err(Error::TooLarge { needed: 9, available: 8, .. })));

    // Tensors by name.
    let problem = case.problem().with_score_mod(bias("b", [1, 1, 1, 9]));
    let (right, narrow, half) = (
        HostTensor::<f32>::zeros([1, 1, 1, 9]),
        HostTensor::<f32>::zeros([1, 1, 1, 8]),
        HostTensor::<f16>::zeros([1, 1, 1, 9]),
    );
    let mut nan = right.clone();
    nan.data_mut()[4] = f32::NAN;
    let attend = |problem: &AttentionProblem, tensors: &[_]| {
        cpu::attend(problem, &case.inputs().with_tensors(tensors)).map(|_| ()).map_err(|error| error.to_string())
    };
    let refused = |tensors: &[_]| attend(&problem, tensors).unwrap_err();
    attend(&problem, &[("b", (&right).into())]).unwrap();
    assert_eq!(refused(&[]), "`b`: is required by the problem");
    assert_eq!(refused(&[("b", (&right).into()), ("b", (&right).into())]), "`b`: is given twice");
    assert_eq!(refused(&[("b", (&right).into()), ("c", (&right).into())]), "the problem has no tensor `c`");
    assert_eq!(refused(&[("b", (&narrow).into())]), "`b` has shape [1, 1, 1, 8], expected [1, 1, 1, 9]");
    assert_eq!(refused(&[("b", (&half).into())]), "`b` is f16, the plan was made for f32");
    assert_eq!(refused(&[("b", (&nan).into())]), "`b`: holds NaN");
    assert!(attend(&case.problem(), &[("b", (&right).into())]).is_err());
}
