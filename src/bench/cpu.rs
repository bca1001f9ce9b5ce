//! The parts of a case on the CPU path.

use std::hint::black_box;
use std::time::Instant;

use super::check::{Judge, Verdict};
use super::clock::Elapsed;
use super::inputs::Tensors;
use super::stopwatch::Watch;
use super::subject::{PartPlan, Subject};
use super::{Case, Counts, Part, Rotation};
use crate::{
    AttentionOutput, AttentionProblem, Element, Error, HostBlockLists, HostInputs, Result, SelectionProblem, cpu,
};

pub(super) struct CpuRun<T> {
    begin: Instant,
    judge: Judge,
    tensors: Tensors<T>,
    dense: AttentionProblem,
    sparse: Option<(SelectionProblem, AttentionProblem)>,
    cycle: u32,
    /// The stages' survivors for the next steps.
    cache: cpu::StageCache,
    blocks: Option<HostBlockLists>,
    output: Option<AttentionOutput>,
}

impl<T: Element> CpuRun<T> {
    pub(super) fn new(case: &Case, tensors: Tensors) -> Self {
        Self {
            begin: Instant::now(),
            tensors: tensors.narrowed(),
            judge: Judge::new(case.clone(), tensors),
            dense: case.problem().clone(),
            sparse: case.selection().cloned().zip(case.sparse_problem()),
            cycle: case.cycle(),
            cache: cpu::StageCache::default(),
            blocks: None,
            output: None,
        }
    }

    fn call(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Dense => self.output = Some(cpu::attend(&self.dense, &self.tensors.inputs())?),
            Part::Select => self.select(0)?,
            Part::Attend => self.attend()?,
            Part::Sparse => {
                self.select(0)?;
                self.attend()?;
            }
            Part::Step => {
                for step in 0..self.cycle {
                    self.select(step.into())?;
                    self.attend()?;
                }
            }
        }
        Ok(())
    }

    /// The stages that a decode step computes.
    fn select(&mut self, step: u64) -> Result<()> {
        let (selection, _) = self.sparse.as_ref().ok_or(NO_SELECTION)?;
        if let Some(stage) = selection.first_stage(step) {
            let inputs = self.tensors.inputs();
            self.blocks = Some(cpu::select_from(selection, &inputs.for_selection(), stage, &mut self.cache)?);
        }
        Ok(())
    }

    fn attend(&mut self) -> Result<()> {
        let (_, problem) = self.sparse.as_ref().ok_or(NO_SELECTION)?;
        let blocks = self.blocks.as_ref().ok_or(NOT_SELECTED)?;
        self.output = Some(black_box(cpu::attend(problem, &self.tensors.inputs().with_blocks(blocks))?));
        Ok(())
    }
}

const NO_SELECTION: Error = Error::Argument { argument: "part", rule: "the case has no selection" };
const NOT_SELECTED: Error = Error::Argument { argument: "part", rule: "attends to lists that were not selected yet" };

impl<T: Element> Subject for CpuRun<T> {
    type Way = Part;
    type Ready = Part;
    type Watch = Watch;

    /// Attention needs lists.
    fn prepare(&mut self, part: Part) -> Result<Part> {
        if part != Part::Dense && self.sparse.is_none() {
            return Err(NO_SELECTION);
        }
        if part.reads_lists() && !self.judge.has_lists() {
            self.select(0)?;
            self.judge.keep(self.blocks.clone().ok_or(NOT_SELECTED)?);
        }
        Ok(part)
    }

    fn check(&mut self, &part: &Part) -> Result<Verdict> {
        let elapsed = self.time(&part, 1)?;
        let blocks = self.blocks.clone().filter(|_| part != Part::Dense);
        let output = self.output.as_ref().filter(|_| part != Part::Select);
        Ok(Verdict::of(self.judge.check(part, blocks, output)?, elapsed))
    }

    fn time(&mut self, &part: &Part, calls: u32) -> Result<Elapsed> {
        let mut result = Ok(());
        let elapsed = Elapsed::of(|| result = (0..calls).try_for_each(|_| self.call(part)));
        result.map(|()| elapsed.over(part.steps(self.cycle)))
    }

    fn plan(&self, _: &Part) -> Result<PartPlan> {
        Ok(PartPlan::ON_CPU)
    }

    fn counts(&self, &part: &Part) -> Counts {
        self.judge.counts(part)
    }

    fn encode_seconds(&mut self, _: &Part) -> Result<Option<f64>> {
        Ok(None)
    }

    fn rotation(&self) -> Rotation {
        let HostInputs { q, k, v, .. } = self.tensors.inputs();
        let elements: usize = [q, k, v].iter().map(|tensor| tensor.data().len()).sum();
        Rotation { sets: 1, bytes: (elements * size_of::<T>()) as u64 }
    }

    fn watch(&self) -> Watch {
        Watch::Cpu(self.begin)
    }
}
