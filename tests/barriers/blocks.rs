//! Summaries and scores of blocks, and a top-k, against their definitions.

use wattn::{
    BlockScorePlan, Candidates, DeviceCaps, Dispatch, DispatchBudget, HostBlockLists, HostTensor, OperatorPlan,
    PoolPlan, Tier, TopKPlan,
};

use super::common::block_ops::{PoolCase, ScoreCase, TopKCase, pool_cases, score_cases, top_k_cases};
use super::launch::{Buffers, Case, Launch, from_bytes, garbage, to_bytes};

/// A launch whose uniform has these numbers by their names; other numbers are 0.
fn launch(dispatch: &Dispatch, subgroup_size: usize, numbers: &[(&str, u32)]) -> Launch {
    let fields = dispatch.kernel().bindings()[0].fields;
    let value = |field: &&str| numbers.iter().find(|(name, _)| name == field).map_or(0, |(_, number)| *number);
    assert!(numbers.iter().all(|(name, _)| fields.contains(name)), "{numbers:?}");
    let params: Vec<u32> = fields.iter().map(value).collect();
    let uniforms =
        |first, end| vec![("params", params.clone()), ("seq_lens_place", vec![0]), ("stretch", vec![first, end, 0])];
    Launch {
        name: dispatch.to_string(),
        rolled: dispatch.specialization.wgsl_rolled(),
        shipped: dispatch.specialization.wgsl(),
        taken: Vec::new(),
        subgroup_size,
        stretches: dispatch
            .stretches
            .iter()
            .map(|stretch| (stretch.workgroups, uniforms(stretch.first, stretch.end)))
            .collect(),
        bound: Vec::new(),
        views: Default::default(),
    }
}

fn case<P>(
    plan: &OperatorPlan<P>,
    launch: Launch,
    buffers: Vec<(&str, Vec<u8>)>,
    check: impl Fn(&Buffers) + Send + Sync + 'static,
) -> Case
where
    OperatorPlan<P>: core::fmt::Display,
{
    let buffers = buffers.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    Case { name: plan.to_string(), launches: vec![launch], buffers, check: Box::new(check) }
}

fn lens_bytes(lens: Option<&Vec<u32>>) -> Vec<u8> {
    lens.map_or(garbage(4), |lens| to_bytes(lens))
}

fn pool(of: PoolCase<f32>, caps: &DeviceCaps) -> Case {
    let plan = PoolPlan::with_tier(&of.problem, caps, Tier::Baseline).unwrap();
    let ([batch_size, seq_len_kv, num_heads, dim], to) = (of.problem.shape(), of.problem.summaries_shape());
    let numbers = [
        ("batch_size", batch_size),
        ("seq_len_kv", seq_len_kv),
        ("num_heads", num_heads),
        ("block_size", of.problem.block_size()),
        ("num_blocks", to[1]),
        ("k_batch", seq_len_kv * num_heads * dim / 4),
        ("k_seq", num_heads * dim / 4),
        ("k_head", dim / 4),
        ("summaries_batch", to[1] * to[2] * to[3] / 4),
        ("summaries_seq", to[2] * to[3] / 4),
        ("summaries_head", to[3] / 4),
    ];
    let len = u64::from(to.iter().product::<u32>());
    let buffers = vec![
        ("k", to_bytes(of.k.data())),
        ("seq_lens_kv", lens_bytes(of.seq_lens.as_ref())),
        ("summaries", garbage(4 * len)),
    ];
    let launch = launch(plan.dispatch(), 4, &numbers);
    case(&plan, launch, buffers, move |buffers| {
        of.check("interpreter", &HostTensor::new(to, from_bytes(&buffers["summaries"])).unwrap());
    })
}

