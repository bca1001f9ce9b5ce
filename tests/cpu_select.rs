//! Selection on the CPU against the f64 oracle, and its promises: the same lists on every run, for any number of threads
//! and any batch around a sequence.

mod common;

use common::Random;
use common::bad_scores::{spoiled_cases, undecided_cases};
use common::certificate::{certify, certify_all};
use common::select::{self, SelectCase, assert_invariants, assert_lists_equal, infinite, shape, three_stages};
use half::{bf16, f16};
use wattn::cpu::{self, StageCache, oracle};
use wattn::{
    DType, Element, Error, Granularity, Hip, HostBlockLists, HostTensor, InfiniteHip, Preset, SelectionProblem,
};

const DRAWN: u64 = 600;

fn check<T: Element>(case: &SelectCase<T>) {
    let what = format!("{} {}", T::DTYPE, case.name);
    let expected = oracle::select(&case.problem, &case.inputs()).unwrap();
    let got = cpu::select(&case.problem, &case.inputs()).unwrap();
    assert_lists_equal(&got, &expected, &what);
    assert_invariants(&case.problem, case.seq_lens_kv.as_deref(), &got, &what);
}

#[test]
fn equal_to_the_oracle_on_integers_of_every_type() {
    select::integer_cases::<f32>().iter().for_each(check);
    select::integer_cases::<f16>().iter().for_each(check);
    select::integer_cases::<bf16>().iter().for_each(check);
}

#[test]
fn equal_to_the_oracle_on_drawn_problems() {
    (0..DRAWN).map(select::drawn_case).for_each(|case| check(&case));
}

#[test]
fn certified_on_floats() {
    certify_all(&cpu::select, &select::float_cases::<f32>(), "CPU, f32");
    certify_all(&cpu::select, &select::float_cases::<f16>(), "CPU, f16");
}

/// A NaN score counts as absent: keys with NaN rank last, queries with NaN have no say. Infinities rank as numbers.
#[test]
fn what_nan_and_infinity_do_is_defined() {
    fn check_all<T: Element>() {
        spoiled_cases::<T>().iter().for_each(check);
        for case in undecided_cases::<T>() {
            let got = cpu::select(&case.problem, &case.inputs()).unwrap();
            assert_invariants(&case.problem, case.seq_lens_kv.as_deref(), &got, &case.name);
            assert_lists_equal(&cpu::select(&case.problem, &case.inputs()).unwrap(), &got, &case.name);
        }
    }
    check_all::<f32>();
    check_all::<f16>();
    check_all::<bf16>();
}

/// Small integers, scaled by `1 / sqrt(96)`: a third of the products are rounded, and scores that tie in exact arithmetic almost tie.
#[test]
fn certified_where_near_ties_abound() {
    let (mut lists, mut ties) = (0, 0);
    for (seed, method) in [select::HIP.into(), wattn::SelectionMethod::from(three_stages())].into_iter().enumerate() {
        for seq_len_q in [1, 64] {
            let problem = SelectionProblem::new(shape(1, [seq_len_q, 900], [2, 2], 96), DType::F32, method.clone());
            let name = format!("near ties, {seq_len_q} queries, {method:?}");
            let case = SelectCase::<f32>::integers(&name, problem.clone(), seed as u64);
            let blocks = cpu::select(&problem, &case.inputs()).unwrap();
            let certified = certify(&problem, &case.inputs(), &blocks, &name);
            (lists, ties) = (lists + certified.lists, ties + certified.ties);
        }
    }
    println!("near ties leave {ties} of {lists} lists open");
    assert!(ties > 0, "no near ties in {lists} lists");
}

#[test]
fn certified_with_published_settings() {
    let shape = shape(1, [64, 9000], [1, 2], 64);
    for (name, problem) in [
        ("HiP", SelectionProblem::new(shape, DType::F32, Hip::default())),
        ("3K", SelectionProblem::new(shape, DType::F32, Preset::ThreeK)),
    ] {
        let case = SelectCase::<f32>::floats(name, problem, 3);
        let blocks = cpu::select(&case.problem, &case.inputs()).unwrap();
        let certified = certify(&case.problem, &case.inputs(), &blocks, name);
        println!("{name}: near ties leave {} of {} lists open", certified.ties, certified.lists);
        assert_invariants(&case.problem, None, &blocks, name);
    }
}

