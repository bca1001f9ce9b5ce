//! Summaries and scores of blocks of keys, and a top-k, on every adapter and tier, against their definitions.

mod common;

use common::block_ops::{PoolCase, ScoreCase, TopKCase, pool_cases, score_cases, top_k_cases};
use common::gpu::{buffer, contexts, read_all, submit, tiers};
use half::{bf16, f16};
use wattn::{
    BindArgs, BlockListsView, BlockScore, BlockScoreArgs, BlockScorePlan, Bound, Candidates, Context, DType,
    DispatchBudget, Element, Error, HostBlockLists, HostTensor, Layout, OneDispatch, Operator, OperatorPlan, Pool,
    PoolArgs, PoolPlan, TensorView, TensorViewMut, TopK, TopKArgs, TopKPlan, U32View,
};

/// Elements before each tensor, so that offsets count.
const OFFSET: usize = 8;

/// A tensor in a buffer of its own, behind some other elements.
fn upload<T: Element>(ctx: &Context, data: &[T]) -> wgpu::Buffer {
    let padded: Vec<T> = core::iter::repeat_n(T::from_f32(f32::NAN), OFFSET).chain(data.iter().copied()).collect();
    buffer(ctx, &padded)
}

fn words(ctx: &Context, data: &[u32]) -> wgpu::Buffer {
    let padded: Vec<u32> = core::iter::repeat_n(7, OFFSET).chain(data.iter().copied()).collect();
    buffer(ctx, &padded)
}

