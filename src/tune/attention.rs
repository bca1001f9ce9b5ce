//! Tunes attention on a device.

use super::candidates::{attention_neighbours, attention_starts};
use super::inputs::{check_sizes, reduced, spread};
use super::search::Space;
use super::{Candidate, EXPECTATION, Options, TuneResult};
use crate::bench::tools::{
    Clock, OracleRows, Outputs, Rotating, Stamps, Subject, Tensors, Uploaded, Verdict, bound, sampled_rows,
};
use crate::bench::{Counts, Elapsed, PartPlan, Rotation};
use crate::ops::BlockListBuffers;
use crate::{
    Attention, AttentionOutput, AttentionPlan, AttentionProblem, AttentionShape, BoundAttention, Context, HostInputs,
    Result, Tiling, U32View,
};

/// Most rows of a small problem that are compared with the oracle.
const MOST_ROWS: usize = 512;

/// A problem of attention on a device.
pub(super) struct AttentionSubject<'a> {
    ctx: &'a Context,
    clock: Clock,
    sabotage: Option<(&'static str, u32)>,
    untuned: Candidate<Tiling>,
    full: Stage,
    /// Number of timed calls so far: each takes the next set of inputs.
    calls: usize,
    /// The result of the first candidate, the plan without tuning.
    reference: Option<AttentionOutput>,
}

/// A plan, bound to each set of inputs.
pub(super) struct Ready {
    plan: AttentionPlan,
    bound: Vec<BoundAttention>,
    is_untuned: bool,
}

impl<'a> AttentionSubject<'a> {
    pub(super) fn new(ctx: &'a Context, problem: &AttentionProblem, options: &Options) -> TuneResult<Self> {
        // The lse costs nothing beside the rest, and reveals a missing key of a long sequence.
        let problem = problem.clone().with_lse();
        let plan = AttentionPlan::new(&problem, ctx.caps())?;
        check_sizes(&problem.shape)?;
        // Before anything is uploaded.
        options.effort.allow(plan.expected_seconds(ctx.caps()) / EXPECTATION)?;
        // Before inputs are made and compared.
        let clock = Clock::new(ctx, Stamps::Take)?.kept_warm()?;
        let lens = vec![problem.shape.seq_len_kv; problem.shape.batch_size as usize];
        let full = Stage::new(ctx, problem, lens, |shape| sampled_rows(shape).collect())?.in_turns(ctx)?;
        Ok(Self {
            ctx,
            clock,
            sabotage: options.sabotage,
            untuned: Candidate { tier: plan.tier(), tiling: plan.tiling() },
            full,
            calls: 0,
            reference: None,
        })
    }

