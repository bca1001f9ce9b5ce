//! The results of an evaluation.

use core::fmt;

use serde::Serialize;

use super::compare::keys;
use super::needles::{self, Needles};

/// Tokens at the end of a window whose bits count.
pub(super) const SCORED: usize = 256;

/// One kind of attention.
#[derive(Clone, Serialize)]
pub(super) struct Row {
    pub(super) attention: String,
    pub(super) budget: Option<u32>,
    /// A result for each context length; none where the budget has room for the whole context.
    pub(super) bits_per_byte: Vec<Option<f64>>,
    /// At the longest context, against dense.
    pub(super) loss_percent: Option<f64>,
    pub(super) tokens_per_second: f64,
}

/// Captured mass of the layers.
#[derive(Serialize)]
pub(super) struct Mass {
    pub(super) attention: String,
    pub(super) budget: Option<u32>,
    /// `(layer, mean, tenth percentile, minimum)` over rows and heads.
    pub(super) layers: Vec<(String, f64, f32, f32)>,
}

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    pub(super) engine: String,
    pub(super) dense_layers: u32,
    pub(super) contexts: Vec<u32>,
    pub(super) windows: usize,
    pub(super) scored_bytes: usize,
    pub(super) rows: Vec<Row>,
    pub(super) needles: Vec<Needles>,
    pub(super) mass: Vec<Mass>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n", self.model, self.engine)?;
        writeln!(
            f,
            "Bits per byte of the last {SCORED} tokens of {} windows ({} bytes), by context;\nthe first {} layers are dense.\n",
            self.windows, self.scored_bytes, self.dense_layers
        )?;
        write!(f, "  {:<18} {:>6}", "attention", "keys")?;
        for context in &self.contexts {
            write!(f, " {context:>8}")?;
        }
        writeln!(f, " {:>8} {:>9}", "loss", "tokens/s")?;
        for row in &self.rows {
            write!(f, "  {:<18} {:>6}", row.attention, keys(row.budget))?;
            for cost in &row.bits_per_byte {
                write!(f, " {:>8}", cost.map_or_else(|| "-".to_owned(), |cost| format!("{cost:.4}")))?;
            }
            let loss = row.loss_percent.map_or_else(String::new, |loss| format!("{loss:+.2} %"));
            writeln!(f, " {loss:>8} {:>9.0}", row.tokens_per_second)?;
        }
        needles::table(f, &self.needles)?;
        if !self.mass.is_empty() {
            writeln!(f, "\nShare of the softmax mass that was read, by layer: mean (10th percentile)\n")?;
            for mass in &self.mass {
                write!(f, "  {:<18} {:>6}", mass.attention, keys(mass.budget))?;
                for (_, mean, p10, _) in &mass.layers {
                    write!(f, "  {mean:.3} ({p10:.2})")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
