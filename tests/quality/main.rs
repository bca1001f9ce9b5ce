//! Measures of quality against their definitions, synthetic inputs, and the call that chooses between dense and sparse.

#[path = "../common/mod.rs"]
mod common;
mod definition;

use common::{Case, Random, fill, random, shape};
use definition::Definition;
use wattn::quality::synthetic::Pattern;
use wattn::quality::{
    MassReport, MassSummary, block_recall, captured_mass, exact_blocks, no_blocks, output_error, random_blocks,
    synthetic_table,
};
use wattn::{
    AttentionPath, AttentionProblem, AttentionShape, DType, Engine, Error, Granularity, HeadReduction, Hip, HostTensor,
    InfiniteHip, LSE_EMPTY, Mask, Measure, Representative, SelectionMethod, SelectionProblem, SparseOptions, Stage,
    cpu,
};

/// Sixteen keys in blocks of two, sinks of two and a window of four.
fn small_hip() -> Hip {
    Hip::default().with_top_k(16).with_block_size_q(8).with_sink_size(2).with_window_size(4)
}

fn small_infinite_hip() -> InfiniteHip {
    let stage = |chunk_size, keep, stride_q| Stage::new(chunk_size, keep).with_stride_q(stride_q);
    InfiniteHip::new(vec![stage(8, 64, 4), stage(4, 16, 2)])
        .with_block_size_q(8)
        .with_sink_size(4)
        .with_window_size(16)
        .with_representative(Representative::Center)
        .with_reduction(HeadReduction::Max)
}

/// Integers from -3 to 3: their sums are exact.
fn integers(shape: [u32; 4], seed: u64) -> HostTensor {
    let mut random = Random(seed);
    fill(shape, |_| (random.bits() % 7) as f32 - 3.0)
}

#[test]
fn the_best_blocks_are_those_of_the_definition() {
    // Many ties; partial query blocks, and fewer keys than queries in the second sequence.
    let shape = AttentionShape { num_q_heads: 4, ..shape(3, [21, 131], [2, 2]) };
    let (q, k) = (integers(shape.q(), 1), integers(shape.k(), 2));
    let lens = [131, 13, 90];
    let inputs = wattn::SelectionInputs::new(&q, &k).with_seq_lens_kv(&lens);
    let hip = small_hip();
    let infinite = small_infinite_hip();
    let methods: [(SelectionMethod, Mask); 6] = [
        (hip.into(), Mask::Causal),
        (
            hip.with_stride_q(1).with_block_size_k(4).with_stride_k(3).with_sink_size(0).with_window_size(0).into(),
            Mask::Causal,
        ),
        (hip.with_stride_q(8).with_block_size_q(8).into(), Mask::Causal),
        (hip.with_sink_size(0).with_window_size(0).into(), Mask::Full),
        (infinite.clone().into(), Mask::Causal),
        (infinite.with_reduction(HeadReduction::Union).into(), Mask::Causal),
    ];
    for (method, mask) in methods {
        for granularity in Granularity::ALL {
            let problem = SelectionProblem::new(shape, DType::F32, method.clone())
                .with_selection_scale(1.0)
                .with_granularity(granularity)
                .with_mask(mask);
            let exact = exact_blocks(&problem, &inputs).unwrap();
            exact.validate(&problem.blocks(), &shape, Some(&lens)).unwrap();
            let [batch_size, sets, q_blocks, _] = exact.shape();
            for (batch, set, q_block) in
                (0..batch_size).flat_map(|b| (0..sets).flat_map(move |s| (0..q_blocks).map(move |m| (b, s, m))))
            {
                let seq_len_kv = lens[batch as usize];
                let expected = Definition { problem: &problem, q: &q, k: &k, seq_len_kv, batch, q_block }.best(set);
                let got = exact.list(batch, set, q_block);
                assert_eq!(got, expected, "{problem:?}: sequence {batch}, set {set}, query block {q_block}");
            }
            assert_eq!(block_recall(&problem, &inputs, &exact).unwrap().min(), 1.0);
            let none = block_recall(&problem, &inputs, &no_blocks(&problem)).unwrap();
            assert!(none.found().iter().all(|&found| found == 0) && none.wanted().iter().any(|&wanted| wanted > 0));
        }
    }
}

