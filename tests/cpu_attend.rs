//! The CPU path against the f64 oracle, and its promises: containment of NaN, the same bits on every run.

mod common;

use common::bad_values::check_bad_values;
use common::{Case, Exp, MASKS, masks_for_lengths, rows, shape};
use half::{bf16, f16};
use wattn::cpu::{self, CpuTiling};
use wattn::{AttentionOutput, AttentionProblem, AttentionShape, DType, Element, Error, HostTensor, LSE_EMPTY, Mask};

/// Tiles of 4 make every edge cheap to reach; splits of 8 need merging from 9 keys on.
const TINY: CpuTiling = CpuTiling::new().with_tile_q(4).with_tile_kv(4).with_split_kv(8).with_stream_rows(0);

/// The same tiling, where every small problem streams keys.
const TINY_STREAM: CpuTiling = TINY.with_stream_rows(1000);

/// 0, 1, tile - 1, tile, tile + 1, 2 tile + 1 for a tile of 4, and a prime that takes two splits.
const TINY_LENGTHS: [u32; 7] = [0, 1, 3, 4, 5, 9, 13];

/// Every check of one case, with tiles of every kind.
fn check<T: Element>(case: &Case<T>, what: &str) {
    for tiling in [TINY, TINY_STREAM, CpuTiling::default()] {
        case.check_against_naive(&case.attend(&tiling), &format!("{what} {} {case:?} {tiling:?}", T::DTYPE));
    }
}

fn bits(output: &AttentionOutput) -> Vec<u32> {
    output.out.data().iter().chain(output.lse.data()).map(|x| x.to_bits()).collect()
}

#[test]
fn tiny_tiles_at_every_edge() {
    for seq_len_q in TINY_LENGTHS {
        for seq_len_kv in TINY_LENGTHS {
            for mask in MASKS {
                let shape = shape(2, [seq_len_q, seq_len_kv], [2, 1]);
                check(&Case::<f32>::painted(shape, mask), "painted");
                check(&Case::<f16>::random(shape, mask, 1), "random");
                check(&Case::<bf16>::random(shape, mask, 2), "random");
            }
        }
    }
}

#[test]
fn default_tiles_at_every_edge() {
    let CpuTiling { tile_q, tile_kv, split_kv, .. } = CpuTiling::default();
    // One case of each kind on its own axis; 67 and 521 are prime, and one key more than a split needs merging.
    let around = |tile: u32| [tile - 1, tile, tile + 1, 2 * tile + 1];
    for (i, seq_len_q) in around(tile_q).into_iter().chain([5, 67]).enumerate() {
        for (j, seq_len_kv) in around(tile_kv).into_iter().chain([1, 521, split_kv + 1]).enumerate() {
            let mask = MASKS[(i + 2 * j) % MASKS.len()];
            let shape = shape(1, [seq_len_q, seq_len_kv], [1, 1]);
            check(&Case::<f32>::random(shape, mask, 3), "random");
        }
    }
}

#[test]
fn wide_windows_across_default_tiles() {
    for mask in [
        Mask::Window { left: Some(130), right: Some(0) },
        Mask::Window { left: Some(64), right: Some(190) },
        Mask::Window { left: Some(0), right: Some(128) },
        Mask::Causal,
        Mask::Full,
    ] {
        for lengths in [[300, 300], [70, 401], [401, 70]] {
            check(&Case::<f32>::random(shape(1, lengths, [2, 1]), mask, 4), "window");
        }
    }
}

#[test]
fn every_group_size() {
    for group in 1..=16 {
        for mask in [Mask::Causal, Mask::Window { left: Some(3), right: Some(2) }] {
            check(&Case::<f32>::random(shape(1, [5, 11], [2, group]), mask, 5), "group");
        }
    }
    // A group larger than the default tile.
    check(&Case::<f32>::random(shape(1, [2, 19], [1, 71]), Mask::Causal, 5), "group");
}

