//! The report of a run: for people within 80 columns, for machines as JSON.

use core::fmt;
use std::time::Duration;

use serde::Serialize;

use super::check::Check;
use super::sparse::Compared;
use super::{Predicted, pairs, thousands};
use crate::engine::BYTES;
use crate::failure::Failure;

/// Parts of the file that are scored on their own.
const SEGMENTS: usize = 8;

/// The slowest level of zstd that needs no extra memory to decompress, and its default.
const ZSTD_LEVELS: [i32; 2] = [19, 3];

/// The settings of the run.
#[derive(Serialize)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) heads: u32,
    pub(crate) head_dim: u32,
    pub(crate) dtype: String,
    pub(crate) chunk: u32,
    pub(crate) seed: u64,
    pub(crate) engine: String,
}

pub(crate) struct Timing {
    pub(crate) attention: Duration,
    pub(crate) mixing: Duration,
    pub(crate) total: Duration,
}

#[derive(Serialize)]
struct Segment {
    start: usize,
    end: usize,
    bits_per_byte: f64,
    top1: f64,
}

#[derive(Serialize)]
pub(crate) struct Report {
    settings: Settings,
    bytes: usize,
    pub(crate) bits_per_byte: f64,
    top1: f64,
    pub(crate) order0_bits_per_byte: f64,
    pub(crate) zstd19_bits_per_byte: f64,
    pub(crate) zstd3_bits_per_byte: f64,
    segments: Vec<Segment>,
    mixture_weights: Vec<f32>,
    attention_seconds: f64,
    mixing_seconds: f64,
    total_seconds: f64,
    bytes_per_second: f64,
    gflops: f64,
    check: Check,
    pub(crate) picture: Option<String>,
    /// Dense and sparse attention side by side, where the run has sparse attention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attentions: Option<Compared>,
}