#[test]
fn lists_of_dense_query_blocks_want_nothing() {
    let shape = shape(1, [32, 128], [1, 1]);
    let (q, k) = (random::<f32>(shape.q(), 1), random(shape.k(), 2));
    let inputs = wattn::SelectionInputs::new(&q, &k);
    // The query blocks end at positions 103, 111, 119 and 127.
    let problem = SelectionProblem::new(shape, DType::F32, small_hip()).with_dense_below(112);
    let exact = exact_blocks(&problem, &inputs).unwrap();
    assert_eq!(exact.block_counts(), [0, 0, 8, 8]);
    assert_eq!(random_blocks(&problem, None, 1).unwrap().block_counts(), [0, 0, 8, 8]);
    let half: Vec<u32> = exact.list(0, 0, 3)[..4].to_vec();
    let mut blocks = exact;
    blocks.set_list(0, 0, 3, &half);
    let recall = block_recall(&problem, &inputs, &blocks).unwrap();
    assert_eq!(recall.values(), [1.0, 1.0, 1.0, 0.5]);
    assert_eq!((recall.mean(), recall.min(), recall.shape()), (0.75, 0.5, [1, 1, 4]));
    assert_eq!(recall.to_string(), "recall 0.7500, worst list 0.5000");
}

#[test]
fn random_blocks_are_candidates_and_follow_the_seed() {
    let shape = shape(2, [40, 300], [2, 2]);
    for method in [SelectionMethod::from(small_hip()), small_infinite_hip().into()] {
        let problem = SelectionProblem::new(shape, DType::F32, method);
        let lens = [300, 7];
        let blocks = random_blocks(&problem, Some(&lens), 5).unwrap();
        blocks.validate(&problem.blocks(), &shape, Some(&lens)).unwrap();
        assert_eq!(blocks, random_blocks(&problem, Some(&lens), 5).unwrap());
        assert_ne!(blocks, random_blocks(&problem, Some(&lens), 6).unwrap());
        let full = problem.blocks().max_blocks;
        let [of_long, of_short] = [0, 1].map(|batch| blocks.list(batch, 0, 0).len() as u32);
        assert_eq!((of_long, of_short), (full, 0), "{problem:?}");
    }
    let problem = SelectionProblem::new(shape, DType::F32, small_hip());
    let error = random_blocks(&problem, Some(&[300, 301]), 5).unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "seq_lens_kv", value: 301, .. }), "{error}");
}

#[test]
fn captured_mass_of_edge_rows() {
    let lse = |values: &[f32]| HostTensor::new([1, values.len() as u32, 1, 1], values.to_vec()).unwrap();
    let sparse = lse(&[LSE_EMPTY, LSE_EMPTY, 1.5, 2.000_000_2, 1.0, f32::NAN]);
    let dense = lse(&[LSE_EMPTY, 3.0, 1.5, 2.0, 1.0 + std::f32::consts::LN_2, 1.0]);
    let mass = captured_mass(&sparse, &dense).unwrap();
    assert_eq!(mass.data()[..4], [1.0, 0.0, 1.0, 1.0]);
    assert!((mass.data()[4] - 0.5).abs() < 1e-6 && mass.data()[5].is_nan(), "{mass:?}");
    let error = captured_mass(&sparse, &lse(&[0.0])).unwrap_err();
    assert!(matches!(error, Error::Shape { tensor: "sparse_lse", .. }), "{error}");
}

#[test]
fn output_error_is_relative() {
    let tensor = |values: [f32; 4]| HostTensor::new([1, 1, 1, 4], values.to_vec()).unwrap();
    let dense = tensor([3.0, 0.0, 4.0, 0.0]);
    assert_eq!(output_error(&dense, &dense).unwrap(), 0.0);
    assert_eq!(output_error(&tensor([3.0, 0.0, 4.0, 2.5]), &dense).unwrap(), 0.5);
    assert_eq!(output_error(&tensor([0.0; 4]), &tensor([0.0; 4])).unwrap(), 0.0);
    assert!(output_error(&HostTensor::zeros([1, 1, 1, 8]), &dense).is_err());
}

#[test]
fn a_summary_counts_quantiles_by_rank() {
    let values: Vec<f32> = (1..=200).rev().map(|n| n as f32 / 200.0).collect();
    let MassSummary { rows, mean, min, p01, p10, p50 } = MassSummary::new(values);
    assert_eq!((rows, min, p01, p10, p50), (200, 0.005, 0.01, 0.1, 0.5));
    assert!((mean - 0.5025).abs() < 1e-6, "{mean}");
    assert_eq!(MassSummary::new(vec![]).mean, 1.0);
}