#[test]
fn every_head_width() {
    for (i, head_dim) in (4..=256).step_by(12).chain([64, 128, 256]).enumerate() {
        for head_dim_v in [4, 60, 64, 256] {
            let shape = AttentionShape { head_dim, head_dim_v, ..shape(1, [6, 9], [2, 2]) };
            check(&Case::<f32>::painted(shape, MASKS[i % MASKS.len()]), "width");
            check(&Case::<bf16>::random(shape, Mask::Causal, 6), "width");
        }
    }
}

#[test]
fn decoding_splits_the_keys() {
    for seq_len_kv in [511, 512, 513, 4099] {
        for group in [1, 4, 6] {
            let shape = AttentionShape { head_dim: 64, head_dim_v: 68, ..shape(2, [1, seq_len_kv], [2, group]) };
            check(&Case::<f16>::random(shape, Mask::Causal, 7), "decode");
            check(&Case::<f32>::random(shape, Mask::Window { left: Some(600), right: Some(0) }, 8), "decode");
        }
    }
}

#[test]
fn key_lengths_of_their_own() {
    for batch_size in [0, 1, 3] {
        for mask in masks_for_lengths() {
            let mut case = Case::<f32>::random(shape(batch_size, [6, 13], [2, 2]), mask, 9);
            case.seq_lens_kv = Some([9, 0, 13][..batch_size as usize].to_vec());
            check(&case, "lengths");
        }
    }
}

#[test]
fn keys_beyond_the_length_are_never_read() {
    for mask in masks_for_lengths() {
        for bad in [f32::NAN, f32::INFINITY, f32::MAX] {
            let mut case = Case::<f32>::random(shape(3, [6, 13], [2, 2]), mask, 10);
            let lens = vec![9, 0, 12];
            case.seq_lens_kv = Some(lens.clone());
            let clean = case.clone();
            for tensor in [&mut case.k, &mut case.v] {
                for (i, x) in tensor.data_mut().iter_mut().enumerate() {
                    let (b, key) = (i / (13 * 2 * 16), i / (2 * 16) % 13);
                    if key >= lens[b] as usize {
                        *x = bad;
                    }
                }
            }
            for tiling in [TINY, TINY_STREAM, CpuTiling::default()] {
                assert_eq!(bits(&case.attend(&tiling)), bits(&clean.attend(&tiling)), "{bad} {mask} {tiling:?}");
            }
        }
    }
}

#[test]
fn rows_that_see_no_key_are_empty() {
    // The first 30 queries of a causal problem sit before the first key; a window after the last key misses all.
    let cases = [
        (Mask::Causal, [70, 40], 30),
        (Mask::Window { left: Some(2), right: Some(3) }, [70, 40], 27),
        (Mask::Full, [3, 0], 3),
    ];
    for (mask, lengths, empty) in cases {
        let case = Case::<f32>::random(shape(2, lengths, [2, 3]), mask, 11);
        check(&case, "empty rows");
        let got = case.attend(&CpuTiling::default());
        for row in rows(&case.shape) {
            let lse = got.lse.row(row[0] as usize, row[1] as usize, row[2] as usize)[0];
            assert_eq!(lse == LSE_EMPTY, row[1] < empty, "{row:?}");
        }
    }
}

/// NaN or infinity in one row of q, k or v: rows that do not see it keep their bits; the others are finite where the
/// oracle is.
#[test]
fn nan_and_infinity_stay_in_the_rows_that_see_them() {
    for mask in MASKS {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (seq_len, tiling) in
                [(13, TINY), (13, TINY_STREAM), (13, CpuTiling::default()), (200, CpuTiling::default())]
            {
                let clean = Case::<f32>::random(shape(2, [seq_len, seq_len], [2, 2]), mask, 12);
                let expected = clean.attend(&tiling);
                for at in [0, 6, seq_len - 1] {
                    for which in 0..3 {
                        let mut case = clean.clone();
                        let tensor = [&mut case.q, &mut case.k, &mut case.v].into_iter().nth(which).unwrap();
                        let [_, seq, heads, dim] = tensor.shape().map(|n| n as usize);
                        // Batch 1, head 1, element 3.
                        tensor.data_mut()[((seq + at as usize) * heads + 1) * dim + 3] = bad;
                        let what = format!("{bad} in {} at {at}, {mask} {tiling:?}", ["q", "k", "v"][which]);
                        contained(
                            &case,
                            &case.attend(&tiling),
                            &expected,
                            |row| match which {
                                0 => row == [1, at, 1],
                                _ => row[0] == 1 && case.kv_head(row) == 1 && case.sees(row, at),
                            },
                            &what,
                        );
                    }
                }
            }
        }
    }
}