#[test]
fn same_lists_on_every_run_and_for_any_number_of_threads() {
    for case in select::float_cases::<f32>() {
        let first = cpu::select(&case.problem, &case.inputs()).unwrap();
        for num_threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
            let again = pool.install(|| cpu::select(&case.problem, &case.inputs())).unwrap();
            assert_lists_equal(&again, &first, &format!("{}, {num_threads} threads", case.name));
        }
    }
}

/// One sequence of a case alone.
fn alone(case: &SelectCase, batch: u32) -> SelectCase {
    let part = |of: &HostTensor| {
        let [_, seq, head, dim] = of.shape();
        let len = (seq * head * dim) as usize;
        HostTensor::new([1, seq, head, dim], of.data()[batch as usize * len..][..len].to_vec()).unwrap()
    };
    let shape = wattn::AttentionShape { batch_size: 1, ..*case.problem.shape() };
    let mut problem = SelectionProblem::new(shape, DType::F32, case.problem.method().clone())
        .with_granularity(case.problem.blocks().granularity)
        .with_mask(case.problem.mask())
        .with_selection_scale(case.problem.selection_scale())
        .with_dense_below(case.problem.blocks().dense_below)
        .with_margin(case.problem.margin());
    problem = problem.with_seq_lens_kv();
    SelectCase {
        name: case.name.clone(),
        problem,
        q: part(&case.q),
        k: part(&case.k),
        seq_lens_kv: case.seq_lens_kv.as_ref().map(|lens| vec![lens[batch as usize]]),
    }
}

#[test]
fn sequences_of_a_batch_do_not_know_of_each_other() {
    let mut sequences = 0;
    for seed in 0..DRAWN {
        let case = select::drawn_case(seed);
        let [batch_size, sets, q_blocks, _] = case.problem.blocks().indices_shape(case.problem.shape());
        if batch_size == 1 {
            continue;
        }
        let together = cpu::select(&case.problem, &case.inputs()).unwrap();
        for batch in 0..batch_size {
            let one = alone(&case, batch);
            let got = cpu::select(&one.problem, &one.inputs()).unwrap();
            for (set, q_block) in (0..sets).flat_map(|s| (0..q_blocks).map(move |m| (s, m))) {
                assert_eq!(got.list(0, set, q_block), together.list(batch, set, q_block), "{}", case.name);
            }
            sequences += 1;
        }
    }
    assert!(sequences > 100, "{sequences} sequences");
}

#[test]
fn keys_past_a_sequence_are_not_read() {
    for mut case in select::integer_cases::<f32>() {
        let Some(lens) = case.seq_lens_kv.clone() else { continue };
        let expected = cpu::select(&case.problem, &case.inputs()).unwrap();
        let row = case.k.data().len() / lens.len();
        let width = row / case.problem.shape().seq_len_kv as usize;
        for (sequence, len) in case.k.data_mut().chunks_mut(row).zip(&lens) {
            sequence[*len as usize * width..].fill(f32::NAN);
        }
        assert_lists_equal(&cpu::select(&case.problem, &case.inputs()).unwrap(), &expected, &case.name);
    }
}

/// Query heads `order` of the query heads, and the KV heads that go with them.
fn permuted(case: &SelectCase, q_order: &[usize], kv_order: &[usize]) -> SelectCase {
    let permute = |of: &HostTensor, order: &[usize]| {
        let [batches, seqs, heads, dim] = of.shape();
        assert_eq!(heads as usize, order.len());
        let mut data = Vec::new();
        for (b, s) in (0..batches as usize).flat_map(|b| (0..seqs as usize).map(move |s| (b, s))) {
            order.iter().for_each(|&head| data.extend_from_slice(of.row(b, s, head)));
        }
        HostTensor::new([batches, seqs, heads, dim], data).unwrap()
    };
    SelectCase { q: permute(&case.q, q_order), k: permute(&case.k, kv_order), ..case.clone() }
}