#[test]
fn a_report_shows_layers_and_the_worst_heads() {
    let mut report = MassReport::new();
    let mass = |rows: [f32; 4]| HostTensor::new([1, 2, 2, 1], rows.to_vec()).unwrap();
    report.add_layer("early", &mass([0.5, 1.0, 0.25, 0.75])).unwrap();
    report.add_layer("late", &mass([1.0, 1.0, 0.5, 1.0])).unwrap();
    let expected = "\
captured attention mass

layer    mean     min     p01     p10     p50
early  0.6250  0.2500  0.2500  0.2500  0.5000
late   0.8750  0.5000  0.5000  0.5000  1.0000

head       0      1
early 0.3750 0.8750
late  0.7500 1.0000

worst head    mean     min     p01     p10     p50
early    0  0.3750  0.2500  0.2500  0.2500  0.2500
late     0  0.7500  0.5000  0.5000  0.5000  0.5000
early    1  0.8750  0.7500  0.7500  0.7500  0.7500
late     1  1.0000  1.0000  1.0000  1.0000  1.0000
";
    assert_eq!(report.to_string(), expected);
    assert_eq!(report.worst_layers()[0].name(), "early");
    let (layer, head) = report.worst_heads()[1];
    assert_eq!((layer.name(), head, layer.all().rows), ("late", 0, 4));
    let error = report.add_layer("wide", &HostTensor::zeros([1, 2, 2, 3])).unwrap_err();
    assert!(matches!(error, Error::Shape { tensor: "mass", expected: [1, 2, 2, 1], .. }), "{error}");
    assert_eq!(report.layers().len(), 2);
}

#[test]
fn patterns_have_the_structure_they_promise() {
    let shape = AttentionShape { head_dim: 64, ..shape(1, [256, 512], [1, 2]) };
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let make = |pattern: Pattern| pattern.generate(&shape, 1).unwrap();
    let neighbours = |k: &HostTensor, apart: usize| {
        (0..512 - apart).map(|u| cosine(k.row(0, u, 0), k.row(0, u + apart, 0))).sum::<f64>() / (512 - apart) as f64
    };
    // The mean of 500 cosines of independent 64-vectors has a standard deviation of 0.006; correlated ones vary more.
    let correlated = make(Pattern::Correlated { rho: 0.9, run: 16 });
    assert!((neighbours(&correlated.k, 1) - 0.9).abs() < 0.02, "{}", neighbours(&correlated.k, 1));
    assert!((neighbours(&correlated.k, 4) - 0.9f64.powi(4)).abs() < 0.06, "{}", neighbours(&correlated.k, 4));
    assert!(neighbours(&make(Pattern::Independent).k, 1).abs() < 0.03);

    let diagonal = make(Pattern::Diagonal { distance: 100 });
    let strided = make(Pattern::Strided { stride: 50 });
    let needles = make(Pattern::Needles { count: 3, width: 0 });
    for query in [0, 101, 255] {
        for head in 0..2 {
            // A query's direction has a quarter of its length in noise.
            let looks_for =
                |set: &HostTensor, q: &HostTensor, key: usize| cosine(q.row(0, query, head), set.row(0, key, 0));
            assert!(looks_for(&diagonal.k, &diagonal.q, query + 156) > 0.9);
            assert!(looks_for(&strided.k, &strided.q, 450) > 0.9);
            let found = (0..query + 257).filter(|&key| looks_for(&needles.k, &needles.q, key) > 0.9).count();
            assert!(found == 1 || query == 0 && found == 0, "query {query} finds {found} needles");
        }
    }
    assert_eq!(make(Pattern::STANDARD[2]), make(Pattern::STANDARD[2]));
    let error = Pattern::Strided { stride: 0 }.generate(&shape, 1).unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "stride", value: 0, .. }), "{error}");
    assert!(Pattern::Correlated { rho: f32::NAN, run: 1 }.generate(&shape, 1).is_err());
}

/// The share of a row's softmax weight on the keys it attends to, from the definition.
fn mass_by_definition(case: &Case<f32>, row: [u32; 3], attended: &[u32]) -> f64 {
    let [batch, query, head] = row;
    let q = case.q.row(batch as usize, query as usize, head as usize);
    let score = |key: u32| {
        let k = case.k.row(batch as usize, key as usize, case.kv_head(row));
        let dot = q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        (dot / f64::from(case.shape.head_dim).sqrt()).exp()
    };
    let sum: f64 = case.keys(row).map(score).sum();
    if sum == 0.0 { 1.0 } else { attended.iter().map(|&key| score(key)).sum::<f64>() / sum }
}

