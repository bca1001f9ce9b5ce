//! The parts of a case on a device, with everything bound beforehand.

use super::clock::{Clock, Elapsed, Stamps};
use super::device::{Outputs, Uploaded};
use super::inputs::Tensors;
use super::run::{PartPlan, Run};
use super::samples::quantile;
use super::{Case, Part};
use crate::ops::Lists;
use crate::{
    Attention, AttentionOutput, AttentionPlan, AttentionProblem, BoundAttention, BoundSelection, Context, Error,
    HostBlocks, Result, SelectedBlocks, Selection, SelectionArgs, SelectionPlan, SelectionProblem, TensorView, Tier,
};

/// Times that encoding is measured, of which the middle one is taken.
const ENCODINGS: usize = 15;

#[derive(Debug)]
pub(super) struct GpuRun {
    clock: Clock,
    cycle: u32,
    dense: Attending,
    sparse: Option<Sparse>,
}

#[derive(Debug)]
struct Sparse {
    plan: SelectionPlan,
    selection: BoundSelection,
    attending: Attending,
    lists: Lists,
}

/// Attention bound to its output.
#[derive(Debug)]
struct Attending {
    plan: AttentionPlan,
    bound: BoundAttention,
    outputs: Outputs,
}

impl GpuRun {
    pub(super) fn new(
        ctx: &Context,
        tier: Option<Tier>,
        stamps: Stamps,
        case: &Case,
        tensors: &Tensors,
    ) -> Result<Self> {
        let shape = case.problem().shape();
        // Plans first: a problem that does not fit the device must not reach its memory.
        let plan = attention_plan(ctx, tier, case.problem())?;
        let uploaded = Uploaded::new(ctx, *shape, case.problem().dtype(), tensors)?;
        let views = uploaded.views();
        let sparse = case.selection().zip(case.sparse_problem()).map(|(selection, problem)| {
            let tier_of_selection = tier.unwrap_or_else(|| SelectionPlan::best_tier(selection, ctx.caps()));
            let selection = SelectionPlan::with_tier(selection, ctx.caps(), tier_of_selection)?;
            Sparse::new(ctx, selection, attention_plan(ctx, tier, &problem)?, views)
        });
        Ok(Self {
            clock: Clock::new(ctx, stamps)?,
            cycle: case.cycle(),
            dense: Attending::new(ctx, plan, views, None)?,
            sparse: sparse.transpose()?,
        })
    }

    fn sparse(&self) -> Result<&Sparse> {
        self.sparse.as_ref().ok_or(Error::Argument { argument: "part", rule: "the case has no selection" })
    }

    /// One call of a part.
    fn encode(&self, part: Part, pass: &mut wgpu::ComputePass<'_>) {
        let Some(sparse) = &self.sparse else { return self.dense.bound.encode_in(pass) };
        match part {
            Part::Dense => self.dense.bound.encode_in(pass),
            Part::Select => sparse.selection.encode_step_in(pass, 0),
            Part::Attend => sparse.attending.bound.encode_in(pass),
            Part::Sparse => sparse.encode_step(pass, 0),
            Part::Step => (0..self.cycle).for_each(|step| sparse.encode_step(pass, step.into())),
        }
    }
}

impl Run for GpuRun {
    fn run(&mut self, part: Part, calls: u32) -> Result<Elapsed> {
        if part != Part::Dense {
            self.sparse()?;
        }
        self.clock.time(|pass| (0..calls).for_each(|_| self.encode(part, pass)))
    }

    fn output(&mut self, part: Part) -> Result<AttentionOutput> {
        let attending = if part == Part::Dense { &self.dense } else { &self.sparse()?.attending };
        attending.outputs.read(self.clock.context())
    }

    fn blocks(&mut self) -> Result<HostBlocks> {
        self.sparse()?.lists.read_blocking(self.clock.context())
    }

    fn plan(&self, part: Part) -> Result<PartPlan> {
        let attend = |plan: &AttentionPlan| PartPlan {
            tier: Some(plan.tier().to_string()),
            tiling: Some(format!("{}{}", plan.tiling(), if plan.is_tuned() { ", measured" } else { "" })),
            dispatches: plan.dispatches().len() as f64,
            workspace_bytes: plan.workspace_bytes(),
        };
        let select = |sparse: &Sparse| PartPlan {
            tier: Some(sparse.plan.tier().to_string()),
            tiling: None,
            dispatches: sparse.plan.num_dispatches(0) as f64,
            workspace_bytes: sparse.plan.samples_bytes() + sparse.plan.scratch_bytes() + sparse.plan.cache_bytes(),
        };
        Ok(match part {
            Part::Dense => attend(&self.dense.plan),
            Part::Select => select(self.sparse()?),
            Part::Attend => attend(&self.sparse()?.attending.plan),
            Part::Sparse | Part::Step => {
                let sparse = self.sparse()?;
                let mut both = attend(&sparse.attending.plan);
                let steps = if part == Part::Step { self.cycle } else { 1 };
                let selecting: usize = (0..steps).map(|step| sparse.plan.num_dispatches(step.into())).sum();
                both.dispatches += selecting as f64 / f64::from(steps);
                both.workspace_bytes += select(sparse).workspace_bytes;
                both
            }
        })
    }

    fn encode_seconds(&mut self, part: Part) -> Result<Option<f64>> {
        let mut seconds = Vec::with_capacity(ENCODINGS);
        for _ in 0..ENCODINGS {
            seconds.push(self.clock.time_encoding(|pass| self.encode(part, pass))?);
        }
        seconds.sort_by(f64::total_cmp);
        let calls = if part == Part::Step { self.cycle } else { 1 };
        Ok(Some(quantile(&seconds, 0.5) / f64::from(calls)))
    }
}

impl Sparse {
    fn new(ctx: &Context, plan: SelectionPlan, attention: AttentionPlan, views: [TensorView<'_>; 3]) -> Result<Self> {
        let selection: &SelectionProblem = plan.problem();
        let lists = Lists::new(ctx, &selection.blocks(), selection.shape())?;
        let blocks = lists.view();
        let [q, k, _] = views;
        let args = SelectionArgs { q, k, seq_lens_kv: None, blocks };
        let selection = Selection::prepare(ctx, &plan)?.bind(args)?;
        let attending = Attending::new(ctx, attention, views, Some(blocks))?;
        Ok(Self { plan, selection, attending, lists })
    }

    fn encode_step(&self, pass: &mut wgpu::ComputePass<'_>, step: u64) {
        self.selection.encode_step_in(pass, step);
        self.attending.bound.encode_in(pass);
    }
}

impl Attending {
    fn new(
        ctx: &Context,
        plan: AttentionPlan,
        views: [TensorView<'_>; 3],
        blocks: Option<SelectedBlocks<'_>>,
    ) -> Result<Self> {
        let outputs = Outputs::new(ctx, plan.problem())?;
        let bound = Attention::prepare(ctx, &plan)?.bind(outputs.args(views, blocks))?;
        Ok(Self { plan, bound, outputs })
    }
}

fn attention_plan(ctx: &Context, tier: Option<Tier>, problem: &AttentionProblem) -> Result<AttentionPlan> {
    let tier = tier.unwrap_or_else(|| AttentionPlan::best_tier(problem, ctx.caps()));
    AttentionPlan::with_tier(problem, ctx.caps(), tier)
}
