//! The parts of a case on a device, with everything bound beforehand.

use super::check::{Judge, Verdict};
use super::clock::{Clock, Elapsed};
use super::device::{Outputs, Uploaded};
use super::inputs::Tensors;
use super::rotation::Rotating;
use super::stopwatch::Watch;
use super::subject::{PartPlan, Subject};
use super::{Case, Counts, Part, Rotation};
use crate::ops::BlockListBuffers;
use crate::{
    Attention, AttentionOutput, AttentionPlan, AttentionProblem, BlockListsView, BoundAttention, BoundSelection,
    Context, Error, HostBlockLists, Result, Selection, SelectionArgs, SelectionPlan,
};

pub(super) struct GpuRun {
    clock: Clock,
    judge: Judge,
    cycle: u32,
    dense: Attending,
    sparse: Option<Sparse>,
    inputs: Rotating,
    /// Calls so far: each takes the next set of inputs.
    calls: usize,
    /// Whether every set has been selected from, so that steps find the survivors of their set.
    primed: bool,
}

/// The buffers of a selection and of attention to its lists.
#[derive(Debug)]
struct Sparse {
    plan: SelectionPlan,
    /// For each set of inputs.
    selections: Vec<BoundSelection>,
    attending: Attending,
    lists: BlockListBuffers,
}

/// Attention bound to its output, for each set of inputs.
#[derive(Debug)]
struct Attending {
    plan: AttentionPlan,
    bound: Vec<BoundAttention>,
    outputs: Outputs,
}

impl GpuRun {
    pub(super) fn new(clock: &Clock, case: &Case, tensors: Tensors) -> Result<Self> {
        Self::with_inputs(clock, case, tensors, Rotating::new)
    }

    fn with_inputs(
        clock: &Clock,
        case: &Case,
        tensors: Tensors,
        rotating: impl FnOnce(&Context, Uploaded) -> Result<Rotating>,
    ) -> Result<Self> {
        let ctx = clock.context();
        // Plans first: a problem that does not fit the device must not allocate its memory.
        let plan = attention_plan(ctx, case.problem())?;
        let inputs = rotating(ctx, Uploaded::new(ctx, *case.problem().shape(), case.problem().dtype(), &tensors)?)?;
        let sparse = case.selection().zip(case.sparse_problem()).map(|(selection, problem)| {
            let tier = SelectionPlan::best_tier(selection, ctx.caps());
            let selection = SelectionPlan::with_tier(selection, ctx.caps(), tier)?;
            Sparse::new(ctx, selection, attention_plan(ctx, &problem)?, &inputs)
        });
        let (dense, sparse) = (Attending::new(ctx, plan, &inputs, None)?, sparse.transpose()?);
        let (clock, judge, cycle) = (clock.clone(), Judge::new(case.clone(), tensors), case.cycle());
        Ok(Self { clock, judge, cycle, dense, sparse, inputs, calls: 0, primed: false })
    }

    fn sparse(&self) -> Result<&Sparse> {
        self.sparse.as_ref().ok_or(Error::Argument { argument: "part", rule: "the case has no selection" })
    }

    /// Runs call number `call` of a part; steps of decoding count as calls. Returns the next number.
    fn encode(&self, part: Part, pass: &mut wgpu::ComputePass<'_>, call: usize) -> usize {
        let sparse = match &self.sparse {
            Some(sparse) if part != Part::Dense => sparse,
            _ => {
                self.dense.encode(pass, call);
                return call + 1;
            }
        };
        match part {
            Part::Dense | Part::Attend => sparse.attending.encode(pass, call),
            Part::Select => sparse.select(pass, 0, call),
            Part::Sparse => sparse.encode_step(pass, 0, call),
            Part::Step => {
                for step in 0..self.cycle {
                    sparse.encode_step(pass, step.into(), call + step as usize);
                }
                return call + self.cycle as usize;
            }
        }
        call + 1
    }

    /// The last result of attention.
    fn output(&self, part: Part) -> Result<AttentionOutput> {
        let attending = if part == Part::Dense { &self.dense } else { &self.sparse()?.attending };
        attending.outputs.read(self.clock.context())
    }

    /// The last selected lists.
    fn blocks(&self) -> Result<HostBlockLists> {
        self.sparse()?.lists.read(self.clock.context()).wait()
    }
}

impl Subject for GpuRun {
    type Way = Part;
    type Ready = Part;
    type Watch = Watch;

