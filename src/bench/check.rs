//! Comparison with the f64 oracle, before anything is timed.

use serde::{Deserialize, Serialize};

use super::clock::Elapsed;
use super::inputs::Tensors;
use super::{Case, Counts, Part};
use crate::{
    AttentionOutput, AttentionProblem, AttentionShape, DType, Error, HostBlockLists, HostInputs, HostTensor, Result,
    SelectionInputs, SelectionProblem, cpu,
};

/// The distance of a result from the oracle's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Rows, or lists, that were compared.
    pub compared: u64,
    /// The largest error of an element of out or of an lse; for lists, the number of lists that differ.
    pub error: f64,
    /// The largest accepted value.
    pub bound: f64,
}

impl Check {
    /// Whether the result is right.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.error <= self.bound
    }
}

/// What a subject's check says.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) check: Check,
    /// Seconds of the checked call.
    pub(crate) seconds: f64,
    /// The fault, if there is one.
    pub(crate) fault: Option<String>,
}

impl Verdict {
    /// A result that the oracle judges alone.
    pub(crate) fn of(check: Check, elapsed: Elapsed) -> Self {
        let Check { error, bound, .. } = check;
        let fault = (!check.passed()).then(|| format!("off by {error:.1e}, {bound:.1e} is accepted"));
        Self { check, seconds: elapsed.seconds(), fault }
    }
}

/// A case with its inputs, by which results are judged, and the lists that were selected last.
pub(super) struct Judge {
    case: Case,
    tensors: Tensors,
    blocks: Option<HostBlockLists>,
}

impl Judge {
    pub(super) const fn new(case: Case, tensors: Tensors) -> Self {
        Self { case, tensors, blocks: None }
    }

    /// Keeps the lists that attention reads.
    pub(super) fn keep(&mut self, blocks: HostBlockLists) {
        self.blocks = Some(blocks);
    }

    pub(super) const fn has_lists(&self) -> bool {
        self.blocks.is_some()
    }

    /// Judges the results of a part: its lists if it is a selection, else its output, of attention to these lists if there are any.
    pub(super) fn check(
        &mut self,
        part: Part,
        blocks: Option<HostBlockLists>,
        output: Option<&AttentionOutput>,
    ) -> Result<Check> {
        match (part, self.case.selection(), blocks, output) {
            (Part::Select, Some(selection), Some(blocks), _) => {
                let check = check_lists(selection, &self.tensors, &blocks);
                self.keep(blocks);
                check
            }
            (_, _, blocks, Some(got)) => Ok(check_attention(&self.case, &self.tensors, blocks.as_ref(), got)),
            _ => Err(Error::Argument { argument: "part", rule: "the case has no selection" }),
        }
    }

    pub(super) fn counts(&self, part: Part) -> Counts {
        Counts::new(&self.case, part, self.blocks.as_ref())
    }
}

/// Rows of attention, `[batch, q_index, q_head]`, by the definition.
#[derive(Clone, Debug)]
pub(crate) struct OracleRows {
    bound: f64,
    rows: Vec<([u32; 3], Vec<f64>, f64)>,
}

impl OracleRows {
    pub(crate) fn of(
        problem: &AttentionProblem,
        inputs: &HostInputs<'_>,
        rows: impl Iterator<Item = [u32; 3]>,
    ) -> Self {
        let of_row = |row @ [batch, q_index, q_head]: [u32; 3]| {
            let (out, lse) = cpu::oracle::attend_row(problem, inputs, batch, q_index, q_head);
            (row, out, lse)
        };
        Self { bound: bound(problem), rows: rows.map(of_row).collect() }
    }

    /// Compares a result with these rows.
    pub(crate) fn check(&self, got: &AttentionOutput) -> Check {
        let mut check = Check { compared: self.rows.len() as u64, error: 0.0, bound: self.bound };
        for (row, expected, lse) in &self.rows {
            let [batch, q_index, q_head] = row.map(|n| n as usize);
            let (out, got_lse) = (got.out.row(batch, q_index, q_head), got.lse.row(batch, q_index, q_head)[0]);
            let errors = out.iter().zip(expected).map(|(x, y)| (f64::from(*x) - y).abs());
            for error in errors.chain([(f64::from(got_lse) - lse).abs()]) {
                // Neither `max` nor JSON keeps a NaN or an infinity.
                check.error = check.error.max(if error.is_finite() { error } else { f64::MAX });
            }
        }
        check
    }
}

/// First, middle and last query of the first and last head and sequence. Of a problem that has some.
pub(crate) fn sampled_rows(shape: &AttentionShape) -> impl Iterator<Item = [u32; 3]> {
    let ends = |n: u32| (0..n).step_by(n.saturating_sub(1).max(1) as usize);
    let (batches, q_heads, seq_len_q) = (ends(shape.batch_size), ends(shape.num_q_heads), shape.seq_len_q);
    batches.flat_map(move |batch| {
        let queries = [0, seq_len_q / 2, seq_len_q.saturating_sub(1)];
        let q_heads = q_heads.clone();
        queries.into_iter().flat_map(move |q_index| q_heads.clone().map(move |q_head| [batch, q_index, q_head]))
    })
}