impl Report {
    pub(crate) fn new(
        settings: Settings,
        text: &[u8],
        predicted: &Predicted,
        check: Check,
        timing: &Timing,
    ) -> Result<Self, Failure> {
        let segment = |start: usize, end: usize| Segment {
            start,
            end,
            bits_per_byte: predicted.bits[start..end].iter().map(|&bits| f64::from(bits)).sum::<f64>()
                / (end - start) as f64,
            top1: predicted.hits[start..end].iter().filter(|&&hit| hit).count() as f64 / (end - start) as f64,
        };
        let len = text.len();
        let count = SEGMENTS.min(len);
        let segments = (0..count).map(|i| segment(len * i / count, len * (i + 1) / count)).collect();
        let Segment { bits_per_byte, top1, .. } = segment(0, len);
        let [zstd19, zstd3] = ZSTD_LEVELS.map(|level| zstd_bits_per_byte(text, level));
        let attention_seconds = timing.attention.as_secs_f64();
        // One product of q and k, and one of weights and v, two operations each, for every visible pair.
        let width = u64::from(settings.head_dim + BYTES) * u64::from(settings.heads);
        let flop = 2 * width * pairs(len - 1);
        Ok(Self {
            settings,
            bytes: len,
            bits_per_byte,
            top1,
            order0_bits_per_byte: order0_bits_per_byte(text),
            zstd19_bits_per_byte: zstd19?,
            zstd3_bits_per_byte: zstd3?,
            segments,
            mixture_weights: predicted.weights.clone(),
            attention_seconds,
            mixing_seconds: timing.mixing.as_secs_f64(),
            total_seconds: timing.total.as_secs_f64(),
            bytes_per_second: (len - 1) as f64 / attention_seconds,
            gflops: flop as f64 / attention_seconds * 1e-9,
            check,
            picture: None,
            attentions: None,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let Check { largest_error: error, bound, ok, .. } = self.check;
        if ok { Ok(()) } else { Err(Failure::Check { error, bound }) }
    }
}

/// The entropy of the byte frequencies of the whole text: the cost of a coder that knows only these frequencies, in advance.
fn order0_bits_per_byte(text: &[u8]) -> f64 {
    let mut counts = [0u64; 256];
    for &byte in text {
        counts[usize::from(byte)] += 1;
    }
    let len = text.len() as f64;
    let cost = |count: u64| if count == 0 { 0.0 } else { count as f64 / len * (len / count as f64).log2() };
    counts.into_iter().map(cost).sum()
}

fn zstd_bits_per_byte(text: &[u8], level: i32) -> Result<f64, Failure> {
    let compressed = zstd::bulk::compress(text, level).map_err(|error| Failure::Usage(format!("zstd: {error}")))?;
    Ok(8.0 * compressed.len() as f64 / text.len() as f64)
}

/// `value` as a bar; `full` fills `width` characters.
fn bar(value: f64, full: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (value / full * 8.0 * width as f64).clamp(0.0, 8.0 * width as f64).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { name, heads, head_dim, dtype, chunk, seed, engine } = &self.settings;
        writeln!(f, "{name}: {} bytes", thousands(self.bytes))?;
        writeln!(f, "{heads} heads of {head_dim} + {BYTES}, {dtype}, chunks of {chunk}, seed {seed}")?;
        writeln!(f, "{engine}")?;
        let rows = [
            ("attention", self.bits_per_byte),
            ("zstd -19", self.zstd19_bits_per_byte),
            ("zstd -3", self.zstd3_bits_per_byte),
            ("order-0 entropy", self.order0_bits_per_byte),
        ];
        let full = rows.iter().map(|row| row.1).fold(0.0, f64::max);
        writeln!(f, "\n  {:<21}  bits per byte", "")?;
        for (name, bits) in rows {
            writeln!(f, "  {name:<21} {bits:>8.3}  {}", bar(bits, full, 44))?;
        }
        let full = self.segments.iter().map(|segment| segment.bits_per_byte).fold(0.0, f64::max);
        writeln!(f, "\n  {:<21}  bits per byte {:<32} top-1", "position", "")?;
        for Segment { start, end, bits_per_byte, top1 } in &self.segments {
            let range = format!("{:>9} ..{:>10}", thousands(*start), thousands(*end));
            let bar = bar(*bits_per_byte, full, 32);
            writeln!(f, "  {range:<21} {bits_per_byte:>8.3}  {bar:<34} {:>5.1} %", 100.0 * top1)?;
        }
        let whole = format!("{:>9} ..{:>10}", 0, thousands(self.bytes));
        writeln!(f, "  {whole:<21} {:>8.3}  {:<34} {:>5.1} %", self.bits_per_byte, "", 100.0 * self.top1)?;
        writeln!(
            f,
            "\n  attention {:>8.2} s  {:>11} bytes/s {:>11.1} GFLOP/s",
            self.attention_seconds,
            thousands(self.bytes_per_second as usize),
            self.gflops
        )?;
        writeln!(
            f,
            "  total     {:>8.2} s  of which mixing the heads {:.2} s",
            self.total_seconds, self.mixing_seconds
        )?;
        let Check { rows, largest_error, bound, ok } = self.check;
        let verdict = if ok { "ok" } else { "FAILED" };
        writeln!(
            f,
            "  check     {rows} rows against f64: largest error {largest_error:.1e}, bound {bound:.1e}: {verdict}"
        )?;
        if let Some(path) = &self.picture {
            writeln!(f, "  picture   {path}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_of_known_texts() {
        assert_eq!(order0_bits_per_byte(b"aaaa"), 0.0);
        assert!((order0_bits_per_byte(b"abab") - 1.0).abs() < 1e-12);
        let all: Vec<u8> = (0..=255).collect();
        assert!((order0_bits_per_byte(&all) - 8.0).abs() < 1e-12);
    }

    #[test]
    fn numbers_and_bars() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_048_576), "1,048,576");
        assert_eq!(bar(1.0, 2.0, 4), "██");
        assert_eq!(bar(2.0, 2.0, 4), "████");
        assert_eq!(bar(f64::NAN, 2.0, 4), "");
    }
}