    /// The candidates.
    pub(super) fn space(&self) -> Space<'a, Tiling> {
        let (problem, caps) = (self.full.problem.clone(), self.ctx.caps());
        let starts = attention_starts(&problem, caps);
        Space {
            untuned: self.untuned,
            starts,
            neighbours: Box::new(move |from| attention_neighbours(&problem, caps, from)),
        }
    }

    /// The plan of a candidate for a problem.
    fn plan(&self, problem: &AttentionProblem, candidate: Candidate<Tiling>) -> Result<AttentionPlan> {
        let plan = AttentionPlan::with_tiling(problem, self.ctx.caps(), candidate.tier, candidate.tiling)?;
        Ok(match self.sabotage {
            Some((constant, value)) if candidate != self.untuned => plan.with_constant(constant, value),
            _ => plan,
        })
    }

    fn run(&self, bound: &BoundAttention) -> Result<Elapsed> {
        self.clock.time(|pass| bound.encode_in(pass))
    }

    /// Checks a small problem with odd lengths: every edge of the tiles is near every row.
    fn check_small(&self, ready: &Ready) -> Result<Verdict> {
        let candidate = Candidate { tier: ready.plan.tier(), tiling: ready.plan.tiling() };
        let (problem, lens) = small(&self.full.problem, candidate.tiling);
        let stage = Stage::new(self.ctx, problem, lens, |shape| {
            let rows = all_rows(shape);
            let step = rows.len().div_ceil(MOST_ROWS).max(1);
            rows.into_iter().step_by(step).collect()
        })?;
        let bound = stage.bind(self.ctx, &self.plan(&stage.problem, candidate)?)?;
        stage.outputs.spoil(self.ctx)?;
        let elapsed = self.run(&bound[0])?;
        Ok(stage.judge(&stage.outputs.read(self.ctx)?, elapsed, "a small problem"))
    }

    /// The difference of a right result from that of another run, or from that of the plan without tuning.
    fn differs(&mut self, ready: &Ready, first: AttentionOutput) -> Result<Option<String>> {
        self.run(&ready.bound[ready.bound.len() - 1])?;
        if bits(&self.full.outputs.read(self.ctx)?).ne(bits(&first)) {
            return Ok(Some("a second run gave other bits".to_owned()));
        }
        if ready.is_untuned {
            self.reference = Some(first);
            return Ok(None);
        }
        // Both results may be off by the bound.
        let allowed = 2.0 * bound(&self.full.problem);
        let far = self.reference.as_ref().and_then(|reference| farthest(&first, reference));
        Ok(far.filter(|far| *far > allowed).map(|far| {
            format!("an element is {far:.1e} from that of the plan without tuning, where {allowed:.1e} is allowed")
        }))
    }
}

impl Subject for AttentionSubject<'_> {
    type Way = Candidate<Tiling>;
    type Ready = Ready;
    type Watch = Clock;

    fn prepare(&mut self, candidate: Candidate<Tiling>) -> Result<Ready> {
        let plan = self.plan(&self.full.problem, candidate)?;
        let bound = self.full.bind(self.ctx, &plan)?;
        Ok(Ready { plan, bound, is_untuned: candidate == self.untuned })
    }

    fn check(&mut self, ready: &Ready) -> Result<Verdict> {
        let small = self.check_small(ready)?;
        if small.fault.is_some() {
            return Ok(small);
        }
        self.full.outputs.spoil(self.ctx)?;
        let elapsed = self.run(&ready.bound[0])?;
        let first = self.full.outputs.read(self.ctx)?;
        let verdict = self.full.judge(&first, elapsed, "the problem");
        if verdict.fault.is_some() {
            return Ok(verdict);
        }
        Ok(Verdict { fault: self.differs(ready, first)?, ..verdict })
    }

    fn time(&mut self, ready: &Ready, calls: u32) -> Result<Elapsed> {
        let bound = &ready.bound;
        self.clock.time_calls(calls, &mut self.calls, |pass, call| bound[call % bound.len()].encode_in(pass))
    }

    fn plan(&self, ready: &Ready) -> Result<PartPlan> {
        Ok(PartPlan::of_attention(&ready.plan))
    }

    fn counts(&self, _: &Ready) -> Counts {
        self.full.counts
    }

    fn encode_seconds(&mut self, ready: &Ready) -> Result<Option<f64>> {
        self.clock.time_encoding(|pass| ready.bound[0].encode_in(pass)).map(Some)
    }

    fn rotation(&self) -> Rotation {
        self.full.inputs.rotation()
    }

    fn watch(&self) -> Clock {
        self.clock.clone()
    }
}

/// A problem with its tensors on a device, and the expected values of some rows.
struct Stage {
    problem: AttentionProblem,
    inputs: Rotating,
    outputs: Outputs,
    seq_lens_kv: Option<wgpu::Buffer>,
    lists: Option<BlockListBuffers>,
    rows: OracleRows,
    counts: Counts,
}

