//! A method made of operators, by their definitions. Tensors between operators are rounded to f32, as elsewhere.

use crate::cpu::oracle::{block_scores, pool, top_k};
use crate::problem::checked_steps;
use crate::{
    Element, Error, HostBlockLists, HostTensor, KernelInputs, Result, SelectionInputs, SelectionProblem, SelectorStep,
};

pub(super) fn select<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
) -> Result<HostBlockLists> {
    let mut tensors: Vec<(&'static str, HostTensor)> = Vec::new();
    let lens = inputs.seq_lens_kv;
    let problem = &SelectionProblem { seq_lens_kv: lens.is_some(), ..problem.clone() };
    for step in checked_steps(problem, problem.method().selector())? {
        let read = |wanted: &str| {
            let found = tensors.iter().find(|(name, _)| *name == wanted);
            &found.expect("a step that was checked reads what an earlier one writes").1
        };
        let written = match &step {
            SelectorStep::Pool { problem, summaries } => {
                (*summaries, narrow(problem.summaries_shape(), &pool(problem, inputs.k, lens)?)?)
            }
            SelectorStep::Score { problem, summaries, scores } => {
                (*scores, narrow(problem.scores_shape(), &block_scores(problem, inputs.q, read(summaries), lens)?)?)
            }
            SelectorStep::TopK { problem, scores } => return top_k(problem, read(scores), inputs.marks),
            SelectorStep::Kernel(step) => {
                let (q, k) = (inputs.q.widened(), inputs.k.widened());
                let inputs = KernelInputs { step, shape: &problem.shape, q: &q, k: &k, tensors: &tensors };
                (step.written().unwrap_or_default(), step.compute(&inputs)?)
            }
        };
        tensors.push(written);
    }
    Err(Error::Argument { argument: "steps", rule: "must end with a top-k, which writes the lists" })
}

fn narrow(shape: [u32; 4], numbers: &[f64]) -> Result<HostTensor> {
    HostTensor::new(shape, numbers.iter().map(|&number| number as f32).collect())
}