#[test]
fn permuted_heads_permute_their_lists() {
    let (q_order, kv_order) = ([5, 4, 1, 0, 3, 2], [2, 0, 1]);
    for method in [select::HIP.with_top_k(32).into(), wattn::SelectionMethod::from(three_stages())] {
        for granularity in Granularity::ALL {
            let problem = SelectionProblem::new(shape(2, [20, 400], [3, 2], 16), DType::F32, method.clone());
            let case = SelectCase::floats(format!("{granularity}"), problem.with_granularity(granularity), 4);
            let expected = cpu::select(&case.problem, &case.inputs()).unwrap();
            let other = permuted(&case, &q_order, &kv_order);
            let got = cpu::select(&other.problem, &other.inputs()).unwrap();
            let order: &[usize] = match granularity {
                Granularity::QueryHead => &q_order,
                Granularity::KvHead => &kv_order,
                _ => &[0],
            };
            for (set, &from) in order.iter().enumerate() {
                for (batch, q_block) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                    let (got, expected) =
                        (got.list(batch, set as u32, q_block), expected.list(batch, from as u32, q_block));
                    assert_eq!(got, expected, "{method:?} {granularity}: set {set} was {from}");
                }
            }
        }
    }
}

#[test]
fn stages_replayed_from_the_cache_give_the_same_lists() {
    for case in select::integer_cases::<f32>() {
        let mut cache = StageCache::default();
        let full = cpu::select(&case.problem, &case.inputs()).unwrap();
        let first = cpu::select_from(&case.problem, &case.inputs(), 0, &mut cache).unwrap();
        assert_lists_equal(&first, &full, &case.name);
        for stage in 0..case.problem.num_stages() {
            let filled = cache.clone();
            let replayed = cpu::select_from(&case.problem, &case.inputs(), stage, &mut cache).unwrap();
            assert_lists_equal(&replayed, &full, &format!("{} from stage {stage}", case.name));
            assert_eq!(cache, filled, "{} from stage {stage}: the cache", case.name);
        }
    }
}

/// A decode loop: at every step one more key and another query, and the lists of the stages that are due.
fn decode(method: InfiniteHip, dense_below: u32, steps: u64) -> Vec<Option<(HostBlockLists, HostBlockLists)>> {
    let shape = shape(1, [1, 300], [1, 2], 16);
    let problem = SelectionProblem::new(shape, DType::F32, method).with_seq_lens_kv().with_dense_below(dense_below);
    let of = SelectCase::integers("decode", problem, 6);
    let mut random = Random(7);
    let (mut cache, mut traces) = (StageCache::default(), Vec::new());
    (0..steps)
        .map(|step| {
            let mut case = of.clone().lens(&[200 + step as u32]);
            case.q.data_mut().iter_mut().for_each(|x| *x = (random.unit() * 4.0).round());
            let stage = case.problem.first_stage(step)?;
            let got = cpu::select_from(&case.problem, &case.inputs(), stage, &mut cache).unwrap();
            let (expected, now) = oracle::select_from(&case.problem, &case.inputs(), stage, &traces).unwrap();
            traces = now;
            Some((got, expected))
        })
        .collect()
}

#[test]
fn decode_steps_refresh_what_is_due() {
    let intervals = |a, b, c| infinite(&[[16, 64, 4, a], [4, 32, 2, b], [2, 16, 1, c]]);
    // From position 211 on the list is no longer dense, at a step that does not run the first stage.
    for (method, dense_below, refreshes) in [
        (three_stages(), 0, 30),
        (intervals(12, 6, 3), 0, 10),
        (intervals(12, 6, 3), 211, 10),
        (intervals(8, 8, 8), 0, 4),
    ] {
        let steps = decode(method, dense_below, 30);
        assert_eq!(steps.iter().flatten().count(), refreshes);
        for (step, found) in steps.iter().enumerate() {
            let Some((got, expected)) = found else { continue };
            assert_lists_equal(got, expected, &format!("step {step}, dense below {dense_below}"));
            assert_eq!(got.block_counts()[0] == 0, step + 199 < dense_below as usize, "step {step}");
        }
    }
}

