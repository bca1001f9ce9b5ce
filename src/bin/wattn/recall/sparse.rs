//! Sparse attention on the same text, beside dense: its cost, its captured weight, and the keys that it reads.

use core::fmt;

use serde::Serialize;
use wattn::{BlockListSpec, Element, HostTensor, LSE_EMPTY};

use super::context::Encoder;
use super::mask_plot::{self, MaskMap};
use super::{Job, Predicted, predict};
use crate::engine::{Engine, SetLists, SparsePrefix};
use crate::failure::Failure;
use crate::files;

/// Everything that attention over a text depends on.
pub(super) struct Texts<'a, T> {
    pub(super) engine: &'a Engine,
    pub(super) text: &'a [u8],
    pub(super) encoders: &'a [Encoder],
    pub(super) keys: &'a [HostTensor<T>],
    pub(super) softmax_scale: f32,
}

/// One kind of attention.
#[derive(Serialize)]
struct Row {
    attention: &'static str,
    bits_per_byte: f64,
    top1: f64,
    seconds: f64,
    /// Share of the weight of dense attention on the keys that were read, the mean over queries and heads.
    captured_mass: f64,
    keys_per_query: f64,
}

/// All kinds of attention, dense first.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Compared {
    rows: Vec<Row>,
    #[serde(skip)]
    picture: Option<String>,
}

pub(super) fn compare<T: Element>(job: &Job, texts: &Texts<'_, T>, dense: &Predicted) -> Result<Compared, Failure> {
    let queries = texts.text.len() - 1;
    let mut rows = vec![row("dense", dense, dense, (queries + 1) as f64 / 2.0)];
    let mut maps = Vec::new();
    for selector in &job.selectors {
        let Texts { engine, text, encoders, keys, softmax_scale } = *texts;
        let prefix = SparsePrefix::new(engine, selector, keys, text, softmax_scale)?;
        let mut seen = Seen::new(selector.name, queries);
        let predicted = predict(text, encoders, job.options.chunk, |q, start| {
            let chunk = prefix.attend_chunk(q, start)?;
            for (set, SetLists { blocks, selection }) in chunk.sets.iter().enumerate() {
                seen.count(set, selection, |q_block| blocks.list(0, 0, q_block), start, q.shape()[1]);
            }
            Ok(chunk.output)
        })?;
        rows.push(row(selector.name, &predicted, dense, seen.keys_per_query()));
        maps.push(seen.into_map());
    }
    let picture = match &job.mask_png {
        Some(path) => {
            files::write_atomically(path, "png", |temporary| mask_plot::draw(temporary, &job.name, &maps))?;
            Some(path.display().to_string())
        }
        None => None,
    };
    Ok(Compared { rows, picture })
}

fn row(attention: &'static str, predicted: &Predicted, dense: &Predicted, keys_per_query: f64) -> Row {
    let len = predicted.bits.len() as f64;
    // A row that sees none of its keys captures nothing.
    let mass =
        |(&sparse, &dense): (&f32, &f32)| if sparse == LSE_EMPTY { 0.0 } else { f64::from(sparse - dense).exp() };
    let mass: f64 = predicted.lse.iter().zip(&dense.lse).map(mass).sum();
    Row {
        attention,
        bits_per_byte: predicted.bits.iter().map(|&bits| f64::from(bits)).sum::<f64>() / len,
        top1: predicted.hits.iter().filter(|&&hit| hit).count() as f64 / len,
        seconds: predicted.attention.as_secs_f64(),
        captured_mass: mass / dense.lse.len() as f64,
        keys_per_query,
    }
}

/// The keys that the lists of a run let the queries see.
pub(crate) struct Seen {
    keys: u64,
    /// Number of queries, over all sets.
    lists: u64,
    map: MaskMap,
}

impl Seen {
    /// Counts for `len` queries, all still zero.
    pub(crate) fn new(name: &str, len: usize) -> Self {
        Self { keys: 0, lists: 0, map: MaskMap::new(name, len) }
    }

    /// Mean over queries and sets.
    pub(crate) fn keys_per_query(&self) -> f64 {
        self.keys as f64 / self.lists.max(1) as f64
    }

    pub(crate) fn into_map(self) -> MaskMap {
        self.map
    }

    /// Takes the lists of one set, `list_of` for each query block, for the queries at positions `start..start + len`.
    pub(crate) fn count<'a>(
        &mut self,
        set: usize,
        selection: &BlockListSpec,
        list_of: impl Fn(u32) -> &'a [u32],
        start: u32,
        len: u32,
    ) {
        for q_block in 0..len.div_ceil(selection.block_size_q) {
            let first = start + q_block * selection.block_size_q;
            let end = (first + selection.block_size_q).min(start + len);
            let list = list_of(q_block);
            for position in first..end {
                let seen = selection.seen_keys(list, position, end - 1);
                self.keys += seen.iter().map(|seen| seen.keys().len() as u64).sum::<u64>();
            }
            self.lists += u64::from(end - first);
            self.map.add(set, first..end, &selection.seen_keys(list, end - 1, end - 1));
        }
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n  attention     bits per byte    top-1   seconds  captured mass  keys per query")?;
        for Row { attention, bits_per_byte, top1, seconds, captured_mass, keys_per_query } in &self.rows {
            let top1 = 100.0 * top1;
            writeln!(
                f,
                "  {attention:<13} {bits_per_byte:>13.3} {top1:>6.1} % {seconds:>9.2} {captured_mass:>14.3} {keys_per_query:>15.1}"
            )?;
        }
        writeln!(f, "  Keys side by side have nothing to do with one another here, which is hard for")?;
        writeln!(f, "  any search through a tree: it captures less of the mass than it would in a")?;
        writeln!(f, "  language model.")?;
        if let Some(path) = &self.picture {
            writeln!(f, "  picture   {path}")?;
        }
        Ok(())
    }
}
