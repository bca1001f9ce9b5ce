//! Captured mass over the layers and heads of a model.

use crate::{Error, HostTensor, Result};

/// Captured mass of a set of rows: 1 %, 10 % and 50 % of the rows do not exceed the three quantiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MassSummary {
    /// Rows.
    pub rows: u64,
    /// Mean.
    pub mean: f64,
    /// The smallest.
    pub min: f32,
    /// 1st percentile.
    pub p01: f32,
    /// 10th percentile.
    pub p10: f32,
    /// Median.
    pub p50: f32,
}

impl MassSummary {
    /// Summarises rows; without any row, every number is 1.
    #[must_use]
    pub fn new(mut values: Vec<f32>) -> Self {
        let rows = values.len();
        if rows == 0 {
            return Self { rows: 0, mean: 1.0, min: 1.0, p01: 1.0, p10: 1.0, p50: 1.0 };
        }
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / rows as f64;
        values.sort_unstable_by(f32::total_cmp);
        let quantile = |percent: usize| values[(rows * percent).div_ceil(100).max(1) - 1];
        Self { rows: rows as u64, mean, min: values[0], p01: quantile(1), p10: quantile(10), p50: quantile(50) }
    }
}

/// Captured mass of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerMass {
    name: String,
    all: MassSummary,
    heads: Vec<MassSummary>,
}

impl LayerMass {
    /// The name given to [`MassReport::add_layer`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All rows of all heads.
    #[must_use]
    pub const fn all(&self) -> &MassSummary {
        &self.all
    }

    /// The rows of each head.
    #[must_use]
    pub fn heads(&self) -> &[MassSummary] {
        &self.heads
    }
}

/// Collects [captured mass](super::captured_mass) layer by layer, and prints a table that shows which layers to leave dense.
///
/// ```
/// use wattn::HostTensor;
/// use wattn::quality::MassReport;
/// let mut report = MassReport::new();
/// report.add_layer("0", &HostTensor::new([1, 2, 2, 1], vec![0.25, 1.0, 0.75, 1.0])?)?;
/// report.add_layer("1", &HostTensor::new([1, 2, 2, 1], vec![1.0; 4])?)?;
/// assert_eq!(report.layers()[0].heads()[0].mean, 0.5);
/// assert_eq!(report.worst_layers()[0].name(), "0");
/// println!("{report}");
/// # Ok::<(), wattn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MassReport {
    layers: Vec<LayerMass>,
}

impl MassReport {
    /// Number of worst heads in the printed report.
    pub const NUM_WORST: usize = 8;

    /// Without layers.
    #[must_use]
    pub const fn new() -> Self {
        Self { layers: Vec::new() }
    }

    /// Adds the captured mass of a layer, `[batch, seq, head, 1]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the last axis is not 1.
    pub fn add_layer(&mut self, name: impl Into<String>, mass: &HostTensor) -> Result<()> {
        let [batch_size, seq_len_q, num_q_heads, width] = mass.shape();
        if width != 1 {
            let expected = [batch_size, seq_len_q, num_q_heads, 1];
            return Err(Error::Shape { tensor: "mass", expected, actual: mass.shape() });
        }
        let num_heads = num_q_heads as usize;
        let head = |head| MassSummary::new(mass.data().iter().skip(head).step_by(num_heads).copied().collect());
        self.layers.push(LayerMass {
            name: name.into(),
            all: MassSummary::new(mass.data().to_vec()),
            heads: (0..num_heads).map(head).collect(),
        });
        Ok(())
    }

    /// The layers, in the order in which they were added.
    #[must_use]
    pub fn layers(&self) -> &[LayerMass] {
        &self.layers
    }

    /// The layers by ascending mean: candidates for dense attention.
    #[must_use]
    pub fn worst_layers(&self) -> Vec<&LayerMass> {
        let mut layers: Vec<&LayerMass> = self.layers.iter().collect();
        layers.sort_by(|a, b| a.all.mean.total_cmp(&b.all.mean));
        layers
    }

    /// `(layer, head)` of every head, by ascending mean.
    #[must_use]
    pub fn worst_heads(&self) -> Vec<(&LayerMass, usize)> {
        let mut heads: Vec<(&LayerMass, usize)> =
            self.layers.iter().flat_map(|layer| (0..layer.heads.len()).map(move |head| (layer, head))).collect();
        heads.sort_by(|(a, m), (b, n)| a.heads[*m].mean.total_cmp(&b.heads[*n].mean));
        heads
    }
}

impl core::fmt::Display for MassSummary {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { mean, min, p01, p10, p50, .. } = self;
        write!(f, "{mean:7.4} {min:7.4} {p01:7.4} {p10:7.4} {p50:7.4}")
    }
}

impl core::fmt::Display for MassReport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        /// Heads on one line.
        const PER_LINE: usize = 16;
        let width = self.layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0).max(5);
        let columns = format!("{:>7} {:>7} {:>7} {:>7} {:>7}", "mean", "min", "p01", "p10", "p50");
        writeln!(f, "captured attention mass\n\n{:<width$} {columns}", "layer")?;
        for layer in &self.layers {
            writeln!(f, "{:<width$} {}", layer.name, layer.all)?;
        }
        let num_heads = self.layers.iter().map(|layer| layer.heads.len()).max().unwrap_or(0);
        for first in (0..num_heads).step_by(PER_LINE) {
            let heads = first..(first + PER_LINE).min(num_heads);
            write!(f, "\n{:<width$}", "head")?;
            heads.clone().try_for_each(|head| write!(f, " {head:>6}"))?;
            writeln!(f)?;
            for layer in &self.layers {
                write!(f, "{:<width$}", layer.name)?;
                let shown = layer.heads.get(first..heads.end.min(layer.heads.len())).unwrap_or_default();
                shown.iter().try_for_each(|head| write!(f, " {:6.4}", head.mean))?;
                writeln!(f)?;
            }
        }
        writeln!(f, "\n{:<width$} {:>4} {columns}", "worst", "head")?;
        for (layer, head) in self.worst_heads().into_iter().take(Self::NUM_WORST) {
            writeln!(f, "{:<width$} {head:>4} {}", layer.name, layer.heads[head])?;
        }
        Ok(())
    }
}