    /// Attention needs lists, steps need the survivors of each set of inputs.
    fn prepare(&mut self, part: Part) -> Result<Part> {
        if part == Part::Dense {
            return Ok(part);
        }
        self.sparse()?;
        if part.reads_lists() && !self.judge.has_lists() {
            self.time(&Part::Select, 1)?;
            let blocks = self.blocks()?;
            self.judge.keep(blocks);
        }
        if part == Part::Step && !self.primed {
            let sparse = self.sparse()?;
            self.clock.time(|pass| (0..sparse.selections.len()).for_each(|set| sparse.select(pass, 0, set)))?;
            self.primed = true;
        }
        Ok(part)
    }

    fn check(&mut self, &part: &Part) -> Result<Verdict> {
        let elapsed = self.time(&part, 1)?;
        let blocks = (part != Part::Dense).then(|| self.blocks()).transpose()?;
        let output = (part != Part::Select).then(|| self.output(part)).transpose()?;
        Ok(Verdict::of(self.judge.check(part, blocks, output.as_ref())?, elapsed))
    }

    fn time(&mut self, &part: &Part, calls: u32) -> Result<Elapsed> {
        let mut next = self.calls;
        let elapsed = self.clock.time(|pass| (0..calls).for_each(|_| next = self.encode(part, pass, next)))?;
        self.calls = next;
        Ok(elapsed.over(part.steps(self.cycle)))
    }

    fn plan(&self, &part: &Part) -> Result<PartPlan> {
        if part == Part::Dense {
            return Ok(PartPlan::of_attention(&self.dense.plan));
        }
        let sparse = self.sparse()?;
        let (select, attend) = (PartPlan::of_selection(&sparse.plan), PartPlan::of_attention(&sparse.attending.plan));
        Ok(match part {
            Part::Select => select,
            Part::Dense | Part::Attend => attend,
            Part::Sparse | Part::Step => {
                let steps = part.steps(self.cycle);
                let selecting: usize = (0..steps).map(|step| sparse.plan.num_dispatches(step.into())).sum();
                PartPlan {
                    dispatches: attend.dispatches + selecting as f64 / f64::from(steps),
                    workspace_bytes: attend.workspace_bytes + select.workspace_bytes,
                    ..attend
                }
            }
        })
    }

    fn counts(&self, &part: &Part) -> Counts {
        self.judge.counts(part)
    }

    fn encode_seconds(&mut self, &part: &Part) -> Result<Option<f64>> {
        let seconds = self.clock.time_encoding(|pass| {
            self.encode(part, pass, 0);
        })?;
        Ok(Some(seconds / f64::from(part.steps(self.cycle))))
    }

    fn rotation(&self) -> Rotation {
        self.inputs.rotation()
    }

    fn watch(&self) -> Watch {
        Watch::Device(self.clock.clone())
    }
}

impl Sparse {
    fn new(ctx: &Context, plan: SelectionPlan, attention: AttentionPlan, inputs: &Rotating) -> Result<Self> {
        let problem = plan.problem();
        let lists = BlockListBuffers::new(ctx, &problem.blocks(), problem.shape())?;
        let blocks = lists.view();
        let prepared = Selection::prepare(ctx, &plan)?;
        let bind = |set: &Uploaded| {
            let [q, k, _] = set.views();
            prepared.bind(SelectionArgs::new(q, k, blocks))
        };
        let selections = inputs.sets().iter().map(bind).collect::<Result<_>>()?;
        let attending = Attending::new(ctx, attention, inputs, Some(blocks))?;
        Ok(Self { plan, selections, attending, lists })
    }

    fn select(&self, pass: &mut wgpu::ComputePass<'_>, step: u64, call: usize) {
        self.selections[call % self.selections.len()].encode_step_in(pass, step);
    }

    fn encode_step(&self, pass: &mut wgpu::ComputePass<'_>, step: u64, call: usize) {
        self.select(pass, step, call);
        self.attending.encode(pass, call);
    }
}

impl Attending {
    fn new(ctx: &Context, plan: AttentionPlan, inputs: &Rotating, blocks: Option<BlockListsView<'_>>) -> Result<Self> {
        let outputs = Outputs::new(ctx, plan.problem())?;
        let prepared = Attention::prepare(ctx, &plan)?;
        let bind = |set: &Uploaded| prepared.bind(outputs.args(set.views(), blocks));
        let bound = inputs.sets().iter().map(bind).collect::<Result<_>>()?;
        Ok(Self { plan, bound, outputs })
    }

    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, call: usize) {
        self.bound[call % self.bound.len()].encode_in(pass);
    }
}