fn contained(
    case: &Case<f32>,
    got: &AttentionOutput,
    clean: &AttentionOutput,
    hit: impl Fn([u32; 3]) -> bool,
    what: &str,
) {
    for row in rows(&case.shape) {
        let [b, q, h] = row.map(|n| n as usize);
        let (out, lse) = (got.out.row(b, q, h), got.lse.row(b, q, h)[0]);
        if hit(row) {
            let (oracle, oracle_lse) = cpu::oracle::attend_row(&case.problem(), &case.inputs(), row[0], row[1], row[2]);
            let same = out.iter().zip(&oracle).all(|(x, y)| x.is_finite() == y.is_finite());
            assert!(
                same && lse.is_finite() == oracle_lse.is_finite(),
                "{what}: {row:?}: {out:?} {lse}, oracle {oracle:?} {oracle_lse}"
            );
        } else {
            let same = out.iter().zip(clean.out.row(b, q, h)).all(|(x, y)| x.to_bits() == y.to_bits());
            assert!(same && lse.to_bits() == clean.lse.row(b, q, h)[0].to_bits(), "{what}: {row:?} changed");
        }
    }
}

#[test]
fn huge_scores_pick_their_key() {
    // Scores 1e30 apart: every weight but the largest is 0, and out is one row of v to the bit.
    for mask in MASKS {
        for sign in [1.0f32, -1.0] {
            let mut case = Case::<f32>::random(shape(1, [13, 13], [1, 2]), mask, 13);
            case.q.data_mut().iter_mut().enumerate().for_each(|(i, q)| *q = if i % 16 == 0 { sign } else { 0.0 });
            for (i, k) in case.k.data_mut().iter_mut().enumerate() {
                *k = if i % 16 == 0 { 1e30 * ((i / 16 * 7 % 13) as f32 - 6.0) } else { 0.0 };
            }
            for tiling in [TINY, TINY_STREAM, CpuTiling::default()] {
                let (got, oracle) = (case.attend(&tiling), case.oracle());
                assert_eq!(got.out, oracle.out, "{mask} {tiling:?}");
                for (got, oracle) in got.lse.data().iter().zip(oracle.lse.data()) {
                    assert!((got - oracle).abs() <= 1e-6 * oracle.abs(), "{mask} {tiling:?}: {got} {oracle}");
                }
            }
        }
    }
}

#[test]
fn large_scores_stay_within_the_bound() {
    for factor in [8.0, 64.0, 512.0] {
        for mask in MASKS {
            let mut case = Case::<f32>::random(shape(1, [9, 41], [2, 2]), mask, 14);
            case.q.data_mut().iter_mut().for_each(|q| *q *= factor);
            for tiling in [TINY, TINY_STREAM, CpuTiling::default()] {
                case.check(&case.attend(&tiling), &format!("factor {factor} {mask} {tiling:?}"));
            }
        }
    }
}

