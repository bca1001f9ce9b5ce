//! Block-sparse attention on the CPU against the f64 oracle, and its promises: NaN stays with the rows that attend to it,
//! the same bits on every run, for any number of threads and any batch.

mod common;

use common::select::{self, integer_cases};
use common::selected::{self, SELECTION, SelectedCase, callers_cases};
use common::{Case, Exp, Magnitudes, bound, rows, shape};
use half::{bf16, f16};
use wattn::cpu::{self, oracle};
use wattn::{
    AttentionOutput, AttentionProblem, BlockListSpec, DType, Element, Error, Granularity, HostBlockLists, HostTensor,
    LSE_EMPTY, Mask,
};

fn attend<T: Element>(case: &SelectedCase<T>) -> AttentionOutput {
    cpu::attend(&case.problem(), &case.case.inputs().with_blocks(&case.blocks)).unwrap()
}

fn check<T: Element>(case: &SelectedCase<T>) {
    case.check(&attend(case), Exp::Cpu);
}

fn bits(output: &AttentionOutput) -> Vec<u32> {
    output.out.data().iter().chain(output.lse.data()).map(|x| x.to_bits()).collect()
}

/// The bits of one row: out, then lse.
fn row_bits(output: &AttentionOutput, [b, q, h]: [u32; 3]) -> Vec<u32> {
    let [b, q, h] = [b, q, h].map(|n| n as usize);
    output.out.row(b, q, h).iter().chain(output.lse.row(b, q, h)).map(|x| x.to_bits()).collect()
}

/// Attention over random floats, to lists that a selection found for them.
fn of_selections<T: Element>() -> Vec<SelectedCase<T>> {
    let of = |(seed, case): (usize, select::SelectCase<T>)| {
        let mask = case.problem.mask();
        let mut floats = Case::<T>::random(*case.problem.shape(), mask, seed as u64);
        floats.seq_lens_kv.clone_from(&case.seq_lens_kv);
        let inputs = floats.inputs();
        let blocks = oracle::select(&case.problem, &inputs.for_selection()).unwrap();
        SelectedCase {
            name: format!("{} {}", T::DTYPE, case.name),
            selection: case.problem.blocks(),
            blocks,
            case: floats,
        }
    };
    integer_cases::<T>().into_iter().enumerate().map(of).collect()
}

#[test]
fn lists_of_every_selection() {
    of_selections::<f32>().iter().for_each(check);
    of_selections::<f16>().iter().for_each(check);
}

#[test]
fn lists_of_callers() {
    callers_cases::<f32>().iter().for_each(check);
    callers_cases::<f16>().iter().for_each(check);
    callers_cases::<bf16>().iter().for_each(check);
}

#[test]
fn every_head_width_and_group_size() {
    for (group, head_dim, head_dim_v) in
        [(1, 4, 256), (3, 80, 96), (4, 64, 64), (8, 128, 128), (16, 256, 4), (7, 20, 12)]
    {
        for (seq_len_q, granularity) in
            [(1, Granularity::KvHead), (11, Granularity::Layer), (11, Granularity::QueryHead)]
        {
            let shape = wattn::AttentionShape { head_dim, head_dim_v, ..shape(1, [seq_len_q, 150], [2, group]) };
            let selection = SELECTION.with_granularity(granularity);
            let case = Case::<f32>::random(shape, Mask::Causal, 3);
            check(&SelectedCase::random(format!("{shape:?} {granularity}"), case, selection, 4));
        }
    }
}

#[test]
fn long_lists_of_a_decode_step() {
    let case = Case::<f32>::random(shape(1, [1, 30_000], [2, 4]), Mask::Causal, 1);
    for granularity in Granularity::ALL {
        let selection = SELECTION
            .with_granularity(granularity)
            .with_block_size_q(1)
            .with_max_blocks(1000)
            .with_sink_size(100)
            .with_window_size(700);
        check(&SelectedCase::random(format!("long, {granularity}"), case.clone(), selection, 2));
    }
}