/// With room for everything, every key is attended to at every step: keys that leave the window between two refreshes are candidates at the
/// first.
#[test]
fn no_key_is_lost_between_refreshes() {
    let roomy = infinite(&[[16, 640, 4, 12], [4, 640, 2, 6], [2, 640, 1, 3]]);
    // The smallest window that holds every key newer than the list.
    let small_window = roomy.clone().with_window_size(11).with_sink_size(0);
    let hip = select::HIP.with_top_k(640).with_refresh_interval(7).with_window_size(6);
    let no_window = select::HIP.with_top_k(640).with_refresh_interval(1).with_window_size(0);
    for method in [roomy.into(), small_window.into(), wattn::SelectionMethod::from(hip), no_window.into()] {
        let problem = SelectionProblem::new(shape(1, [1, 300], [1, 2], 16), DType::F32, method).with_seq_lens_kv();
        let attention = wattn::AttentionProblem::new(*problem.shape(), DType::F32)
            .with_mask(wattn::Mask::Causal)
            .with_blocks(problem.blocks());
        let case = SelectCase::<f32>::integers("roomy", problem, 9);
        let mut cache = StageCache::default();
        let mut blocks = HostBlockLists::empty(case.problem.blocks().indices_shape(case.problem.shape()));
        for step in 0..50 {
            let len = 90 + step as u32;
            let case = case.clone().lens(&[len]);
            if let Some(stage) = case.problem.first_stage(step) {
                blocks = cpu::select_from(&case.problem, &case.inputs(), stage, &mut cache).unwrap();
            }
            let keys = oracle::attended_keys(&attention, len, &blocks, 0, 0, 1);
            assert_eq!(keys, (0..len).collect::<Vec<u32>>(), "step {step} of {:?}", case.problem.method());
        }
    }
}

#[test]
fn an_interval_of_one_is_no_cache_at_all() {
    let method = infinite(&[[16, 64, 4, 1], [4, 32, 2, 1], [2, 16, 1, 1]]);
    let shape = shape(1, [1, 240], [1, 2], 16);
    let of = SelectCase::<f32>::integers("decode", SelectionProblem::new(shape, DType::F32, method), 8);
    let mut cache = StageCache::default();
    for step in 0..40 {
        let case = of.clone().lens(&[200 + step as u32]);
        let stage = case.problem.first_stage(step).unwrap();
        let cached = cpu::select_from(&case.problem, &case.inputs(), stage, &mut cache).unwrap();
        assert_lists_equal(&cached, &cpu::select(&case.problem, &case.inputs()).unwrap(), &format!("step {step}"));
    }
}

#[test]
fn wrong_calls_are_errors() {
    let problem = SelectionProblem::new(shape(1, [16, 100], [1, 2], 16), DType::F32, three_stages());
    let case = SelectCase::<f32>::integers("wrong", problem, 1);
    let mut cache = StageCache::default();
    let from = |stage, cache: &mut StageCache| cpu::select_from(&case.problem, &case.inputs(), stage, cache);
    assert!(matches!(from(1, &mut cache), Err(Error::Argument { argument: "cache", .. })));
    assert!(from(0, &mut cache).is_ok() && from(2, &mut cache).is_ok());
    assert!(matches!(from(3, &mut cache), Err(Error::Invalid { field: "first_stage", value: 3, .. })));
    let short: HostTensor = HostTensor::zeros([1, 99, 1, 16]);
    let inputs = wattn::SelectionInputs::new(&case.q, &short);
    assert!(matches!(cpu::select(&case.problem, &inputs), Err(Error::Shape { tensor: "k", .. })));
    let inputs = case.inputs().with_seq_lens_kv(&[101]);
    assert!(matches!(
        cpu::select(&case.problem, &inputs),
        Err(Error::Invalid { field: "seq_lens_kv", value: 101, .. })
    ));
    let halves = SelectionProblem::new(*case.problem.shape(), DType::F16, three_stages());
    assert!(matches!(cpu::select(&halves, &case.inputs()), Err(Error::DType { .. })));
}