#[test]
fn any_scale() {
    // A scale of s on q is a scale of s on the score; powers of 2 are exact, and so the bits agree. Negative ones too.
    let case = Case::<f32>::random(shape(1, [9, 13], [2, 2]), Mask::Causal, 15);
    for scale in [0.0f32, 0.5, -0.5, -2.0, 4.0] {
        let mut scaled = case.clone();
        scaled.q.data_mut().iter_mut().for_each(|q| *q *= scale);
        for tiling in [TINY, TINY_STREAM, CpuTiling::default()] {
            let run = |case: &Case<f32>, scale| {
                cpu::attend_with_tiling(&case.problem().with_softmax_scale(scale), &case.inputs(), &tiling).unwrap()
            };
            let (a, b) = (run(&case, scale), run(&scaled, 1.0));
            assert!(a.out.data().iter().zip(b.out.data()).all(|(a, b)| (a - b).abs() <= 1e-6), "{scale} {tiling:?}");
        }
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let pools: Vec<_> = [1, 2, 5].map(|n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap()).into();
    for (lengths, heads, tiling) in [
        ([200, 300], [2, 3], CpuTiling::default()),
        ([40, 3000], [2, 3], CpuTiling::default()),
        ([1, 5000], [2, 2], CpuTiling::default()),
        ([13, 40], [2, 3], TINY),
    ] {
        let case = Case::<f16>::random(shape(2, lengths, heads), Mask::Causal, 16);
        let expected = bits(&case.attend(&tiling));
        for pool in &pools {
            for _ in 0..3 {
                assert_eq!(pool.install(|| bits(&case.attend(&tiling))), expected, "{lengths:?}");
            }
        }
    }
}

#[test]
fn the_same_bits_alone_and_in_a_batch() {
    for (lengths, tiling) in [
        ([70, 300], CpuTiling::default()),
        ([1, 3000], CpuTiling::default()),
        ([9, 1000], CpuTiling::default()),
        ([13, 13], TINY),
    ] {
        let mut case = Case::<f32>::random(shape(3, lengths, [2, 3]), Mask::Causal, 17);
        let lens = [lengths[1], lengths[1] - 5, lengths[1] / 2];
        case.seq_lens_kv = Some(lens.to_vec());
        let batch = case.attend(&tiling);
        for (b, &len) in lens.iter().enumerate() {
            let one = |tensor: &HostTensor| {
                let [_, seq, heads, dim] = tensor.shape();
                let len = (seq * heads * dim) as usize;
                HostTensor::new([1, seq, heads, dim], tensor.data()[b * len..][..len].to_vec()).unwrap()
            };
            let shape = AttentionShape { batch_size: 1, ..case.shape };
            let [q, k, v] = [&case.q, &case.k, &case.v].map(one);
            let alone = Case { shape, q, k, v, seq_lens_kv: Some(vec![len]), ..case.clone() }.attend(&tiling);
            assert_eq!(bits(&alone), bits(&AttentionOutput::new(one(&batch.out), one(&batch.lse))), "{b} {lengths:?}");
        }
    }
}

#[test]
fn mistakes_are_errors() {
    let case = Case::<f32>::random(shape(2, [3, 4], [2, 1]), Mask::Full, 18);
    let problem = case.problem();
    let other = AttentionProblem::new(case.shape, DType::F16);
    assert!(matches!(cpu::attend(&other, &case.inputs()), Err(Error::DType { .. })));
    let wrong = Case::<f32> { q: HostTensor::zeros([2, 3, 2, 4]), ..case.clone() };
    assert!(matches!(cpu::attend(&problem, &wrong.inputs()), Err(Error::Shape { tensor: "q", .. })));
    let wrong = Case::<f32> { seq_lens_kv: Some(vec![1]), ..case.clone() };
    assert!(matches!(cpu::attend(&problem, &wrong.inputs()), Err(Error::Length { tensor: "seq_lens_kv", .. })));
    for tiling in [TINY.with_tile_q(0), TINY.with_tile_kv(0), TINY.with_split_kv(0)] {
        assert!(matches!(cpu::attend_with_tiling(&problem, &case.inputs(), &tiling), Err(Error::Invalid { .. })));
    }
    let largest =
        CpuTiling::default().with_tile_q(u32::MAX).with_tile_kv(u32::MAX).with_split_kv(u32::MAX).with_stream_rows(0);
    case.check(&case.attend(&largest), "largest tiles");
}

/// A NaN or an infinity reaches every row that sees it, however low the row's scores are.
#[test]
fn nan_and_infinity_are_not_hidden() {
    for mask in [
        Mask::Full,
        Mask::Causal,
        Mask::Window { left: Some(3), right: Some(7) },
        Mask::Window { left: Some(5), right: Some(0) },
    ] {
        let clean = Case::<f32>::random(shape(1, [37, 37], [2, 2]), mask, 3);
        for tiling in [TINY, TINY_STREAM, CpuTiling::default()] {
            check_bad_values(&clean, Exp::Cpu, |case| case.attend(&tiling), &format!("{tiling:?} {mask}"));
        }
    }
}
