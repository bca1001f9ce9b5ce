//! Summaries and scores of blocks of keys, and a top-k, on the CPU, against their definitions.

mod common;

use common::block_ops::{pool_cases, score_cases, top_k_cases};
use half::{bf16, f16};
use wattn::{
    AttentionShape, BlockScoreProblem, BlockScoring, DType, Element, Error, HostTensor, Mark, Mask, PoolProblem,
    Pooling, TopKProblem, cpu,
};

fn pools<T: Element>() {
    for case in pool_cases::<T>() {
        case.check("CPU", &cpu::pool(&case.problem, &case.k, case.seq_lens.as_deref()).unwrap());
    }
}

#[test]
fn blocks_are_pooled_as_defined() {
    pools::<f32>();
    pools::<f16>();
    pools::<bf16>();
}

fn scores<T: Element>() {
    for case in score_cases::<T>() {
        let lens = case.seq_lens_kv.as_deref();
        case.check("CPU", &cpu::block_scores(&case.problem, &case.q, &case.summaries, lens).unwrap());
    }
}

#[test]
fn blocks_are_scored_as_defined() {
    scores::<f32>();
    scores::<f16>();
    scores::<bf16>();
}

#[test]
fn the_best_are_those_of_a_sort() {
    for case in top_k_cases() {
        case.check("CPU", &cpu::top_k(&case.problem, &case.scores, case.marks.as_deref()).unwrap());
    }
}

#[test]
fn a_bound_is_no_less_than_the_score_of_any_key() {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 1,
        seq_len_kv: 100,
        num_q_heads: 2,
        num_kv_heads: 1,
        head_dim: 16,
        head_dim_v: 4,
    };
    let (q, k) = (common::random::<f32>(shape.q(), 1), common::random::<f32>(shape.k(), 2));
    let summaries = cpu::pool(&PoolProblem::new(shape.k(), DType::F32, 16, Pooling::MinMax), &k, None).unwrap();
    let problem = BlockScoreProblem::new(shape, DType::F32, 16, BlockScoring::Bound);
    let bounds = cpu::block_scores(&problem, &q, &summaries, None).unwrap();
    for head in 0..2 {
        for key in 0..100 {
            let score: f32 = q.row(0, 0, head).iter().zip(k.row(0, key, 0)).map(|(q, k)| q * k).sum();
            assert!(score <= bounds.row(0, head, 0)[key / 16] + 1e-5);
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let invalid = |result: wattn::Result<()>, wanted: &str| match result.unwrap_err() {
        Error::Invalid { field, .. } => assert_eq!(field, wanted),
        Error::TooLarge { what, .. } => assert_eq!(what, wanted),
        Error::Argument { argument, .. } => assert_eq!(argument, wanted),
        error => panic!("{error}"),
    };
    let pool = |shape, block_size| PoolProblem::new(shape, DType::F32, block_size, Pooling::Mean).validate();
    invalid(pool([1, 8, 1, 8], 0), "block_size");
    invalid(pool([1, 8, 1, 6], 4), "head_dim");
    invalid(pool([1, 1 << 30, 1, 8], 4), "seq_len");
    invalid(pool([1 << 10, 1 << 20, 8, 8], 1), "summaries");
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 4,
        seq_len_kv: 8,
        num_q_heads: 2,
        num_kv_heads: 1,
        head_dim: 8,
        head_dim_v: 4,
    };
    let score = BlockScoreProblem::new(shape, DType::F32, 4, BlockScoring::Dot);
    invalid(BlockScoreProblem::new(shape, DType::F32, 0, BlockScoring::Dot).validate(), "block_size");
    invalid(score.with_query_blocks(0, wattn::Reduction::Max).validate(), "block_size_q");
    invalid(score.with_mask(Mask::Window { left: Some(1), right: None }).validate(), "mask");
    let top_k = |k| TopKProblem::new([1, 1, 1, 8], k);
    invalid(top_k(0).validate(), "k");
    invalid(top_k(2).with_forced_first(2).with_forced_last(1).validate(), "k");
    invalid(top_k(2).with_block_size(0).validate(), "block_size");
    invalid(top_k(2).with_block_size(1 << 28).validate(), "n * block_size");

    let k = HostTensor::<f32>::zeros([1, 8, 1, 8]);
    let problem = PoolProblem::new(k.shape(), DType::F16, 4, Pooling::Mean);
    assert!(matches!(cpu::pool(&problem, &k, None), Err(Error::DType { tensor: "k", .. })));
    let problem = PoolProblem::new([1, 9, 1, 8], DType::F32, 4, Pooling::Mean);
    assert!(matches!(cpu::pool(&problem, &k, None), Err(Error::Shape { tensor: "k", .. })));
    assert!(matches!(
        cpu::pool(&problem, &HostTensor::<f32>::zeros([1, 9, 1, 8]), Some(&[10])),
        Err(Error::Invalid { .. })
    ));
    let q = HostTensor::<f32>::zeros(shape.q());
    let wrong = HostTensor::zeros([1, 2, 1, 16]);
    assert!(matches!(cpu::block_scores(&score, &q, &wrong, None), Err(Error::Shape { tensor: "summaries", .. })));
    let scores = HostTensor::zeros([1, 1, 1, 8]);
    let marks = Some([Mark::Free; 8].as_slice());
    assert!(matches!(cpu::top_k(&top_k(2), &scores, marks), Err(Error::Argument { argument: "marks", .. })));
    assert!(matches!(
        cpu::top_k(&top_k(2).with_marks(), &scores, None),
        Err(Error::Argument { argument: "marks", .. })
    ));
}