#[test]
fn attending_to_everything_is_dense_attention() {
    let bound_of = |case: &Case<f32>| {
        // Everything is in [-1, 1): scores up to sqrt(16), values up to 1; two paths, so twice the bound.
        let magnitudes = Magnitudes { num_keys: 90, score: 4.0, value: vec![1.0], largest_value: 1.0 };
        bound(&magnitudes, case.shape.head_dim, Exp::Cpu).0[0] * 2.0
    };
    for (mask, lens) in [(Mask::Causal, [20, 90]), (Mask::Causal, [1, 90]), (Mask::Full, [20, 90])] {
        let case = Case::<f32>::random(shape(2, lens, [2, 2]), mask, 5);
        let dense = cpu::attend(&case.problem(), &case.inputs()).unwrap();
        let window = if mask == Mask::Causal { 7 } else { 0 };
        let all = |block_size: u32| (0..90).step_by(block_size as usize).collect::<Vec<u32>>();
        let of = |selection: BlockListSpec, list: &[u32]| {
            let mut blocks = HostBlockLists::empty(selection.indices_shape(&case.shape));
            selected::lists(&blocks).into_iter().for_each(|[b, s, m]| blocks.set_list(b, s, m, list));
            let name = format!("{mask} {selection:?}");
            SelectedCase { name, case: case.clone(), selection, blocks }
        };
        let room = SELECTION.with_max_blocks(90).with_sink_size(0).with_window_size(window);
        let mut cases: Vec<SelectedCase<f32>> = [1, 7, 30, 128]
            .map(|block_size| of(room.with_block_size(block_size).with_max_blocks(90), &all(block_size)))
            .into();
        cases.push(of(room.with_dense_below(90), &[]));
        if mask == Mask::Causal {
            cases.push(of(room.with_window_size(90), &[]));
            cases.push(of(room.with_sink_size(90).with_window_size(0), &[]));
        }
        for selected in cases {
            let got = attend(&selected);
            selected.check(&got, Exp::Cpu);
            for (x, y) in got.out.data().iter().zip(dense.out.data()) {
                assert!(f64::from((x - y).abs()) <= bound_of(&case), "{}: {x} {y}", selected.name);
            }
            for row in rows(&case.shape) {
                assert_eq!(selected.keys(row), case.keys(row).collect::<Vec<u32>>(), "{}", selected.name);
            }
        }
    }
}

#[test]
fn a_decode_row_is_the_prefill_row_with_its_list() {
    for granularity in Granularity::ALL {
        let selection = SELECTION.with_granularity(granularity);
        let all = Case::<f32>::random(shape(1, [15, 200], [2, 2]), Mask::Causal, 8);
        let prefill = SelectedCase::random("prefill", all.clone(), selection, 9);
        let together = attend(&prefill);
        for q_index in [0, 7, 14] {
            let len = 200 - 14 + q_index;
            let mut case = Case::<f32>::random(shape(1, [1, 200], [2, 2]), Mask::Causal, 8);
            (case.k, case.v, case.seq_lens_kv) = (all.k.clone(), all.v.clone(), Some(vec![len]));
            let width = case.q.data().len();
            case.q.data_mut().copy_from_slice(&all.q.data()[q_index as usize * width..][..width]);
            let mut blocks = HostBlockLists::empty(selection.indices_shape(&case.shape));
            for [_, s, _] in selected::lists(&blocks) {
                let list = prefill.blocks.list(0, s, q_index / 5);
                blocks.set_list(0, s, 0, &list[..list.partition_point(|&start| start < len)]);
            }
            let decode = SelectedCase { name: "decode".into(), case, selection, blocks };
            let got = attend(&decode);
            decode.check(&got, Exp::Cpu);
            for h in 0..4 {
                assert_eq!(decode.keys([0, 0, h]), prefill.keys([0, q_index, h]), "{granularity}, query {q_index}");
                let magnitudes = Magnitudes { num_keys: 45, score: 4.0, value: vec![1.0], largest_value: 1.0 };
                let (bound_out, bound_lse) = bound(&magnitudes, 16, Exp::Cpu);
                let (one, row) = (got.out.row(0, 0, h as usize), together.out.row(0, q_index as usize, h as usize));
                for (x, y) in one.iter().zip(row) {
                    assert!(f64::from((x - y).abs()) <= 2.0 * bound_out[0], "{granularity}, query {q_index}: {x} {y}");
                }
                let [x, y] = [got.lse.row(0, 0, h as usize)[0], together.lse.row(0, q_index as usize, h as usize)[0]];
                assert!(f64::from((x - y).abs()) <= 2.0 * bound_lse, "{granularity}, query {q_index}: lse {x} {y}");
            }
        }
    }
}

