//! Grids of more workgroups than an axis holds, 65535 on most devices: they are folded.

mod common;

use common::gpu::{buffer, contexts, problem_of, read_all, run as attend, submit, tiny_tiling};
use common::lm::{Golden, TOLERANCE, difference, golden};
use common::select::{HIP, SelectCase, assert_lists_equal, infinite, shape as select_shape};
use common::selected::SelectedCase;
use common::{Case, shape};
use wattn::lm::{Session, SessionOptions};
use wattn::{
    AttentionPlan, AttentionShape, DType, Engine, Layout, Mask, Merge, MergeArgs, MergePlan, MergeProblem,
    SelectionMethod, SelectionPlan, SelectionProblem, TensorView, TensorViewMut, cpu,
};

/// More workgroups than an axis holds, and no multiple of that.
const MANY: u32 = 65_535 + 32;

fn small(batch_size: u32, lens: [u32; 2]) -> AttentionShape {
    AttentionShape { head_dim: 4, head_dim_v: 4, ..shape(batch_size, lens, [1, 1]) }
}

fn assert_close(got: &[f32], wanted: &[f32], what: &str) {
    let error = difference(got, wanted);
    assert!(error <= TOLERANCE, "{what}: {error:.1e}");
}

#[test]
fn attention_has_more_places_than_an_axis() {
    for ctx in contexts() {
        let (caps, tier) = (ctx.caps(), ctx.caps().best_tier());
        assert!(caps.max_workgroups_per_dimension < MANY, "{}: take more", ctx.describe());
        // Tiles of rows, single rows, and splits of their keys, which are merged.
        for (batch_size, lens, num_splits) in [(MANY, [3, 3], 1), (MANY, [1, 5], 1), (MANY / 3, [1, 40], 4)] {
            let case = Case::<f32>::random(small(batch_size, lens), Mask::Causal, 5);
            let what = format!("{} {batch_size} {lens:?}", ctx.describe());
            let tiling = tiny_tiling(caps, tier, num_splits);
            let problem = problem_of(&case, DType::F32);
            let plan = AttentionPlan::with_tiling(&problem, caps, tier, tiling).unwrap();
            assert!(plan.dispatches()[0].workgroups[1] > 1, "{plan}");
            let (got, wanted) = (attend(ctx, &plan, &case), cpu::attend(&problem, &case.inputs()).unwrap());
            assert_close(got.out.data(), wanted.out.data(), &what);
            assert_close(got.lse.data(), wanted.lse.data(), &what);
        }
    }
}

#[test]
fn listed_blocks_have_more_places_than_an_axis() {
    for ctx in contexts() {
        let (caps, tier) = (ctx.caps(), ctx.caps().best_tier());
        let problem = SelectionProblem::new(small(MANY, [1, 40]), DType::F32, SelectionMethod::from(HIP));
        let case = Case::<f32>::random(small(MANY, [1, 40]), Mask::Causal, 6);
        let case = SelectedCase::random("many lists", case, problem.blocks(), 7);
        let problem = case.problem();
        let plan = AttentionPlan::with_tiling(&problem, caps, tier, tiny_tiling(caps, tier, 1)).unwrap();
        assert!(plan.dispatches()[0].workgroups[1] > 1, "{plan}");
        let got = ctx.with_tier(tier).attend(&problem, &case.case.inputs().with_blocks(&case.blocks)).wait().unwrap();
        let wanted = cpu::attend(&problem, &case.case.inputs().with_blocks(&case.blocks)).unwrap();
        assert_close(got.out.data(), wanted.out.data(), &ctx.describe());
    }
}

#[test]
fn selections_have_more_places_than_an_axis() {
    for ctx in contexts() {
        for method in [HIP.into(), infinite(&[[8, 16, 1, 1], [2, 8, 1, 1]]).into()] {
            let shape = AttentionShape { head_dim: 4, ..select_shape(MANY, [1, 64], [1, 1], 4) };
            let problem = SelectionProblem::new(shape, DType::F32, SelectionMethod::clone(&method));
            let case = SelectCase::<f32>::integers("many lists", problem, 8);
            let plan = SelectionPlan::new(&case.problem, ctx.caps()).unwrap();
            println!("{plan}");
            let got = ctx.with_tier(ctx.caps().best_tier()).select(&case.problem, &case.inputs()).wait().unwrap();
            let wanted = cpu::select(&case.problem, &case.inputs()).unwrap();
            assert_lists_equal(&got, &wanted, &format!("{} {method:?}", ctx.describe()));
        }
    }
}

#[test]
fn merges_have_more_places_than_an_axis() {
    for ctx in contexts() {
        let problem = MergeProblem { num_parts: 1, num_rows: 65_536 * 64 + 5, head_dim_v: 4 };
        let plan = MergePlan::new(&problem, ctx.caps()).unwrap();
        assert!(plan.dispatch().workgroups[1] > 1, "{plan}");
        // A single part is the result.
        let (width, rows) = (problem.head_dim_v, problem.num_rows);
        let part: Vec<f32> = (0..rows * width).map(|i| (i % 1009) as f32).collect();
        let part_lse: Vec<f32> = (0..rows).map(|i| (i % 251) as f32).collect();
        let [parts, parts_lse] = [&part, &part_lse].map(|values| buffer(ctx, values));
        let [out, lse] = [&part, &part_lse].map(|values| buffer(ctx, &vec![7.0f32; values.len()]));
        let layout = |width| Layout::seq_major(1, rows, 1, width);
        let args = MergeArgs::new(
            TensorView::new(&parts, DType::F32, layout(width)),
            TensorView::new(&parts_lse, DType::F32, layout(1)),
            TensorViewMut::new(&out, DType::F32, layout(width)),
            TensorViewMut::new(&lse, DType::F32, layout(1)),
        );
        let bound = Merge::prepare(ctx, &plan).unwrap().bind(args).unwrap();
        submit(ctx, |encoder| bound.encode(encoder));
        assert!(read_all::<f32>(ctx, &out) == part, "{}", ctx.describe());
        assert_close(&read_all::<f32>(ctx, &lse), &part_lse, &ctx.describe());
    }
}

/// One chunk with more tokens than an axis holds.
#[test]
fn a_prompt_is_longer_than_an_axis() {
    let Golden { model, .. } = golden("mistral_f16");
    let tokens: Vec<u32> = (0..MANY).map(|at| 2 + at % 93).collect();
    let options = SessionOptions::new(model.config(), MANY).with_text_len(MANY).with_chunk(1 << 16);
    let read = |engine: &Engine| {
        let mut session = Session::new(&model, engine, &options).unwrap();
        session.read(&tokens).unwrap();
        session.logits().unwrap()
    };
    let wanted = read(&Engine::cpu());
    for ctx in contexts() {
        // Angles of large positions differ in their last bits.
        assert_close(&read(&Engine::from(ctx.clone())), &wanted, &ctx.describe());
    }
}
