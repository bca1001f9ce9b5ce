//! All options of attention, pairwise, on every adapter: each two choices occur together in some call, and the f64 oracle and the kernels'
//! twins check every call. Refusals have the right name. `combinations.rs` does the same without a GPU.

mod common;

use common::combinations::{Combination, Stage, Visitor, check_refusal, combinations, unrounded};
use common::gpu::{Buffers, buffer, check_twin, contexts, problem_of, submit, tiny_tiling};
use common::selected::{SELECTION, SelectedCase};
use common::{Case, Exp, shape};
use half::{bf16, f16};
use wattn::{
    Attention, AttentionOutput, AttentionPlan, BlockListSpec, BlockListsView, Context, DType, Element, Granularity,
    HostBlockLists, HostTensor, Mask, Result, U32View,
};

/// One call with the arguments of its problem, out widened to f32; with the lse where the case asks for it.
fn run<T: Element>(
    ctx: &Context,
    plan: &AttentionPlan,
    asked: &Combination,
    case: &SelectedCase<T>,
) -> Result<AttentionOutput> {
    let buffers = Buffers::new(ctx, &case.case, plan.problem());
    let lists = [case.blocks.block_indices(), case.blocks.block_counts()].map(|list| buffer(ctx, list));
    let [block_indices, block_counts] = [0, 1].map(|at: usize| U32View::new(&lists[at], 0, lists[at].size() / 4));
    let blocks = asked.is_sparse().then_some(BlockListsView::new(block_indices, block_counts));
    let args = buffers.args().with_blocks(blocks);
    let args = if asked.problem.lse() { args } else { args.with_lse(None) };
    let bound = Attention::prepare(ctx, plan)?.bind(args)?;
    submit(ctx, |encoder| bound.encode(encoder));
    let (out, lse) = match plan.problem().out_dtype() {
        DType::F32 => buffers.read::<f32>(ctx),
        DType::F16 => widened(buffers.read::<f16>(ctx)),
        DType::BF16 => widened(buffers.read::<bf16>(ctx)),
        dtype => panic!("{dtype} is new"),
    };
    Ok(AttentionOutput::new(out, lse))
}

fn widened<T: Element>((out, lse): (HostTensor<T>, HostTensor)) -> (HostTensor, HostTensor) {
    let data = out.data().iter().map(|x| x.to_f32()).collect();
    (HostTensor::new(out.shape(), data).unwrap(), lse)
}

struct OnGpu<'a>(&'a Context);

impl Visitor for OnGpu<'_> {
    fn visit<T: Element>(&mut self, asked: &Combination) {
        check(self.0, asked, &asked.case::<T>());
    }
}

/// One call against the oracle and the twins.
fn check<T: Element>(ctx: &Context, asked: &Combination, case: &SelectedCase<T>) {
    let what = format!("{} {asked:?}", ctx.describe());
    let plan = asked.plan(ctx.caps()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut got = run(ctx, &plan, asked, case).unwrap_or_else(|error| panic!("{what}: {error}"));
    let twin = asked.run_twins(&plan, case);
    if !asked.problem.lse() {
        assert!(got.lse.data().iter().all(|&x| x == 7.0), "{what}: nobody asked for the lse");
        got.lse = twin.lse.clone();
    }
    let out_dtype = asked.problem.out_dtype();
    asked.check(case, &got, (Exp::of(&plan), out_dtype), &what);
    let out = unrounded(&got.out, &twin.out, out_dtype);
    check_twin(plan.tier(), (out.data(), got.lse.data()), (twin.out.data(), twin.lse.data()), &what);
}

#[test]
fn every_pair_of_choices() {
    for ctx in contexts() {
        let taken = combinations(ctx.caps()).0;
        println!("{}: {} combinations", ctx.describe(), taken.len());
        // Most of the time is compiling, with one core for each thread.
        std::thread::scope(|scope| {
            for half in 0..2 {
                let halves = taken.iter().skip(half).step_by(2);
                scope.spawn(move || halves.for_each(|asked| asked.visit(&mut OnGpu(ctx))));
            }
        });
    }
}

struct RefusedOnGpu<'a>(&'a Context, &'a str);

impl Visitor for RefusedOnGpu<'_> {
    fn visit<T: Element>(&mut self, asked: &Combination) {
        let what = format!("{} {asked:?}", self.0.describe());
        let refused = asked.plan(self.0.caps()).and_then(|plan| run(self.0, &plan, asked, &asked.case::<T>()));
        let Err(error) = refused else { panic!("{what}: taken") };
        check_refusal(&error, self.1, &what);
    }
}

/// The refusal of the problem or of the plan, before anything is compiled. (Tensors are refused when they are bound.)
#[test]
fn refusals_name_what_is_wrong() {
    for ctx in contexts() {
        let compiled = |stage| stage == Stage::Bind;
        let (bind, plan): (Vec<_>, Vec<_>) =
            combinations(ctx.caps()).1.into_iter().partition(|refused| compiled(refused.stage));
        assert!(!bind.is_empty() && plan.len() > 20);
        // Each of these cases compiles a kernel first, so that one case is enough.
        for refused in plan.into_iter().chain(bind.into_iter().take(1)) {
            refused.combination.visit(&mut RefusedOnGpu(ctx, &refused.name));
        }
    }
}

/// Two queries, whose borders are one key apart: one of them sees all of a tile that the other sees in part, with each length and each
/// window that moves a border across a tile.
#[test]
fn tiles_are_whole_where_all_rows_see_them() {
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        let tiling = tiny_tiling(ctx.caps(), tier, 1);
        let most = 2 * tiling.tile_kv() + 3;
        let causal = (1..=most).map(|len| (len, Mask::Causal));
        let windows = (0..=most).map(|left| (most, Mask::Window { left: Some(left), right: Some(1) }));
        for (len, mask) in causal.chain(windows) {
            let case = Case::<f16>::random(shape(1, [2, len], [1, 1]), mask, 1);
            let asked = Combination::of(problem_of(&case, DType::F32), tier, tiling);
            check(ctx, &asked, &SelectedCase::random("", case, SELECTION, 1));
        }
    }
}

/// The same for listed blocks, sinks and windows.
#[test]
fn listed_tiles_are_whole_where_all_rows_see_them() {
    for ctx in contexts() {
        let tier = ctx.caps().best_tier();
        let tiling = tiny_tiling(ctx.caps(), tier, 1);
        let tile = tiling.tile_kv();
        let case = Case::<f16>::random(shape(1, [2, 3 * tile + 4], [1, 1]), Mask::Causal, 1);
        for window_size in 0..=3 * tile + 4 {
            for (num_blocks, sink_size) in [(2 * tile / 8, 0), (0, 2 * tile), (0, 0)] {
                let max_blocks = 2 * tile / 8;
                let selection = BlockListSpec::new(2, 8, max_blocks)
                    .with_granularity(Granularity::KvHead)
                    .with_sink_size(sink_size)
                    .with_window_size(window_size);
                let mut blocks = HostBlockLists::empty(selection.indices_shape(&case.shape));
                let list: Vec<u32> = (0..num_blocks).map(|block| 8 * block).collect();
                blocks.set_list(0, 0, 0, &list);
                let problem = problem_of(&case, DType::F32).with_blocks(selection);
                let name = format!("window of {window_size}, {sink_size} sinks, {num_blocks} blocks");
                let case = SelectedCase { name, case: case.clone(), selection, blocks };
                check(ctx, &Combination::of(problem, tier, tiling), &case);
            }
        }
    }
}