#[test]
fn rows_without_keys_are_empty() {
    let selection = SELECTION.with_sink_size(0).with_window_size(0);
    for mask in [Mask::Causal, Mask::Full] {
        let case = Case::<f32>::random(shape(1, [6, 30], [1, 2]), mask, 1);
        let blocks = HostBlockLists::empty(selection.indices_shape(&case.shape));
        let none = SelectedCase { name: format!("nothing listed, {mask}"), case, selection, blocks };
        let got = attend(&none);
        assert!(got.out.data().iter().all(|&x| x == 0.0) && got.lse.data().iter().all(|&x| x == LSE_EMPTY), "{mask}");
    }
}

#[test]
fn keys_beyond_the_length_are_never_read() {
    let mut checked = 0;
    for clean in callers_cases::<f32>() {
        let Some(lens) = clean.case.seq_lens_kv.clone() else { continue };
        let expected = bits(&attend(&clean));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut stale = clean.clone();
            let seq_len_kv = stale.case.shape.seq_len_kv as usize;
            for tensor in [&mut stale.case.k, &mut stale.case.v] {
                let sequence = tensor.data().len() / lens.len();
                for (data, &len) in tensor.data_mut().chunks_mut(sequence).zip(&lens) {
                    data[sequence / seq_len_kv * len as usize..].fill(bad);
                }
            }
            assert_eq!(bits(&attend(&stale)), expected, "{bad}: {}", clean.name);
        }
        checked += 1;
    }
    assert!(checked > 10);
}

