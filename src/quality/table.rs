//! A table of selections on synthetic inputs.

use core::fmt;

use super::synthetic::Pattern;
use super::{
    BlockRecall, MassSummary, block_recall, captured_mass, exact_blocks, no_blocks, output_error, random_blocks,
};
use crate::{
    AttentionOutput, AttentionProblem, Element, HostBlockLists, HostInputs, HostTensor, Result, SelectionProblem, cpu,
};

/// The loss of attention to some lists of blocks; made by [`compare`].
#[derive(Clone, Debug, PartialEq)]
pub struct Quality {
    /// Captured mass, `[batch, seq, head, 1]`.
    pub captured_mass: HostTensor,
    /// Share of the best blocks in the lists.
    pub recall: BlockRecall,
    /// `|out - dense out| / |dense out|`.
    pub output_error: f64,
}

/// Compares block-sparse attention to `blocks` with dense attention, whose result the caller computed once, on the CPU.
///
/// # Errors
/// The errors of [`cpu::attend`] and [`block_recall`].
///
/// # Cost
/// Block-sparse attention, and the scores of dense attention.
pub fn compare<T: Element>(
    problem: &AttentionProblem,
    selection: &SelectionProblem,
    inputs: &HostInputs<'_, T>,
    blocks: &HostBlockLists,
    dense: &AttentionOutput,
) -> Result<Quality> {
    let sparse = cpu::attend(&problem.clone().with_blocks(selection.blocks()), &inputs.with_blocks(blocks))?;
    Ok(Quality {
        captured_mass: captured_mass(&sparse.lse, &dense.lse)?,
        recall: block_recall(selection, &inputs.for_selection(), blocks)?,
        output_error: output_error(&sparse.out, &dense.out)?,
    })
}

/// One line of a [`QualityTable`].
#[derive(Clone, Debug, PartialEq)]
pub struct QualityRow {
    /// The pattern of the inputs.
    pub set: String,
    /// The source of the lists.
    pub method: String,
    /// Captured mass of all rows.
    pub mass: MassSummary,
    /// Share of the best blocks in all lists together.
    pub recall: f64,
    /// `|out - dense out| / |dense out|`.
    pub output_error: f64,
}

/// Sets of inputs by methods of selection, printed as a table; made by [`synthetic_table`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QualityTable {
    /// The lines, set by set.
    pub rows: Vec<QualityRow>,
}

impl fmt::Display for QualityTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |of: fn(&QualityRow) -> &str| self.rows.iter().map(|row| of(row).len()).max().unwrap_or(0).max(6);
        let (set, method) = (width(|row| &row.set), width(|row| &row.method));
        let [mass, p10, recall, error] = ["mass", "p10", "recall", "error"];
        writeln!(f, "{:<set$}  {:<method$} {mass:>7} {p10:>7} {recall:>7} {error:>7}", "set", "method")?;
        for row in &self.rows {
            let QualityRow { mass, recall, output_error, .. } = row;
            let (mean, p10) = (mass.mean, mass.p10);
            write!(f, "{:<set$}  {:<method$} {mean:>7.4} {p10:>7.4}", row.set, row.method)?;
            writeln!(f, " {recall:>7.4} {output_error:>7.4}")?;
        }
        Ok(())
    }
}

/// Runs named selections on synthetic inputs, and for comparison the best blocks, random blocks of the same budget, and sinks and window
/// alone. The selections have the shape of the problem.
///
/// # Errors
/// The errors of [`compare`].
///
/// # Cost
/// Dense attention for every pattern, and the scores of dense attention a few times for each selection.
pub fn synthetic_table(
    problem: &AttentionProblem,
    selections: &[(&str, SelectionProblem)],
    patterns: &[Pattern],
    seed: u64,
) -> Result<QualityTable> {
    let mut rows = Vec::new();
    for pattern in patterns {
        let tensors = pattern.generate(problem.shape(), seed)?;
        let inputs = tensors.inputs();
        let dense = cpu::attend(problem, &inputs)?;
        let mut add = |method: String, selection: &SelectionProblem, blocks: &HostBlockLists| -> Result<()> {
            let Quality { captured_mass, recall, output_error } = compare(problem, selection, &inputs, blocks, &dense)?;
            let mass = MassSummary::new(captured_mass.into_data());
            rows.push(QualityRow { set: pattern.to_string(), method, mass, recall: recall.mean(), output_error });
            Ok(())
        };
        for (name, selection) in selections {
            let of_selection = inputs.for_selection();
            add((*name).to_owned(), selection, &cpu::select(selection, &of_selection)?)?;
            add(format!("{name}, best blocks"), selection, &exact_blocks(selection, &of_selection)?)?;
            add(format!("{name}, random blocks"), selection, &random_blocks(selection, None, seed)?)?;
            add(format!("{name}, sinks and window"), selection, &no_blocks(selection))?;
        }
    }
    Ok(QualityTable { rows })
}