#[test]
fn captured_mass_is_the_weight_of_the_attended_keys() {
    let mut case = Case::<f32>::random(shape(2, [20, 150], [2, 2]), Mask::Causal, 11);
    case.seq_lens_kv = Some(vec![150, 9]);
    let selection = SelectionProblem::new(case.shape, DType::F32, small_hip());
    let blocks = random_blocks(&selection, case.seq_lens_kv.as_deref(), 3).unwrap();
    let problem = case.problem().with_blocks(selection.blocks());
    let sparse = cpu::attend(&problem, &case.inputs().with_blocks(&blocks)).unwrap();
    let dense = cpu::attend(&case.problem(), &case.inputs()).unwrap();
    let mass = captured_mass(&sparse.lse, &dense.lse).unwrap();
    let mut least = 1.0f32;
    for (row, &got) in common::rows(&case.shape).zip(mass.data()) {
        let len = case.inputs().seq_len_kv(row[0]);
        let attended = cpu::oracle::attended_keys(&problem, len, &blocks, row[0], row[1], row[2]);
        let expected = mass_by_definition(&case, row, &attended);
        // Both lse are below 16, where a unit in the last place is 1e-6, and off by a few of them.
        assert!((0.0..=1.0).contains(&got) && (f64::from(got) - expected).abs() < 1e-5, "{row:?} {got} {expected}");
        least = least.min(got);
    }
    assert!(least < 0.5, "the lists leave nothing out");
}

#[test]
fn lists_with_room_for_all_lose_nothing() {
    let case = Case::<f32>::random(shape(1, [24, 200], [2, 2]), Mask::Causal, 12);
    let everything = small_hip().with_top_k(256);
    let stage = |chunk_size, keep| Stage::new(chunk_size, keep);
    let every_chunk = small_infinite_hip().with_stages(vec![stage(8, 256), stage(4, 256)]);
    for method in [SelectionMethod::from(everything), every_chunk.into()] {
        let selection = SelectionProblem::new(case.shape, DType::F32, method);
        let options = SparseOptions::default()
            .with_dense_below(0)
            .with_captured_mass(Measure::Compute)
            .with_recall(Measure::Compute);
        let got = Engine::cpu().attend_sparse(&case.problem(), &selection, &case.inputs(), &options).wait().unwrap();
        assert_eq!(got.path, AttentionPath::Sparse);
        assert_eq!(got.recall.unwrap().min(), 1.0);
        let mass = MassSummary::new(got.captured_mass.unwrap().into_data());
        assert!(mass.min > 1.0 - 1e-5, "{mass}");
        case.check(&got.output, "everything is selected");
    }
}

#[test]
fn hip_beats_random_blocks_where_neighbours_are_alike() {
    let shape = AttentionShape { head_dim: 64, ..shape(1, [128, 8192], [1, 2]) };
    let problem = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
    let hip = Hip::default().with_top_k(256).with_sink_size(16).with_window_size(64);
    let selection = SelectionProblem::new(shape, DType::F32, hip);
    let patterns = [Pattern::Correlated { rho: 0.99, run: 16 }, Pattern::Needles { count: 16, width: 64 }];
    for seed in 1..=4 {
        let table = synthetic_table(&problem, &[("HiP", selection.clone())], &patterns, seed).unwrap();
        println!("seed {seed}\n{table}");
        for rows in table.rows.chunks(4) {
            let [hip, best, random, near] = rows else { panic!("{rows:?}") };
            let context = format!("seed {seed}, {}", hip.set);
            assert!(hip.mass.mean > 0.9 * best.mass.mean && hip.mass.mean > 3.0 * random.mass.mean, "{context}");
            assert!(hip.recall > 3.0 * random.recall && hip.output_error < 0.8 * random.output_error, "{context}");
            assert!(near.mass.mean < random.mass.mean && near.recall == 0.0, "{context}");
            assert_eq!(best.recall, 1.0, "{context}");
        }
    }
}

