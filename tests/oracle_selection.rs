//! The oracle of selection against the rules of lists, and against the replay that certifies other paths.

mod common;

use common::certificate::{self, Rounding, replay};
use common::select::{self, SelectCase, assert_invariants};
use half::f16;
use wattn::cpu::oracle;
use wattn::{AttentionProblem, HostTensor, Mask, SelectionMethod};

const DRAWN: u64 = 600;

fn cases() -> impl Iterator<Item = SelectCase> {
    select::integer_cases().into_iter().chain((0..DRAWN).map(select::drawn_case))
}

#[test]
fn the_oracle_and_an_exact_replay_agree_on_integers() {
    let (mut lists, mut rounds, mut chosen) = (0, 0, 0);
    for case in cases() {
        let (blocks, traces) = oracle::select_traced(&case.problem, &case.inputs()).unwrap();
        assert_invariants(&case.problem, case.seq_lens_kv.as_deref(), &blocks, &case.name);
        let allowed = replay(&case.problem, &case.inputs(), Rounding::Exact);
        for ([b, s, m], (allowed, trace)) in
            certificate::indices(&case.problem).into_iter().zip(allowed.iter().zip(traces))
        {
            assert_eq!(allowed.certain, allowed.possible, "{}: integers leave nothing open", case.name);
            assert_eq!(blocks.list(b, s, m), allowed.certain, "{} [{b}, {s}, {m}]", case.name);
            lists += 1;
            rounds += trace.rounds.len();
            chosen += usize::from(trace.rounds.len() > 1 || trace.survivors.windows(2).any(|pair| pair[1] != pair[0]));
        }
    }
    println!("{lists} lists, {chosen} of them chosen, in {rounds} rounds of HiP");
    assert!(4 * chosen > lists, "most cases must have more candidates than room: {chosen} of {lists}");
}

#[test]
fn the_oracle_is_certified_on_floats() {
    certificate::certify_all(&oracle::select, &select::float_cases::<f32>(), "oracle, f32");
    certificate::certify_all(&oracle::select, &select::float_cases::<f16>(), "oracle, f16");
}

#[test]
fn a_wrong_list_is_not_certified() {
    let case = &select::float_cases::<f32>()[0];
    let mut blocks = oracle::select(&case.problem, &case.inputs()).unwrap();
    let list = blocks.list(0, 0, 0).to_vec();
    let free = (0..).map(|i| 4 + 2 * i).find(|start| !list.contains(start)).unwrap();
    let mut wrong = list.clone();
    wrong[5] = free;
    wrong.sort_unstable();
    blocks.set_list(0, 0, 0, &wrong);
    let certify = || certificate::certify(&case.problem, &case.inputs(), &blocks, "wrong");
    assert!(std::panic::catch_unwind(certify).is_err(), "block {free} instead of {}", list[5]);
}

#[test]
fn near_ties_leave_a_list_open() {
    let mut case = select::float_cases::<f32>().swap_remove(0);
    let row = case.k.row(0, 0, 0).to_vec();
    case.k.data_mut().chunks_mut(row.len()).for_each(|key| key.copy_from_slice(&row));
    let blocks = oracle::select(&case.problem, &case.inputs()).unwrap();
    let certified = certificate::certify(&case.problem, &case.inputs(), &blocks, "all keys alike");
    assert_eq!(certified.ties, certified.lists, "every score is within rounding of every other");
}

