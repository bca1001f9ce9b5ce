//! Selection and block-sparse attention in one call on host tensors, with dense attention where it is faster.

use crate::quality::captured_mass;
#[cfg(feature = "cpu")]
use crate::quality::{BlockRecall, block_recall};
use crate::{
    AttentionOutput, AttentionProblem, Context, DeviceCaps, Element, Engine, Error, HostBlockLists, HostInputs,
    HostTensor, Pending, Result, ScoreMod, SelectionPlan, SelectionProblem,
};

/// Whether a measure of quality is computed. It costs as much as dense attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Measure {
    /// No.
    #[default]
    Skip,
    /// Yes.
    Compute,
}

/// Options of [`Engine::attend_sparse`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SparseOptions {
    dense_below: Option<u32>,
    captured_mass: Measure,
    #[cfg(feature = "cpu")]
    recall: Measure,
}

impl SparseOptions {
    /// Sets the crossover: calls with at most this many keys are dense; in longer ones, query blocks that see at most this many keys are.
    /// 0 always selects [default: the selection's own if it has one, else on GPUs [`SelectionPlan::crossover`], and on the CPU the method's
    /// [`crossover`](crate::SelectionMethod::crossover)].
    #[must_use]
    pub const fn with_dense_below(mut self, keys: u32) -> Self {
        self.dense_below = Some(keys);
        self
    }

    /// Sets whether to compute the captured mass of each row, by dense attention on the same device.
    #[must_use]
    pub const fn with_captured_mass(mut self, measure: Measure) -> Self {
        self.captured_mass = measure;
        self
    }

    /// Sets whether to compute the share of the truly best blocks that the lists hold, on the CPU.
    #[cfg(feature = "cpu")]
    #[must_use]
    pub const fn with_recall(mut self, measure: Measure) -> Self {
        self.recall = measure;
        self
    }
}

/// The path by which [`Engine::attend_sparse`] computed its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttentionPath {
    /// Dense attention: the number of keys did not exceed the crossover.
    Dense,
    /// A selection, then attention to the selected blocks.
    Sparse,
}

impl core::fmt::Display for AttentionPath {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Dense => "dense",
            Self::Sparse => "sparse",
        })
    }
}

/// The result of [`Engine::attend_sparse`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SparseOutput {
    /// out and lse.
    pub output: AttentionOutput,
    /// The selected blocks; `None` on the dense path.
    pub blocks: Option<HostBlockLists>,
    /// Captured mass, `[batch, seq, head, 1]`, if requested; 1 throughout on the dense path.
    pub captured_mass: Option<HostTensor>,
    /// Recall of the lists, if requested; `None` on the dense path, which has no lists.
    #[cfg(feature = "cpu")]
    pub recall: Option<BlockRecall>,
    /// The path of the computation.
    pub path: AttentionPath,
}

/// A checked call: the dense problem, and the sparse problems in its place unless it is computed densely.
struct Planned {
    dense: AttentionProblem,
    sparse: Option<(SelectionProblem, AttentionProblem)>,
}

impl Planned {
    fn new<T: Element>(
        problem: &AttentionProblem,
        selection: &SelectionProblem,
        inputs: &HostInputs<'_, T>,
        options: &SparseOptions,
        caps: Option<&DeviceCaps>,
    ) -> Result<Self> {
        let dense_below = match (options.dense_below, selection.dense_below, caps) {
            (Some(keys), ..) => keys,
            (None, 0, Some(caps)) => SelectionPlan::crossover(selection, caps)?,
            (None, 0, None) => selection.method.crossover(selection.shape.seq_len_q),
            (None, own, _) => own,
        };
        let selection = selection.clone().with_dense_below(dense_below);
        agree(problem, &selection)?;
        problem.validate()?;
        let mut dense = problem.clone();
        dense.blocks = None;
        inputs.validate(&dense)?;
        selection.validate()?;
        if selection.marks_shape().is_some() {
            // Dense attention would see blocks that are forbidden.
            let rule = "cannot be given here: select with them, then attend to the lists";
            return Err(Error::Argument { argument: "marks", rule });
        }
        let longest = (0..problem.shape().batch_size).map(|batch| inputs.seq_len_kv(batch)).max().unwrap_or(0);
        let sparse = (longest > dense_below).then(|| {
            let attention = dense.clone().with_blocks(selection.blocks());
            (selection, attention)
        });
        Ok(Self { dense, sparse })
    }

    /// The result of the dense path.
    fn dense_output(output: AttentionOutput, options: &SparseOptions) -> Result<SparseOutput> {
        let captured_mass = match options.captured_mass {
            Measure::Skip => None,
            Measure::Compute => Some(captured_mass(&output.lse, &output.lse)?),
        };
        Ok(SparseOutput {
            output,
            blocks: None,
            captured_mass,
            #[cfg(feature = "cpu")]
            recall: None,
            path: AttentionPath::Dense,
        })
    }

