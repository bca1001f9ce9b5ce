//! Modifiers of scores, on tiles of scores in natural units.

use super::simd::{HIDDEN, LANES, Tanh};
use crate::problem::{Bias, ScoreMod};
use crate::{AnyHostTensor, AttentionProblem, Element, LEAST_SCORE};
use core::f32::consts::LOG2_E;
use pulp::{Simd, WithSimd};

/// The chain of a problem, with the tensors of one sequence.
pub(super) struct Chain<'a> {
    links: Vec<Link<'a>>,
    hides_keys: bool,
    /// The first query's position.
    offset: i32,
}

enum Link<'a> {
    Softcap(f32),
    /// The slope of each query head.
    Alibi(Vec<f32>),
    Bias(BiasData<'a>),
}

/// A bias of one sequence.
struct BiasData<'a> {
    tensor: AnyHostTensor<'a>,
    /// The sequence's first element.
    first: usize,
    /// Steps from one head, query and key to the next; 0 along axes of size 1.
    strides: [usize; 3],
}

impl<'a> Chain<'a> {
    /// `None` where scores stay as they are. The tensors must have been validated.
    pub(super) fn new(
        problem: &AttentionProblem,
        tensors: &[(&str, AnyHostTensor<'a>)],
        batch: u32,
        seq_len_kv: u32,
    ) -> Option<Self> {
        let shape = problem.shape();
        let links: Vec<_> = problem
            .score_mods()
            .iter()
            .map(|modifier| match modifier {
                ScoreMod::Softcap(softcap) => Link::Softcap(softcap.cap()),
                ScoreMod::Alibi(alibi) => Link::Alibi(alibi.slopes(shape.num_q_heads)),
                ScoreMod::Bias(bias) => Link::Bias(BiasData::new(bias, tensors, batch)),
            })
            .collect();
        // Lengths fit 30 bits.
        let offset = seq_len_kv as i32 - shape.seq_len_q as i32;
        let hides_keys = problem.score_mods().iter().any(ScoreMod::hides_keys);
        (!links.is_empty()).then_some(Self { links, hides_keys, offset })
    }

    /// Whether a key can be hidden from a row that the mask lets see it.
    pub(super) const fn hides_keys(&self) -> bool {
        self.hides_keys
    }

    /// Whether the key is hidden from the row of a query head, whatever its finite score.
    pub(super) fn hides(&self, [q_index, head]: [usize; 2], key: usize) -> bool {
        let mut score = [0.0];
        if self.hides_keys {
            pulp::Arch::new().dispatch(ModifyRow {
                chain: self,
                row: [q_index, head],
                keys: &[key as u32],
                scores: &mut score,
            });
        }
        score[0] == HIDDEN
    }

    fn finish(&self, scores: &mut [f32]) {
        for score in scores {
            // A NaN stays.
            let is_hidden = self.hides_keys && *score <= LEAST_SCORE;
            *score = if is_hidden { HIDDEN } else { *score * LOG2_E };
        }
    }
}

impl<'a> BiasData<'a> {
    fn new(bias: &Bias, tensors: &[(&str, AnyHostTensor<'a>)], batch: u32) -> Self {
        let named = tensors.iter().find(|(name, _)| *name == bias.name());
        let (_, tensor) = *named.expect("validated inputs have the tensor of every bias");
        let [batches, heads, queries, keys] = bias.shape().map(|axis| axis as usize);
        let batch = if batches == 1 { 0 } else { bias.batch_index().of(batch) as usize };
        let stride = |axis: usize, stride: usize| if axis == 1 { 0 } else { stride };
        let strides = [stride(heads, queries * keys), stride(queries, keys), stride(keys, 1)];
        Self { tensor, first: batch * heads * queries * keys, strides }
    }

    fn row(&self, [q_index, head]: [usize; 2]) -> usize {
        self.first + head * self.strides[0] + q_index * self.strides[1]
    }

    /// Adds an element to each score, by its place.
    #[inline(always)]
    fn add(&self, scores: &mut [f32], places: impl Iterator<Item = usize>) {
        match self.tensor {
            AnyHostTensor::F32(tensor) => add(tensor.data(), scores, places),
            AnyHostTensor::F16(tensor) => add(tensor.data(), scores, places),
            AnyHostTensor::BF16(tensor) => add(tensor.data(), scores, places),
        }
    }
}

#[inline(always)]
fn add<T: Element>(data: &[T], scores: &mut [f32], places: impl Iterator<Item = usize>) {
    scores.iter_mut().zip(places).for_each(|(score, at)| *score += data[at].to_f32());
}

/// What the chain needs to know of the rows of a tile, one number of each for every row.
pub(super) struct ChainRows {
    /// The query's position.
    positions: Vec<i32>,
    /// For each link: the slopes of the rows' heads.
    slopes: Vec<Vec<f32>>,
    /// For each link: where the rows begin in the bias.
    places: Vec<Vec<usize>>,
}

impl ChainRows {
    /// `rows` are `[query, head]`.
    pub(super) fn new(chain: &Chain<'_>, rows: &[[usize; 2]]) -> Self {
        let rows = || rows.iter().copied();
        let positions = rows().map(|[q_index, _]| q_index as i32 + chain.offset).collect();
        let slopes = chain.links.iter().map(|link| match link {
            Link::Alibi(slopes) => rows().map(|[_, head]| slopes[head]).collect(),
            Link::Softcap(_) | Link::Bias(_) => Vec::new(),
        });
        let places = chain.links.iter().map(|link| match link {
            Link::Bias(bias) => rows().map(|row| bias.row(row)).collect(),
            Link::Softcap(_) | Link::Alibi(_) => Vec::new(),
        });
        Self { positions, slopes: slopes.collect(), places: places.collect() }
    }
}

/// The scores of a tile's keys, `[keys, ld]` with the rows side by side; become exponents of 2.
pub(super) struct ModifyColumns<'a, K> {
    pub(super) chain: &'a Chain<'a>,
    pub(super) rows: &'a ChainRows,
    pub(super) keys: K,
    pub(super) scores: &'a mut [f32],
    pub(super) ld: usize,
}

impl<K: Iterator<Item = usize>> WithSimd for ModifyColumns<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { chain, rows, keys, scores, ld } = self;
        let num_rows = rows.positions.len();
        debug_assert!(ld.is_multiple_of(LANES));
        for (key, scores) in keys.zip(scores.chunks_exact_mut(ld)) {
            for (at, link) in chain.links.iter().enumerate() {
                match link {
                    Link::Softcap(cap) => Tanh { values: scores, scale: *cap }.with_simd(simd),
                    Link::Alibi(_) => {
                        let of_rows = rows.slopes[at].iter().zip(&rows.positions);
                        for (score, (slope, position)) in scores.iter_mut().zip(of_rows) {
                            *score -= slope * (position - key as i32).abs() as f32;
                        }
                    }
                    Link::Bias(bias) => {
                        let step = key * bias.strides[2];
                        bias.add(&mut scores[..num_rows], rows.places[at].iter().map(|place| place + step));
                    }
                }
            }
            chain.finish(scores);
        }
    }
}

/// The scores of one row `[query, head]`, side by side; become exponents of 2.
pub(super) struct ModifyRow<'a> {
    pub(super) chain: &'a Chain<'a>,
    pub(super) row: [usize; 2],
    pub(super) keys: &'a [u32],
    pub(super) scores: &'a mut [f32],
}

impl WithSimd for ModifyRow<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { chain, row, keys, scores } = self;
        for link in &chain.links {
            match link {
                Link::Softcap(cap) => Tanh { values: scores, scale: *cap }.with_simd(simd),
                Link::Alibi(slopes) => {
                    let (slope, position) = (slopes[row[1]], row[0] as i32 + chain.offset);
                    for (score, &key) in scores.iter_mut().zip(keys) {
                        *score -= slope * (position - key as i32).abs() as f32;
                    }
                }
                Link::Bias(bias) => {
                    let first = bias.row(row);
                    bias.add(scores, keys.iter().map(|&key| first + key as usize * bias.strides[2]));
                }
            }
        }
        chain.finish(scores);
    }
}