impl Stage {
    fn new(
        ctx: &Context,
        problem: AttentionProblem,
        lens: Vec<u32>,
        rows: impl FnOnce(&AttentionShape) -> Vec<[u32; 3]>,
    ) -> Result<Self> {
        let shape = *problem.shape();
        let tensors = Tensors::random([shape.q(), shape.k(), shape.v()]);
        let lens = problem.seq_lens_kv.then_some(lens);
        let blocks = problem.blocks().map(|blocks| spread(blocks, &shape, lens.as_deref()));
        let inputs = HostInputs { seq_lens_kv: lens.as_deref(), blocks: blocks.as_ref(), ..tensors.inputs() };
        Ok(Self {
            inputs: Rotating::with_sets(ctx, Uploaded::new(ctx, shape, problem.dtype(), &tensors)?, 1)?,
            outputs: Outputs::new(ctx, &problem)?,
            seq_lens_kv: lens.as_deref().map(|lens| ctx.upload_u32("wattn.tune.lens", lens)).transpose()?,
            lists: blocks.as_ref().map(|blocks| BlockListBuffers::upload(ctx, blocks)).transpose()?,
            rows: OracleRows::of(&problem, &inputs, rows(&shape).into_iter()),
            counts: Counts::of_attention(&problem, blocks.as_ref()),
            problem,
        })
    }

    /// Makes copies of the inputs, which calls take in turns.
    fn in_turns(mut self, ctx: &Context) -> Result<Self> {
        self.inputs = self.inputs.in_turns(ctx)?;
        Ok(self)
    }

    fn bind(&self, ctx: &Context, plan: &AttentionPlan) -> Result<Vec<BoundAttention>> {
        let prepared = Attention::prepare(ctx, plan)?;
        let batch_size = u64::from(self.problem.shape().batch_size);
        let bind = |set: &Uploaded| {
            let mut args = self.outputs.args(set.views(), self.lists.as_ref().map(BlockListBuffers::view));
            args.seq_lens_kv = self.seq_lens_kv.as_ref().map(|lens| U32View::new(lens, 0, batch_size));
            prepared.bind(args)
        };
        self.inputs.sets().iter().map(bind).collect()
    }

    /// The distance of a result from the oracle; a fault if it is too large.
    fn judge(&self, got: &AttentionOutput, elapsed: Elapsed, of: &str) -> Verdict {
        let check = self.rows.check(got);
        let (error, bound) = (check.error, check.bound);
        let fault = format!("{of} is {error:.1e} from the oracle, where {bound:.1e} is allowed");
        Verdict { fault: (!check.passed()).then_some(fault), check, seconds: elapsed.seconds() }
    }
}

/// The same problem with a few tiles of rows and keys, none of them whole, and with different key lengths.
fn small(problem: &AttentionProblem, tiling: Tiling) -> (AttentionProblem, Vec<u32>) {
    let tiles = 3 * tiling.num_splits.min(4);
    let queries = (2 * tiling.tile_q() + 3).div_ceil(problem.shape.group_size());
    let (shape, lens) = reduced(&problem.shape, queries, tiles * tiling.tile_kv() + tiling.tile_kv() / 2 + 1);
    (AttentionProblem { shape, ..problem.clone() }, lens)
}

fn all_rows(shape: &AttentionShape) -> Vec<[u32; 3]> {
    let (queries, heads) = (shape.seq_len_q, shape.num_q_heads);
    let of_batch = |batch| (0..queries).flat_map(move |query| (0..heads).map(move |head| [batch, query, head]));
    (0..shape.batch_size).flat_map(of_batch).collect()
}

fn bits(output: &AttentionOutput) -> impl Iterator<Item = u32> {
    output.out.data().iter().chain(output.lse.data()).map(|x| x.to_bits())
}

/// The largest distance of two elements; infinite where one is NaN.
fn farthest(a: &AttentionOutput, b: &AttentionOutput) -> Option<f64> {
    let pairs = a.out.data().iter().zip(b.out.data()).chain(a.lse.data().iter().zip(b.lse.data()));
    pairs
        .map(|(&a, &b)| {
            let distance = (f64::from(a) - f64::from(b)).abs();
            if distance.is_nan() { f64::INFINITY } else { distance }
        })
        .reduce(f64::max)
}