#[test]
fn below_the_crossover_attention_is_dense_to_the_bit() {
    let mut case = Case::<f32>::random(shape(2, [16, 300], [1, 2]), Mask::Causal, 13);
    let selection = SelectionProblem::new(case.shape, DType::F32, small_hip());
    let engine = Engine::cpu();
    let dense = cpu::attend(&case.problem(), &case.inputs()).unwrap();
    let run = |case: &Case<f32>, selection: &SelectionProblem, options: &SparseOptions| {
        engine.attend_sparse(&case.problem(), selection, &case.inputs(), options).wait().unwrap()
    };
    assert!(case.shape.seq_len_kv < selection.method().crossover(case.shape.seq_len_q));
    let options = SparseOptions::default().with_captured_mass(Measure::Compute).with_recall(Measure::Compute);
    let got = run(&case, &selection, &options);
    assert_eq!((got.path, &got.blocks, &got.recall), (AttentionPath::Dense, &None, &None));
    assert_eq!(got.output, dense);
    assert!(got.captured_mass.unwrap().data().iter().all(|&mass| mass == 1.0));

    // At the crossover the call is dense, with one key more it is not; the selection's own crossover counts, and the option takes
    // precedence.
    for (own, option, expected) in [
        (0, Some(300), AttentionPath::Dense),
        (0, Some(299), AttentionPath::Sparse),
        (0, Some(0), AttentionPath::Sparse),
        (300, None, AttentionPath::Dense),
        (299, None, AttentionPath::Sparse),
        (299, Some(300), AttentionPath::Dense),
    ] {
        let options = option.map_or(SparseOptions::default(), |keys| SparseOptions::default().with_dense_below(keys));
        let got = run(&case, &selection.clone().with_dense_below(own), &options);
        assert_eq!(got.path, expected, "{own} {option:?}");
        assert_eq!(got.blocks.is_some(), expected == AttentionPath::Sparse);
        assert_eq!((&got.captured_mass, &got.recall), (&None, &None));
    }
    // The longest actual sequence counts.
    case.seq_lens_kv = Some(vec![100, 120]);
    assert_eq!(run(&case, &selection, &SparseOptions::default().with_dense_below(120)).path, AttentionPath::Dense);

    let blocks = cpu::select(&selection, &case.inputs().for_selection()).unwrap();
    let problem = case.problem().with_blocks(selection.blocks());
    let got = pollster::block_on(engine.attend_sparse(
        &case.problem(),
        &selection,
        &case.inputs(),
        &SparseOptions::default().with_dense_below(0),
    ))
    .unwrap();
    assert_eq!(got.output, cpu::attend(&problem, &case.inputs().with_blocks(&blocks)).unwrap());
    assert_eq!(got.blocks, Some(blocks));
}

#[test]
fn a_selection_of_another_problem_is_an_error() {
    let case = Case::<f32>::random(shape(1, [4, 40], [2, 2]), Mask::Causal, 14);
    let attempt = |problem: &AttentionProblem, shape: AttentionShape, dtype, mask| {
        let selection = SelectionProblem::new(shape, dtype, small_hip()).with_mask(mask);
        let options = SparseOptions::default();
        Engine::cpu().attend_sparse(problem, &selection, &case.inputs(), &options).wait().unwrap_err().to_string()
    };
    let (problem, shape) = (case.problem(), case.shape);
    for (other, field) in [
        (AttentionShape { batch_size: 9, ..shape }, "batch_size"),
        (AttentionShape { seq_len_q: 9, ..shape }, "seq_len_q"),
        (AttentionShape { seq_len_kv: 9, ..shape }, "seq_len_kv"),
        (AttentionShape { num_q_heads: 9, ..shape }, "num_q_heads"),
        (AttentionShape { num_kv_heads: 9, ..shape }, "num_kv_heads"),
        (AttentionShape { head_dim: 9, ..shape }, "head_dim"),
    ] {
        let expected = format!("{field} = 9: of the selection must be that of the attention problem");
        assert_eq!(attempt(&problem, other, DType::F32, Mask::Causal), expected);
    }
    assert!(attempt(&problem, shape, DType::F16, Mask::Causal).starts_with("`dtype`: "));
    assert!(attempt(&problem, shape, DType::F32, Mask::Full).starts_with("`mask`: "));
    let foreign = SelectionProblem::new(shape, DType::F32, Hip::default()).blocks();
    let error = attempt(&problem.with_blocks(foreign), shape, DType::F32, Mask::Causal);
    assert!(error.starts_with("`selected_blocks`: "), "{error}");
}
