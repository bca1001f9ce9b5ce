//! Tunes a selection on a device.

use super::candidates::{selection_neighbours, selection_starts};
use super::inputs::{check_sizes, reduced};
use super::search::Space;
use super::{Candidate, Options};
use crate::bench::tools::{Clock, Rotating, Stamps, Subject, Tensors, Uploaded, Verdict};
use crate::bench::{Check, Counts, Elapsed, PartPlan, Rotation};
use crate::ops::BlockListBuffers;
use crate::{
    BoundSelection, Context, Error, HostBlockLists, QuerySampling, Result, Selection, SelectionArgs, SelectionInputs,
    SelectionPlan, SelectionProblem, SelectionTiling, U32View, cpu,
};

/// A selection on a device.
pub(super) struct SelectionSubject<'a> {
    ctx: &'a Context,
    clock: Clock,
    untuned: Candidate<SelectionTiling>,
    sabotage: Option<(&'static str, u32)>,
    full: Stage,
    small: Stage,
    /// Number of timed calls so far: each takes the next set of inputs.
    calls: usize,
}

/// A plan, bound to each set of inputs.
pub(super) struct Ready {
    plan: SelectionPlan,
    small: Vec<BoundSelection>,
    full: Vec<BoundSelection>,
}

impl<'a> SelectionSubject<'a> {
    pub(super) fn new(ctx: &'a Context, problem: &SelectionProblem, options: &Options) -> Result<Self> {
        problem.validate()?;
        check_sizes(&problem.shape)?;
        let problem = &exact(problem)?;
        let plan = SelectionPlan::new(problem, ctx.caps())?;
        // Before inputs are made and selections computed.
        let clock = Clock::new(ctx, Stamps::Take)?.kept_warm()?;
        let lens = vec![problem.shape.seq_len_kv; problem.shape.batch_size as usize];
        let (little, little_lens) = small(problem);
        Ok(Self {
            ctx,
            clock,
            untuned: Candidate { tier: plan.tier(), tiling: plan.tiling() },
            sabotage: options.sabotage,
            full: Stage::new(ctx, problem.clone(), lens, cpu::select)?.in_turns(ctx)?,
            small: Stage::new(ctx, little, little_lens, cpu::oracle::select)?,
            calls: 0,
        })
    }

    /// The candidates.
    pub(super) fn space(&self) -> Space<'a, SelectionTiling> {
        let (problem, caps) = (self.full.problem.clone(), self.ctx.caps());
        let starts = selection_starts(&problem, caps);
        Space {
            untuned: self.untuned,
            starts,
            neighbours: Box::new(move |from| selection_neighbours(&problem, caps, from)),
        }
    }

    fn bind(
        &self,
        stage: &Stage,
        candidate: Candidate<SelectionTiling>,
    ) -> Result<(SelectionPlan, Vec<BoundSelection>)> {
        let caps = self.ctx.caps();
        let plan = SelectionPlan::with_tiling(&stage.problem, caps, candidate.tier, candidate.tiling)?;
        let plan = match self.sabotage {
            Some((constant, value)) if candidate != self.untuned => plan.with_constant(constant, value),
            _ => plan,
        };
        let prepared = Selection::prepare(self.ctx, &plan)?;
        let bound = stage.inputs.sets().iter().map(|set| prepared.bind(stage.args(set))).collect::<Result<_>>()?;
        Ok((plan, bound))
    }

    /// Whether a stage gives the expected lists, in both runs.
    fn check_stage(&self, stage: &Stage, bound: &[BoundSelection], of: &str) -> Result<Verdict> {
        let mut verdict = stage.verdict();
        for bound in [bound.first(), bound.last()].into_iter().flatten() {
            stage.lists.spoil(self.ctx)?;
            verdict.seconds = self.clock.time(|pass| bound.encode_step_in(pass, 0))?.seconds();
            if stage.lists.read(self.ctx).wait()? != stage.expected {
                verdict.check.error = 1.0;
                verdict.fault = Some(format!("lists of {of} are not those that they should be"));
                break;
            }
        }
        Ok(verdict)
    }
}

impl Subject for SelectionSubject<'_> {
    type Way = Candidate<SelectionTiling>;
    type Ready = Ready;
    type Watch = Clock;

    fn prepare(&mut self, candidate: Candidate<SelectionTiling>) -> Result<Ready> {
        let (_, small) = self.bind(&self.small, candidate)?;
        let (plan, full) = self.bind(&self.full, candidate)?;
        Ok(Ready { plan, small, full })
    }

    fn check(&mut self, ready: &Ready) -> Result<Verdict> {
        let small = self.check_stage(&self.small, &ready.small, "a small problem")?;
        if small.fault.is_some() { Ok(small) } else { self.check_stage(&self.full, &ready.full, "the problem") }
    }

    fn time(&mut self, ready: &Ready, calls: u32) -> Result<Elapsed> {
        let bound = &ready.full;
        self.clock.time_calls(calls, &mut self.calls, |pass, call| bound[call % bound.len()].encode_step_in(pass, 0))
    }

    fn plan(&self, ready: &Ready) -> Result<PartPlan> {
        Ok(PartPlan::of_selection(&ready.plan))
    }

    fn counts(&self, _: &Ready) -> Counts {
        Counts::of_selection(&self.full.problem)
    }

    fn encode_seconds(&mut self, ready: &Ready) -> Result<Option<f64>> {
        self.clock.time_encoding(|pass| ready.full[0].encode_step_in(pass, 0)).map(Some)
    }

    fn rotation(&self) -> Rotation {
        self.full.inputs.rotation()
    }

    fn watch(&self) -> Clock {
        self.clock.clone()
    }
}