fn attention_plan(ctx: &Context, problem: &AttentionProblem) -> Result<AttentionPlan> {
    AttentionPlan::with_tier(problem, ctx.caps(), AttentionPlan::best_tier(problem, ctx.caps()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::check::{check_attention, check_lists};
    use crate::bench::clock::Stamps;
    use crate::bench::{Counts, Runner, Series, Target};
    use crate::{ContextOptions, Hip, Preset, SoftwareAdapters};

    #[test]
    fn calls_take_sets_in_turns_and_each_is_right() {
        let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
        let ctx = Context::request(&options).wait().expect("a GPU adapter, a software one will do");
        let clock = Clock::new(&ctx, Stamps::Leave).unwrap();
        // Each set keeps its survivors from step to step.
        let case = Case::sparse(Series::SparseDecode, "x", [2, 1, 1, 2048], Preset::Debug);
        let shape = *case.problem().shape();
        let tensors = Tensors::random([shape.q(), shape.k(), shape.v()]);
        let same = Tensors::random([shape.q(), shape.k(), shape.v()]);
        let make = |ctx: &Context, first| Rotating::with_sets(ctx, first, 3);
        let mut run = GpuRun::with_inputs(&clock, &case, same, make).unwrap();
        let of_one = u64::from(shape.num_kv_heads) * 2048 * 128 * 4 * 2 + 2 * 128 * 4;
        assert_eq!(run.rotation(), Rotation { sets: 3, bytes: 3 * of_one });
        let [first, second, third] = run.inputs.sets() else { panic!("three sets") };
        for ([a, b], at) in [[first, second], [second, third], [first, third]].into_iter().zip(0..) {
            assert!(a.views().iter().zip(b.views()).all(|(a, b)| a.buffer != b.buffer), "{at}");
        }
        // One call, or one step of a cycle, for each set; each must give the oracle's result.
        for call in 1..=3 {
            run.time(&Part::Dense, 1).unwrap();
            assert_eq!(run.calls, call);
            assert!(check_attention(&case, &tensors, None, &run.output(Part::Dense).unwrap()).passed());
            run.dense.outputs.spoil(&ctx).unwrap();
        }
        // A mix-up of sets would show: their keys differ.
        for call in 0..3 {
            run.time(&Part::Select, 1).unwrap();
            let blocks = run.blocks().unwrap();
            assert!(check_lists(case.selection().unwrap(), &tensors, &blocks).unwrap().passed(), "{call}");
            run.time(&Part::Attend, 1).unwrap();
            let got = run.output(Part::Attend).unwrap();
            assert!(check_attention(&case, &tensors, Some(&blocks), &got).passed(), "{call}");
        }
        let before = run.calls;
        run.prepare(Part::Step).unwrap();
        run.time(&Part::Step, 1).unwrap();
        assert_eq!(run.calls, before + case.cycle() as usize);
        let blocks = run.blocks().unwrap();
        let got = run.output(Part::Step).unwrap();
        assert!(check_lists(case.selection().unwrap(), &tensors, &blocks).unwrap().passed());
        assert!(check_attention(&case, &tensors, Some(&blocks), &got).passed());
        assert!(Counts::new(&case, Part::Dense, None).bytes < run.rotation().bytes);
        for part in case.parts() {
            assert_eq!(run.check(part).unwrap().fault, None, "{part:?}");
        }
        // Wrong values in one of the sets show in every third call.
        let [_, _, v] = run.inputs.sets()[1].views();
        ctx.queue().write_buffer(v.buffer, 0, &vec![0x3f; v.buffer.size() as usize]);
        for part in [Part::Dense, Part::Attend] {
            let faults = [(); 3].map(|()| run.check(&part).unwrap().fault);
            assert_eq!(faults.iter().flatten().filter(|fault| fault.contains("off by")).count(), 1, "{faults:?}");
        }
    }

    #[test]
    fn a_step_is_the_mean_of_a_cycle() {
        let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
        let ctx = Context::request(&options).wait().expect("a GPU adapter, a software one will do");
        let case = Case::sparse(Series::SparseDecode, "x", [2, 2, 1, 2048], Hip::decode());
        assert_eq!(case.cycle(), 8);
        for target in [Target::Cpu, Target::Gpu(ctx)] {
            let mut runner = Runner::new(&target, &case).unwrap();
            runner.run(Part::Step, 1).unwrap();
            let begin = std::time::Instant::now();
            let of_step = runner.run(Part::Step, 3).unwrap().wall;
            assert!(8.0 * of_step <= begin.elapsed().as_secs_f64(), "{target:?}: {of_step}");
        }
    }
}
