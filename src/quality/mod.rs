//! The losses of a selection: captured attention mass, recall against the true best blocks, error of the output.
//!
//! ```text
//! captured mass = exp(lse of the sparse row - lse of the dense row)
//! ```
//!
//! is the share of a row's softmax weight that lies on the keys it still attends to: 1 loses nothing. It needs two lse
//! tensors and nothing else. A [`MassReport`] collects it over layers and heads and shows which to leave dense.
//!
//! Everything here runs on the host; functions that read every key ([`exact_blocks`], [`block_recall`], [`compare`]) need the feature
//! `cpu`. [`synthetic`] makes inputs with known structure.

mod baselines;
#[cfg(feature = "cpu")]
mod exact;
mod random;
mod report;
pub mod synthetic;
#[cfg(feature = "cpu")]
mod table;

pub use baselines::{no_blocks, random_blocks};
#[cfg(feature = "cpu")]
pub use exact::{BlockRecall, block_recall, exact_blocks};
pub use report::{LayerMass, MassReport, MassSummary};
#[cfg(feature = "cpu")]
pub use table::{Quality, QualityRow, QualityTable, compare, synthetic_table};

use crate::{Error, HostTensor, Result, SelectionProblem};

/// The share of each row's attention weight that the sparse row keeps, `exp(lse_sparse - lse_dense)` in `[0, 1]`, from
/// two `[batch, seq, head, 1]` tensors of natural logs, in that shape.
///
/// A row that sees no key in either keeps everything; a row that lost all its keys keeps nothing. Values above 1 come from rounding only and
/// are clamped. NaN stays.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn captured_mass(sparse_lse: &HostTensor, dense_lse: &HostTensor) -> Result<HostTensor> {
    same_shape("sparse_lse", sparse_lse, dense_lse)?;
    let mass = |(&sparse, &dense): (&f32, &f32)| {
        // LSE_EMPTY is finite: in both rows it gives exp(0), in one of them 0.
        let mass = (f64::from(sparse) - f64::from(dense)).exp();
        if mass > 1.0 { 1.0 } else { mass as f32 }
    };
    HostTensor::new(sparse_lse.shape(), sparse_lse.data().iter().zip(dense_lse.data()).map(mass).collect())
}

/// `|out - dense_out| / |dense_out|` over all elements, Euclidean norms in f64. 0 when both are 0 everywhere.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn output_error(out: &HostTensor, dense_out: &HostTensor) -> Result<f64> {
    same_shape("out", out, dense_out)?;
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&sparse, &dense) in out.data().iter().zip(dense_out.data()) {
        let (sparse, dense) = (f64::from(sparse), f64::from(dense));
        difference += (sparse - dense).powi(2);
        norm += dense.powi(2);
    }
    Ok(if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() })
}

fn same_shape(tensor: &'static str, given: &HostTensor, other: &HostTensor) -> Result<()> {
    let (expected, actual) = (other.shape(), given.shape());
    if expected == actual { Ok(()) } else { Err(Error::Shape { tensor, expected, actual }) }
}

/// One query block of one sequence, and the blocks of keys that its lists choose among.
#[cfg_attr(not(feature = "cpu"), expect(dead_code, reason = "random lists look at no query"))]
struct Candidates {
    /// Queries of the block, half open.
    queries: core::ops::Range<u32>,
    /// Position of the block's first query; negative where there are fewer keys than queries.
    p_min: i64,
    /// First key of the first candidate block.
    start: u32,
    /// Candidate blocks, one after the other.
    len: u32,
}

impl Candidates {
    /// `problem` must have been validated.
    fn new(problem: &SelectionProblem, seq_len_kv: u32, q_block: u32) -> Self {
        let (shape, blocks) = (problem.shape(), problem.blocks());
        let first = q_block * blocks.block_size_q;
        let queries = first..(first.saturating_add(blocks.block_size_q)).min(shape.seq_len_q);
        let position = |query: u32| i64::from(query) + i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
        let (p_min, p_max) = (position(queries.start), position(queries.end - 1));
        let start = blocks.sink_size;
        let candidates = || problem.method().selector().num_candidates(problem, seq_len_kv, [p_min, p_max]);
        let len = if problem.is_dense(p_max) { 0 } else { candidates() };
        Self { queries, p_min, start, len }
    }
}

/// `(batch, set, q_block)` of every list, in the order of memory.
fn lists([batch_size, sets, q_blocks, _]: [u32; 4]) -> Vec<(u32, u32, u32)> {
    let of_batch = move |batch| (0..sets).flat_map(move |set| (0..q_blocks).map(move |q_block| (batch, set, q_block)));
    (0..batch_size).flat_map(of_batch).collect()
}