/// A problem with its tensors on a device, and the expected lists.
struct Stage {
    problem: SelectionProblem,
    inputs: Rotating,
    seq_lens_kv: Option<wgpu::Buffer>,
    lists: BlockListBuffers,
    expected: HostBlockLists,
}

impl Stage {
    /// Scores of these inputs are exact, so that every right selection gives the same lists.
    fn new(
        ctx: &Context,
        problem: SelectionProblem,
        lens: Vec<u32>,
        select: impl FnOnce(&SelectionProblem, &SelectionInputs<'_>) -> Result<HostBlockLists>,
    ) -> Result<Self> {
        let shape = *problem.shape();
        let tensors = Tensors::random([shape.q(), shape.k(), [1, 1, 1, shape.head_dim_v]]);
        let lens = problem.seq_lens_kv.then_some(lens);
        let inputs = SelectionInputs { seq_lens_kv: lens.as_deref(), ..tensors.inputs().for_selection() };
        // Every type holds these numbers exactly.
        let widened = SelectionProblem { dtype: crate::DType::F32, ..problem.clone() };
        Ok(Self {
            inputs: Rotating::with_sets(ctx, Uploaded::new(ctx, shape, problem.dtype(), &tensors)?, 1)?,
            seq_lens_kv: lens.as_deref().map(|lens| ctx.upload_u32("wattn.tune.lens", lens)).transpose()?,
            lists: BlockListBuffers::new(ctx, &problem.blocks(), &shape)?,
            expected: select(&widened, &inputs)?,
            problem,
        })
    }

    /// Before any difference was found.
    fn verdict(&self) -> Verdict {
        let compared = self.expected.block_counts().len() as u64;
        Verdict { check: Check { compared, error: 0.0, bound: 0.0 }, seconds: 0.0, fault: None }
    }

    /// Makes copies of the inputs, which calls take in turns.
    fn in_turns(mut self, ctx: &Context) -> Result<Self> {
        self.inputs = self.inputs.in_turns(ctx)?;
        Ok(self)
    }

    fn args<'a>(&'a self, set: &'a Uploaded) -> SelectionArgs<'a> {
        let [q, k, _] = set.views();
        let batch_size = u64::from(self.problem.shape().batch_size);
        let seq_lens_kv = self.seq_lens_kv.as_ref().map(|lens| U32View::new(lens, 0, batch_size));
        SelectionArgs::new(q, k, self.lists.view()).with_seq_lens_kv(seq_lens_kv)
    }
}

/// The same work with scores that are exact in any order of their sums: the scale is a power of two, and so is the number of queries in each
/// mean.
fn exact(problem: &SelectionProblem) -> Result<SelectionProblem> {
    let mut shape = problem.shape;
    let selector = problem.method().selector();
    let means = (0..selector.num_stages()).filter_map(|stage| match selector.sampling(stage) {
        QuerySampling::Mean(stride) => Some(stride),
        QuerySampling::Stride(_) => None,
    });
    let means: Vec<u32> = means.collect();
    if let Some(stride) = means.iter().find(|stride| !stride.is_power_of_two()) {
        let (value, rule) = ((*stride).into(), "must be a power of two to be tuned: means are exact then");
        return Err(Error::Invalid { field: "stride_q", value, rule });
    }
    if !means.is_empty() {
        let rest = shape.seq_len_q % problem.blocks().block_size_q;
        shape.seq_len_q -= rest - rest.checked_ilog2().map_or(0, |log2| 1 << log2);
    }
    let scale = 2f32.powi(problem.selection_scale().abs().max(f32::MIN_POSITIVE).log2().round() as i32);
    Ok(SelectionProblem { shape, ..problem.clone() }.with_selection_scale(scale))
}

/// The same problem with few queries and about four times as many keys as are selected, at odd lengths.
fn small(problem: &SelectionProblem) -> (SelectionProblem, Vec<u32>) {
    let kept = problem.method().selector().keys_kept(problem);
    // A whole block, and a single query.
    let queries = problem.blocks().block_size_q.saturating_add(1);
    let (shape, lens) = reduced(&problem.shape, queries, kept.saturating_mul(4).saturating_add(777));
    (SelectionProblem { shape, ..problem.clone() }, lens)
}