/// Rows of a case's attention; with lists, of attention to these.
pub(super) fn check_attention(
    case: &Case,
    tensors: &Tensors,
    blocks: Option<&HostBlockLists>,
    got: &AttentionOutput,
) -> Check {
    let sparse = case.sparse_problem();
    let problem = sparse.as_ref().filter(|_| blocks.is_some()).unwrap_or_else(|| case.problem());
    let inputs = HostInputs { blocks, ..tensors.inputs() };
    OracleRows::of(problem, &inputs, sampled_rows(problem.shape())).check(got)
}

/// Ten times the observed error in f32, with |out| below 1 and lse about 10; the tests check the exact bound. 16 bits add a rounding of
/// each weight (kernels on matrix units) and one of out; |v| is at most 1.
pub(crate) fn bound(problem: &AttentionProblem) -> f64 {
    let rounding = |dtype: DType| if dtype == DType::F32 { 0.0 } else { 2.0 * dtype.unit_roundoff() };
    5e-6 + rounding(problem.dtype()).max(rounding(problem.out_dtype()))
}

/// The lists of the last query block must equal the oracle's exactly, since scores are exact (see [`Tensors`]). All lists must keep the
/// rules of attention.
pub(super) fn check_lists(selection: &SelectionProblem, tensors: &Tensors, got: &HostBlockLists) -> Result<Check> {
    let shape = selection.shape();
    got.validate(&selection.blocks(), shape, None)?;
    let [_, num_sets, q_blocks, _] = got.shape();
    let first = (q_blocks - 1) * selection.blocks().block_size_q;
    let (last_block, q) = last_queries(selection, tensors, first)?;
    let inputs = SelectionInputs::new(&q, tensors.inputs().k);
    let expected = cpu::oracle::select(&last_block, &inputs)?;
    let differ = (0..num_sets).filter(|&set| got.list(0, set, q_blocks - 1) != expected.list(0, set, 0));
    Ok(Check { compared: num_sets.into(), error: differ.count() as f64, bound: 0.0 })
}

/// The problem of the queries from `first` on, at the same positions: the last query sits on the last key.
fn last_queries(selection: &SelectionProblem, tensors: &Tensors, first: u32) -> Result<(SelectionProblem, HostTensor)> {
    let shape = *selection.shape();
    let last = AttentionShape { seq_len_q: shape.seq_len_q - first, ..shape };
    let row = shape.num_q_heads as usize * shape.head_dim as usize;
    let q = HostTensor::new(last.q(), tensors.inputs().q.data()[first as usize * row..].to_vec())?;
    let problem = SelectionProblem::new(last, selection.dtype(), selection.method().clone())
        .with_granularity(selection.blocks().granularity)
        .with_selection_scale(selection.selection_scale());
    let block_size_q = selection.blocks().block_size_q;
    // A short last block would have another margin on its own.
    if first > 0 && last.seq_len_q != block_size_q {
        let rule = "must be a multiple of block_size_q, or less than it, to be checked";
        return Err(Error::Invalid { field: "seq_len_q", value: shape.seq_len_q.into(), rule });
    }
    Ok((problem, q))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Series;
    use crate::{Hip, Preset, SelectionMethod};

    #[test]
    fn a_right_result_passes_and_a_wrong_one_does_not() {
        let case = Case::dense(Series::Gqa, [4, 2, 9, 33], 16, DType::F32);
        let shape = case.problem().shape();
        let tensors = Tensors::random([shape.q(), shape.k(), shape.v()]);
        let mut got = cpu::attend(case.problem(), &tensors.inputs()).unwrap();
        let check = check_attention(&case, &tensors, None, &got);
        assert!(check.passed() && check.error > 0.0 && check.compared == 6, "{check:?}");
        got.out.data_mut()[3] += 1e-4;
        assert!(!check_attention(&case, &tensors, None, &got).passed());
        got.out.data_mut()[3] = f32::NAN;
        let check = check_attention(&case, &tensors, None, &got);
        assert!(!check.passed() && check.error.is_finite(), "{check:?}");
    }

    #[test]
    fn lists_are_the_oracles() {
        for (method, heads) in [(SelectionMethod::from(Hip::default()), [2, 2]), (Preset::Debug.into(), [2, 1])] {
            for queries in [128, 1] {
                let sizes = [heads[0], heads[1], queries, 2048];
                let case = Case::sparse(Series::SparsePrefill, "x", sizes, method.clone());
                let selection = case.selection().unwrap();
                let shape = selection.shape();
                let tensors = Tensors::random([shape.q(), shape.k(), shape.v()]);
                let mut blocks = cpu::select(selection, &tensors.inputs().for_selection()).unwrap();
                let check = check_lists(selection, &tensors, &blocks).unwrap();
                assert!(check.passed() && check.compared > 0, "{check:?}");
                let sparse = case.sparse_problem().unwrap();
                let got = cpu::attend(&sparse, &tensors.inputs().with_blocks(&blocks)).unwrap();
                assert!(check_attention(&case, &tensors, Some(&blocks), &got).passed());
                let last = blocks.shape()[2] - 1;
                let shorter = blocks.list(0, 0, last)[1..].to_vec();
                blocks.set_list(0, 0, last, &shorter);
                assert!(!check_lists(selection, &tensors, &blocks).unwrap().passed());
            }
        }
    }
}