#[test]
fn every_trace_ends_in_its_list() {
    for case in cases() {
        let (blocks, traces) = oracle::select_traced(&case.problem, &case.inputs()).unwrap();
        for ([b, s, m], trace) in certificate::indices(&case.problem).into_iter().zip(traces) {
            let (list, what) = (blocks.list(b, s, m), format!("{} [{b}, {s}, {m}]", case.name));
            match case.problem.method() {
                SelectionMethod::Hip(hip) => {
                    let Some(groups) = trace.rounds.last() else { continue };
                    let start = |&(first, size): &(u32, u32)| {
                        assert_eq!(size, 1, "{what}");
                        hip.sink_size + first * hip.block_size_k
                    };
                    assert_eq!(groups.iter().map(start).collect::<Vec<_>>(), list, "{what}");
                    // Groups of one round do not overlap and are in order, and the first groups hold every block.
                    for groups in &trace.rounds {
                        assert!(groups.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{what}: {groups:?}");
                    }
                    let held: u32 = trace.rounds[0].iter().map(|&(_, size)| size).sum();
                    let (first, size) = trace.rounds[0][trace.rounds[0].len() - 1];
                    assert_eq!(held, first + size, "{what}: the first groups leave a gap");
                }
                _ if trace.survivors.is_empty() => assert!(list.is_empty(), "{what}"),
                _ => {
                    let last = &trace.survivors[trace.survivors.len() - 1];
                    assert!(list.iter().all(|start| last.contains(start)), "{what}");
                }
            }
        }
    }
}

#[test]
fn attention_of_a_full_list_is_dense_attention() {
    let shape = select::shape(2, [20, 90], [2, 2], 16);
    for mask in [Mask::Causal, Mask::Full] {
        let case = common::Case::<f32>::random(shape, mask, 5);
        for block_size in [1, 7, 90, 128] {
            let starts: Vec<u32> = (0..90).step_by(block_size as usize).collect();
            let selection = wattn::BlockListSpec::new(8, block_size, starts.len() as u32)
                .with_granularity(wattn::Granularity::KvHead);
            let problem: AttentionProblem = case.problem().with_blocks(selection);
            let mut blocks = wattn::HostBlockLists::empty(selection.indices_shape(&shape));
            for (b, s, m) in (0..2).flat_map(|b| (0..2).flat_map(move |s| (0..3).map(move |m| (b, s, m)))) {
                blocks.set_list(b, s, m, &starts);
            }
            let got = oracle::attend(&problem, &case.inputs().with_blocks(&blocks)).unwrap();
            assert_eq!(got, case.oracle(), "{mask}, blocks of {block_size}");
        }
    }
}

#[test]
fn attention_attends_to_each_key_once_by_the_three_rules() {
    let shape = select::shape(1, [1, 40], [1, 1], 4);
    let selection = wattn::BlockListSpec::new(1, 8, 3)
        .with_granularity(wattn::Granularity::Layer)
        .with_sink_size(4)
        .with_window_size(10);
    let problem = AttentionProblem::new(shape, wattn::DType::F32).with_mask(Mask::Causal).with_blocks(selection);
    let mut blocks = wattn::HostBlockLists::empty([1, 1, 1, 3]);
    blocks.set_list(0, 0, 0, &[2, 13, 27]); // the first overlaps the sinks, the last the window and the end
    let keys = |problem: &AttentionProblem, len| oracle::attended_keys(problem, len, &blocks, 0, 0, 0);
    let expected: Vec<u32> = (0..10).chain(13..21).chain(27..40).collect();
    assert_eq!(keys(&problem, 40), expected);
    // At position 24 the window begins at 15.
    assert_eq!(keys(&problem, 25), (0..10).chain(13..25).collect::<Vec<u32>>());
    assert_eq!(keys(&problem, 3), [0, 1, 2]);
    assert_eq!(keys(&problem, 0), Vec::<u32>::new());
    let dense = |dense_below| problem.clone().with_blocks(selection.with_dense_below(dense_below));
    assert_eq!(keys(&dense(40), 40), (0..40).collect::<Vec<u32>>());
    assert_eq!(keys(&dense(39), 40), expected);
    // With v = 1 the result is 1, the sum of all weights.
    let (q, k) = (common::random(shape.q(), 1), common::random(shape.k(), 2));
    let v: HostTensor = common::fill(shape.v(), |_| 1.0);
    let inputs = wattn::HostInputs::new(&q, &k, &v);
    let (out, _) = oracle::attend_row(&problem, &inputs.with_blocks(&blocks), 0, 0, 0);
    assert!(out.iter().all(|x| (x - 1.0).abs() < 1e-12), "{out:?}");
}