    /// The result of the sparse path; `dense` is given when the captured mass was requested.
    #[cfg_attr(not(feature = "cpu"), expect(unused_variables, reason = "the recall alone looks at the inputs again"))]
    fn sparse_output<T: Element>(
        selection: &SelectionProblem,
        inputs: &HostInputs<'_, T>,
        options: &SparseOptions,
        (blocks, output): (HostBlockLists, AttentionOutput),
        dense: Option<&AttentionOutput>,
    ) -> Result<SparseOutput> {
        let captured_mass = dense.map(|dense| captured_mass(&output.lse, &dense.lse)).transpose()?;
        #[cfg(feature = "cpu")]
        let recall = match options.recall {
            Measure::Skip => None,
            Measure::Compute => Some(block_recall(selection, &inputs.for_selection(), &blocks)?),
        };
        Ok(SparseOutput {
            output,
            blocks: Some(blocks),
            captured_mass,
            #[cfg(feature = "cpu")]
            recall,
            path: AttentionPath::Sparse,
        })
    }
}

/// Checks that the selection fits this attention problem.
fn agree(problem: &AttentionProblem, selection: &SelectionProblem) -> Result<()> {
    let (ours, theirs) = (problem.shape(), selection.shape());
    for (field, ours, theirs) in [
        ("batch_size", ours.batch_size, theirs.batch_size),
        ("seq_len_q", ours.seq_len_q, theirs.seq_len_q),
        ("seq_len_kv", ours.seq_len_kv, theirs.seq_len_kv),
        ("num_q_heads", ours.num_q_heads, theirs.num_q_heads),
        ("num_kv_heads", ours.num_kv_heads, theirs.num_kv_heads),
        ("head_dim", ours.head_dim, theirs.head_dim),
    ] {
        if ours != theirs {
            let rule = "of the selection must be that of the attention problem";
            return Err(Error::Invalid { field, value: theirs.into(), rule });
        }
    }
    let differs = |argument, rule| Err(Error::Argument { argument, rule });
    if problem.dtype() != selection.dtype() {
        return differs("dtype", "the selection must have that of the attention problem");
    }
    if problem.mask() != selection.mask() {
        return differs("mask", "the selection must have that of the attention problem");
    }
    if !problem.score_mods().iter().all(ScoreMod::keeps_order) {
        return differs("score_mods", "must keep the order of scores: a selection scores q·k as it is");
    }
    match problem.blocks() {
        Some(blocks) if *blocks != selection.blocks() => {
            differs("selected_blocks", "of the attention problem must be left out, or be those of the selection")
        }
        _ => Ok(()),
    }
}

impl Engine {
    /// Selects blocks and attends to them; up to the crossover ([`SparseOptions::with_dense_below`]) it computes dense attention instead,
    /// and [`SparseOutput::path`] says so.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Argument`] naming where the selection differs from the attention problem; the errors of
    /// [`Engine::select`] and [`Engine::attend`].
    ///
    /// # Cost
    /// The cost of the calls that it makes. A measure of quality costs as much as dense attention.
    pub fn attend_sparse<'a, T: Element>(
        &'a self,
        problem: &AttentionProblem,
        selection: &SelectionProblem,
        inputs: &HostInputs<'a, T>,
        options: &SparseOptions,
    ) -> Pending<'a, Result<SparseOutput>> {
        let (inputs, options) = (*inputs, *options);
        let planned = Planned::new(problem, selection, &inputs, &options, self.context().map(Context::caps));
        // The first call's work is submitted before this returns.
        let begun = planned.map(|Planned { dense, sparse }| match sparse {
            None => (dense.clone(), Begun::Dense(self.attend(&dense, &inputs))),
            Some((selection, attention)) => {
                let lists = self.select(&selection, &inputs.for_selection());
                (dense, Begun::Sparse(Box::new((selection, attention)), lists))
            }
        });
        Pending::new(async move {
            let (dense, begun) = begun?;
            let (selection, attention, lists) = match begun {
                Begun::Dense(output) => return Planned::dense_output(output.await?, &options),
                Begun::Sparse(problems, lists) => {
                    let (selection, attention) = *problems;
                    (selection, attention, lists.await?)
                }
            };
            let output = self.attend(&attention, &inputs.with_blocks(&lists)).await?;
            let dense = match options.captured_mass {
                Measure::Skip => None,
                Measure::Compute => Some(self.attend(&dense, &inputs).await?),
            };
            Planned::sparse_output(&selection, &inputs, &options, (lists, output), dense.as_ref())
        })
    }
}

/// The first of several calls.
enum Begun {
    Dense(Pending<'static, Result<AttentionOutput>>),
    Sparse(Box<(SelectionProblem, AttentionProblem)>, Pending<'static, Result<HostBlockLists>>),
}