/// NaN or infinity in one key: rows that do not attend to it keep their bits, the other rows equal the oracle's where the oracle is finite.
#[test]
fn nan_and_infinity_stay_in_the_rows_that_attend_to_them() {
    for clean in callers_cases::<f32>().into_iter().step_by(2) {
        let expected = attend(&clean);
        let len = clean.case.inputs().seq_len_kv(0);
        for key in [0, len / 3, len / 2, len - 1] {
            for (which, bad) in [(0, f32::NAN), (1, f32::NAN), (1, f32::INFINITY)] {
                let mut dirty = clean.clone();
                let tensor = if which == 0 { &mut dirty.case.k } else { &mut dirty.case.v };
                let [_, _, heads, dim] = tensor.shape().map(|n| n as usize);
                // Batch 0, head 1, element 2.
                tensor.data_mut()[(key as usize * heads + 1) * dim + 2] = bad;
                let got = attend(&dirty);
                for row in rows(&clean.case.shape) {
                    let what = format!("{bad} in {} of key {key}, {row:?}: {}", ["k", "v"][which], clean.name);
                    let reached = row[0] == 0 && clean.case.kv_head(row) == 1 && clean.keys(row).contains(&key);
                    if reached {
                        let out = got.out.row(0, row[1] as usize, row[2] as usize);
                        assert!(!out[2].is_finite(), "{what}: {out:?}");
                    } else {
                        assert_eq!(row_bits(&got, row), row_bits(&expected, row), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    for case in callers_cases::<f32>().into_iter().step_by(3) {
        let expected = bits(&attend(&case));
        for num_threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
            assert_eq!(bits(&pool.install(|| attend(&case))), expected, "{num_threads} threads: {}", case.name);
        }
    }
}

#[test]
fn the_same_bits_alone_and_in_a_batch() {
    for together in callers_cases::<f32>() {
        let all = attend(&together);
        let part = |of: &HostTensor, b: u32| {
            let [_, seq, head, dim] = of.shape();
            let len = (seq * head * dim) as usize;
            HostTensor::new([1, seq, head, dim], of.data()[b as usize * len..][..len].to_vec()).unwrap()
        };
        for b in 0..2 {
            let case = Case {
                shape: wattn::AttentionShape { batch_size: 1, ..together.case.shape },
                q: part(&together.case.q, b),
                k: part(&together.case.k, b),
                v: part(&together.case.v, b),
                seq_lens_kv: together.case.seq_lens_kv.as_ref().map(|lens| vec![lens[b as usize]]),
                ..together.case.clone()
            };
            let mut blocks = HostBlockLists::empty(together.selection.indices_shape(&case.shape));
            for [_, s, m] in selected::lists(&blocks) {
                blocks.set_list(0, s, m, together.blocks.list(b, s, m));
            }
            let alone = SelectedCase { case, blocks, ..together.clone() };
            let got = attend(&alone);
            for [_, q, h] in rows(&alone.case.shape) {
                assert_eq!(row_bits(&got, [0, q, h]), row_bits(&all, [b, q, h]), "{} {b} {q} {h}", alone.name);
            }
        }
    }
}

#[test]
fn broken_lists_are_errors() {
    let case = Case::<f32>::random(shape(2, [12, 40], [2, 2]), Mask::Causal, 1);
    let problem = case.problem().with_blocks(SELECTION);
    let axes = SELECTION.indices_shape(&case.shape);
    assert_eq!(axes, [2, 2, 3, 4]);
    for (why, count, list) in selected::broken_lists() {
        let clean = SelectedCase::random("clean", case.clone(), SELECTION, 2);
        let (mut indices, mut counts) = (clean.blocks.block_indices().to_vec(), clean.blocks.block_counts().to_vec());
        // Sequence 1, set 0, query block 2.
        let row = 6 + 2;
        indices[row * 4..][..4].copy_from_slice(&list);
        counts[row] = count;
        let blocks = HostBlockLists::new(axes, indices, counts).unwrap();
        for error in [
            cpu::attend(&problem, &case.inputs().with_blocks(&blocks)).unwrap_err(),
            oracle::attend(&problem, &case.inputs().with_blocks(&blocks)).unwrap_err(),
        ] {
            assert!(matches!(error, Error::Blocks { batch: 1, set: 0, q_block: 2, .. }), "{why}: {error}");
        }
    }
}

#[test]
fn wrong_calls_are_errors() {
    let case = Case::<f32>::random(shape(2, [12, 40], [2, 2]), Mask::Causal, 1);
    let fine = SelectedCase::random("fine", case.clone(), SELECTION, 2);
    let call = |problem: &AttentionProblem, blocks: &HostBlockLists| {
        cpu::attend(problem, &case.inputs().with_blocks(blocks)).unwrap_err()
    };
    for axes in [[1, 2, 3, 4], [2, 4, 3, 4], [2, 2, 12, 4], [2, 2, 3, 5]] {
        let error = call(&fine.problem(), &HostBlockLists::empty(axes));
        let expected = SELECTION.indices_shape(&case.shape);
        assert!(
            matches!(error, Error::Shape { actual, expected: e, .. } if actual == axes && e == expected),
            "{error}"
        );
    }
    let error = call(&case.problem(), &fine.blocks);
    assert!(matches!(error, Error::Argument { argument: "blocks", .. }), "{error}");
    let with = |selection| case.problem().with_blocks(selection);
    let error = call(&with(SELECTION.with_block_size(129)), &fine.blocks);
    assert!(matches!(error, Error::Invalid { field: "block_size", value: 129, .. }), "{error}");
    let error = call(&with(SELECTION).with_mask(Mask::Full), &fine.blocks);
    assert!(matches!(error, Error::Invalid { field: "sink_size", .. }), "{error}");
    let halves = AttentionProblem::new(case.shape, DType::F16).with_mask(Mask::Causal).with_blocks(SELECTION);
    assert!(matches!(call(&halves, &fine.blocks), Error::DType { .. }));
    let short = HostTensor::zeros([2, 39, 2, 16]);
    let inputs = wattn::HostInputs::new(&case.q, &case.k, &short);
    let error = cpu::attend(&fine.problem(), &inputs.with_blocks(&fine.blocks)).unwrap_err();
    assert!(matches!(error, Error::Shape { tensor: "v", .. }), "{error}");
}