fn score(of: ScoreCase<f32>, caps: &DeviceCaps, tier: Tier, subgroup_size: usize) -> Case {
    let plan = BlockScorePlan::with_tier(&of.problem, caps, tier).unwrap();
    let (shape, from, to) = (*of.problem.shape(), of.problem.summaries_shape(), of.problem.scores_shape());
    let row = shape.num_q_heads * shape.head_dim / 4;
    let numbers = [
        ("batch_size", shape.batch_size),
        ("seq_len_q", shape.seq_len_q),
        ("seq_len_kv", shape.seq_len_kv),
        ("group_size", shape.num_q_heads / shape.num_kv_heads),
        ("num_sets", to[1]),
        ("heads_per_set", shape.num_q_heads / to[1]),
        ("num_q_blocks", to[2]),
        ("block_size_q", of.problem.block_size_q()),
        ("num_blocks", to[3]),
        ("block_size", of.problem.block_size()),
        ("needed_key", of.problem.needed_key()),
        ("q_batch", shape.seq_len_q * row),
        ("q_seq", row),
        ("q_head", shape.head_dim / 4),
        ("summaries_batch", from[1] * from[2] * from[3] / 4),
        ("summaries_seq", from[2] * from[3] / 4),
        ("summaries_head", from[3] / 4),
        ("scores_batch", to[1] * to[2] * to[3]),
        ("scores_set", to[2] * to[3]),
        ("scores_q_block", to[3]),
    ];
    let len = u64::from(to.iter().product::<u32>());
    let buffers = vec![
        ("q", to_bytes(of.q.data())),
        ("summaries", to_bytes(of.summaries.data())),
        ("seq_lens_kv", lens_bytes(of.seq_lens_kv.as_ref())),
        ("scores", garbage(4 * len)),
    ];
    let launch = launch(plan.dispatch(), subgroup_size, &numbers);
    case(&plan, launch, buffers, move |buffers| {
        of.check("interpreter", &HostTensor::new(to, from_bytes(&buffers["scores"])).unwrap());
    })
}

fn top_k(of: TopKCase, caps: &DeviceCaps, candidates: Candidates) -> Case {
    let plan = TopKPlan::with_candidates(&of.problem, caps, candidates).unwrap();
    let (shape, to) = (of.problem.shape(), of.problem.lists_shape());
    let rows = to[..3].iter().product::<u32>();
    let [first, last] = of.problem.forced();
    let numbers = [
        ("num_rows", rows),
        ("num_sets", shape[1]),
        ("num_q_blocks", shape[2]),
        ("num_entries", shape[3]),
        ("k", to[3]),
        ("block_size", of.problem.block_size()),
        ("forced_first", first.min(shape[3])),
        ("forced_last", last.min(shape[3])),
        ("scores_batch", shape[1] * shape[2] * shape[3]),
        ("scores_set", shape[2] * shape[3]),
        ("scores_q_block", shape[3]),
    ];
    let marks: Vec<u32> = of.marks.iter().flatten().map(|&mark| mark as u32).collect();
    let buffers = vec![
        ("scores", to_bytes(of.scores.data())),
        ("marks", if marks.is_empty() { garbage(4) } else { to_bytes(&marks) }),
        ("block_indices", garbage(4 * u64::from(rows * to[3]))),
        ("block_counts", garbage(4 * u64::from(rows))),
    ];
    let launch = launch(plan.dispatch(), 4, &numbers);
    case(&plan, launch, buffers, move |buffers| {
        let words = |name: &str| from_bytes::<u32>(&buffers[name]);
        of.check("interpreter", &HostBlockLists::new(to, words("block_indices"), words("block_counts")).unwrap());
    })
}

pub(crate) fn cases() -> Vec<Case> {
    let mut caps = DeviceCaps::BASELINE;
    caps.software = true;
    let mut small = caps.clone();
    small.budget = DispatchBudget::new(1, 1);
    let mut subgroups = caps.clone();
    subgroups.subgroup_size = Some(4..=8);
    let mut whole = caps.clone();
    whole.subgroup_size = Some(4..=4);
    let mut cases = Vec::new();
    let few_keys = |case: &PoolCase<f32>| (2..20).contains(&case.problem.shape()[1]);
    cases.extend(pool_cases().into_iter().filter(few_keys).map(|case| pool(case, &caps)));
    let scored = || {
        score_cases::<f32>().into_iter().filter(|case| {
            let shape = case.problem.shape();
            shape.seq_len_q > 0 && shape.seq_len_kv > 0 && shape.seq_len_kv < 100 && shape.head_dim < 100
        })
    };
    cases.extend(scored().step_by(3).map(|case| score(case, &small, Tier::Baseline, 4)));
    cases.extend(scored().step_by(5).map(|case| score(case, &subgroups, Tier::Subgroup, 8)));
    cases.extend(scored().step_by(5).map(|case| score(case, &whole, Tier::Subgroup, 4)));
    for candidates in [Candidates::Scratch, Candidates::Workgroup] {
        let few = |case: &TopKCase| case.problem.shape()[3] < 100;
        cases.extend(top_k_cases().into_iter().filter(few).step_by(3).map(|case| top_k(case, &caps, candidates)));
    }
    cases
}