fn layout([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::seq_major(batch, seq, heads, dim).with_offset(OFFSET as u64)
}

/// Room for a result, with a guard on either side.
fn room(ctx: &Context, len: usize) -> wgpu::Buffer {
    buffer(ctx, &vec![777.0f32; len + 2 * OFFSET])
}

fn take(ctx: &Context, from: &wgpu::Buffer, len: usize) -> Vec<f32> {
    let all = read_all(ctx, from);
    let (before, rest) = all.split_at(OFFSET);
    let (result, after) = rest.split_at(len);
    assert!(before.iter().chain(after).all(|&guard| guard == 777.0), "a guard was written");
    result.to_vec()
}

fn run<P: BindArgs>(ctx: &Context, plan: &OperatorPlan<P>, args: P::Args<'_>) -> wattn::Result<()> {
    let bound: Bound = Operator::prepare(ctx, plan)?.bind(args)?;
    assert!(bound.num_stretches() == plan.dispatch().stretches.len() || plan.dispatch().workgroups.contains(&0));
    submit(ctx, |encoder| bound.encode(encoder));
    Ok(())
}

/// The plans of every tier, and a plan whose grid has as many cuts as possible.
fn plans<P: OneDispatch>(ctx: &Context, problem: &P, dtype: DType) -> Vec<OperatorPlan<P>> {
    let mut plans: Vec<_> = tiers(ctx.caps(), &[dtype])
        .into_iter()
        .filter(|tier| !tier.matrix())
        .map(|tier| OperatorPlan::with_tier(problem, ctx.caps(), tier).unwrap())
        .collect();
    let mut caps = ctx.caps().clone();
    caps.budget = DispatchBudget::new(1, 1);
    plans.push(OperatorPlan::new(problem, &caps).unwrap());
    // A member for GPUs, on a software device.
    caps = ctx.caps().clone();
    caps.software = !caps.software;
    plans.push(OperatorPlan::new(problem, &caps).unwrap());
    plans
}

/// Types other than f32 differ only in their loads, so they run every seventh case.
fn few<C>(cases: Vec<C>, dtype: DType) -> impl Iterator<Item = C> {
    cases.into_iter().step_by(if dtype == DType::F32 { 1 } else { 7 })
}

impl<T: Element> PoolCase<T> {
    fn run(&self, ctx: &Context, plan: &PoolPlan) -> HostTensor {
        let shape = self.problem.summaries_shape();
        let len = shape.iter().product::<u32>() as usize;
        let (k, lens, to) =
            (upload(ctx, self.k.data()), self.seq_lens.as_ref().map(|lens| words(ctx, lens)), room(ctx, len));
        let k = TensorView::new(&k, T::DTYPE, layout(self.problem.shape()));
        let mut args = PoolArgs::new(k, TensorViewMut::new(&to, DType::F32, layout(shape)));
        if let Some(lens) = &lens {
            args = args.with_seq_lens(U32View::new(lens, OFFSET as u64, 2));
        }
        run(ctx, plan, args).unwrap();
        HostTensor::new(shape, take(ctx, &to, len)).unwrap()
    }
}

fn pools<T: Element>() {
    for ctx in contexts() {
        for case in few(pool_cases::<T>(), T::DTYPE) {
            for plan in plans(ctx, &case.problem, T::DTYPE) {
                case.check(&format!("{}, {plan}", ctx.describe()), &case.run(ctx, &plan));
            }
        }
    }
}

#[test]
fn blocks_are_pooled_as_defined() {
    pools::<f32>();
    pools::<f16>();
    pools::<bf16>();
}

impl<T: Element> ScoreCase<T> {
    fn run(&self, ctx: &Context, plan: &BlockScorePlan) -> HostTensor {
        let problem = &self.problem;
        let shape = problem.scores_shape();
        let len = shape.iter().product::<u32>() as usize;
        let (q, summaries, to) = (upload(ctx, self.q.data()), upload(ctx, self.summaries.data()), room(ctx, len));
        let lens = self.seq_lens_kv.as_ref().map(|lens| words(ctx, lens));
        let q = TensorView::new(&q, T::DTYPE, layout(problem.shape().q()));
        let summaries = TensorView::new(&summaries, DType::F32, layout(problem.summaries_shape()));
        let mut args = BlockScoreArgs::new(q, summaries, TensorViewMut::new(&to, DType::F32, layout(shape)));
        if let Some(lens) = &lens {
            args = args.with_seq_lens_kv(U32View::new(lens, OFFSET as u64, 2));
        }
        run(ctx, plan, args).unwrap();
        HostTensor::new(shape, take(ctx, &to, len)).unwrap()
    }
}

fn scores<T: Element>() {
    for ctx in contexts() {
        for case in few(score_cases::<T>(), T::DTYPE) {
            for plan in plans(ctx, &case.problem, T::DTYPE) {
                case.check(&format!("{}, {plan}", ctx.describe()), &case.run(ctx, &plan));
            }
        }
    }
}

#[test]
fn blocks_are_scored_as_defined() {
    scores::<f32>();
    scores::<f16>();
    scores::<bf16>();
}

impl TopKCase {
    fn run(&self, ctx: &Context, plan: &TopKPlan) -> HostBlockLists {
        let shape = self.problem.lists_shape();
        let rows = shape[..3].iter().product::<u32>() as usize;
        let entries = rows * shape[3] as usize;
        let scores = upload(ctx, self.scores.data());
        let marks: Option<Vec<u32>> = self.marks.as_ref().map(|all| all.iter().map(|&mark| mark as u32).collect());
        let marks = marks.map(|marks| (marks.len() as u64, words(ctx, &marks)));
        let (indices, counts) = (room(ctx, entries), room(ctx, rows));
        let lists = BlockListsView::new(
            U32View::new(&indices, OFFSET as u64, entries as u64),
            U32View::new(&counts, OFFSET as u64, rows as u64),
        );
        let mut args = TopKArgs::new(TensorView::new(&scores, DType::F32, layout(self.problem.shape())), lists);
        if let Some((len, marks)) = &marks {
            args = args.with_marks(U32View::new(marks, OFFSET as u64, *len));
        }
        run(ctx, plan, args).unwrap();
        let bits = |from, len| take(ctx, from, len).into_iter().map(f32::to_bits).collect();
        HostBlockLists::new(shape, bits(&indices, entries), bits(&counts, rows)).unwrap()
    }
}

#[test]
fn the_best_are_those_of_a_sort() {
    for ctx in contexts() {
        for case in top_k_cases() {
            for candidates in [Candidates::Scratch, Candidates::Workgroup] {
                let plan = TopKPlan::with_candidates(&case.problem, ctx.caps(), candidates).unwrap();
                case.check(&format!("{}, {plan}", ctx.describe()), &case.run(ctx, &plan));
            }
        }
        for case in top_k_cases().into_iter().step_by(7) {
            for plan in plans(ctx, &case.problem, DType::F32) {
                case.check(&format!("{}, {plan}", ctx.describe()), &case.run(ctx, &plan));
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let ctx = &contexts()[0];
    let case = pool_cases::<f32>().into_iter().find(|case| case.seq_lens.is_some()).unwrap();
    let plan = PoolPlan::new(&case.problem, ctx.caps()).unwrap();
    let shape = case.problem.summaries_shape();
    let to = room(ctx, shape.iter().product::<u32>() as usize);
    let k = upload(ctx, case.k.data());
    let lens = words(ctx, &[0, 0]);
    let args = |seq_lens: Option<_>, dtype| {
        let k = TensorView::new(&k, dtype, layout(case.problem.shape()));
        let args = PoolArgs::new(k, TensorViewMut::new(&to, DType::F32, layout(shape)));
        seq_lens.map_or(PoolArgs::new(k, TensorViewMut::new(&to, DType::F32, layout(shape))), |lens| {
            args.with_seq_lens(lens)
        })
    };
    let pool = Pool::prepare(ctx, &plan).unwrap();
    let given = Some(U32View::new(&lens, OFFSET as u64, 2));
    assert!(pool.bind(args(given, DType::F32)).is_ok());
    assert!(matches!(pool.bind(args(None, DType::F32)), Err(Error::Argument { argument: "seq_lens", .. })));
    assert!(matches!(pool.bind(args(given, DType::F16)), Err(Error::DType { tensor: "k", .. })));
    let three = Some(U32View::new(&lens, 0, 3));
    assert!(matches!(pool.bind(args(three, DType::F32)), Err(Error::Length { tensor: "seq_lens", .. })));

    let case = &score_cases::<f32>()[0];
    let plan = BlockScorePlan::new(&case.problem, ctx.caps()).unwrap();
    let all = room(ctx, 4096);
    let same = BlockScoreArgs::new(
        TensorView::new(&all, DType::F32, layout(case.problem.shape().q())),
        TensorView::new(&to, DType::F32, layout(case.problem.summaries_shape())),
        TensorViewMut::new(&all, DType::F32, layout(case.problem.scores_shape())),
    );
    let result = BlockScore::prepare(ctx, &plan).unwrap().bind(same);
    assert!(
        matches!(result, Err(Error::Overlap { written: "scores", other: "q" } | Error::OutOfBounds { .. })),
        "{result:?}"
    );

    let case = &top_k_cases()[8];
    let plan = TopKPlan::new(&case.problem.with_marks(), ctx.caps()).unwrap();
    let lists = BlockListsView::new(U32View::new(&to, 0, 6), U32View::new(&lens, 0, 6));
    let args = TopKArgs::new(TensorView::new(&all, DType::F32, layout(case.problem.shape())), lists);
    let result = TopK::prepare(ctx, &plan).unwrap().bind(args);
    assert!(matches!(result, Err(Error::Argument { .. } | Error::Length { .. })), "{result:?}");
}
