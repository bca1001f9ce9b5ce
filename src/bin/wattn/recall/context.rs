//! Contexts as vectors: the text just before a position.
//!
//! `context(i) = sum over lag < reach of sqrt(w[lag]) * sign[lag, text[i - 1 - lag]]`, with `w` falling geometrically
//! and summing to 1. Two contexts that agree in the lags of a set S have an expected product `head_dim * sum(w[S])`;
//! everything else adds noise of about `sqrt(head_dim)`. With `softmax_scale = 1 / head_dim` a score is therefore
//! `sharpness * (agreement + noise / sqrt(head_dim))`.

use rayon::prelude::*;
use wattn::{Element, HostTensor, Result};

/// Longest text.
pub(crate) const MAX_LENGTH: usize = 1 << 20;

/// The number of entries of [`HEADS`].
pub(crate) const MAX_HEADS: u32 = HEADS.len() as u32;

/// How one head looks at the past.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadSpec {
    /// Number of bytes that it looks back.
    pub(crate) reach: usize,
    /// Weight of a lag relative to the lag before it.
    pub(crate) decay: f64,
    /// Score of a full match. An n-th of all keys matches by chance, so it must exceed `ln n` by some margin; noise
    /// costs about `sharpness^2 / (2 head_dim)`, so it must not be much more.
    pub(crate) sharpness: f64,
}

/// The best single head first; each further head adds the most to the mixture of the heads before it. Tuned on English text of 32 KiB at
/// `head_dim` 128, each head alone and then the mixture.
const HEADS: [HeadSpec; 8] = [
    HeadSpec { reach: 4, decay: 0.7, sharpness: 18.0 },
    HeadSpec { reach: 2, decay: 0.6, sharpness: 12.0 },
    HeadSpec { reach: 16, decay: 0.92, sharpness: 40.0 },
    HeadSpec { reach: 6, decay: 0.75, sharpness: 24.0 },
    HeadSpec { reach: 3, decay: 0.6, sharpness: 15.0 },
    HeadSpec { reach: 24, decay: 0.95, sharpness: 48.0 },
    HeadSpec { reach: 5, decay: 0.7, sharpness: 20.0 },
    HeadSpec { reach: 8, decay: 0.85, sharpness: 32.0 },
];

/// The first `count` heads.
pub(crate) fn heads(count: u32) -> &'static [HeadSpec] {
    &HEADS[..HEADS.len().min(count as usize)]
}

/// Turns positions of a text into context vectors of one head.
pub(crate) struct Encoder {
    head: HeadSpec,
    head_dim: usize,
    /// `[reach, 256, head_dim]`, weights included.
    table: Vec<f32>,
}

impl Encoder {
    /// `index` keeps the vectors of different heads independent, so that their noise averages out.
    pub(crate) fn new(head: HeadSpec, index: usize, head_dim: usize, seed: u64) -> Self {
        let total: f64 = (0..head.reach).map(|lag| head.decay.powi(lag as i32)).sum();
        let row = |entry: usize| {
            let weight = (head.decay.powi((entry / 256) as i32) / total).sqrt() as f32;
            let words_per_row = head_dim.div_ceil(64);
            let first = (index * (256 << 8) + entry) * words_per_row;
            (0..head_dim).map(move |d| {
                let bits = splitmix64(seed, (first + d / 64) as u64);
                if bits >> (d % 64) & 1 == 1 { weight } else { -weight }
            })
        };
        let table = (0..head.reach * 256).flat_map(row).collect();
        Self { head, head_dim, table }
    }

    /// The context that ends before position `end`, times `factor`. Lags before the start of the text add nothing.
    pub(crate) fn encode(&self, text: &[u8], end: usize, factor: f32, to: &mut [f32]) {
        to.fill(0.0);
        for (lag, &byte) in text[..end].iter().rev().take(self.head.reach).enumerate() {
            let start = (lag * 256 + usize::from(byte)) * self.head_dim;
            for (to, from) in to.iter_mut().zip(&self.table[start..]) {
                *to += factor * from;
            }
        }
    }

    /// Keys of all positions, `[1, len, 1, head_dim]`: key j is the context before byte j.
    pub(crate) fn keys<T: Element>(&self, text: &[u8]) -> Result<HostTensor<T>> {
        let mut data = vec![T::default(); text.len() * self.head_dim];
        data.par_chunks_exact_mut(self.head_dim).enumerate().for_each_init(
            || vec![0.0; self.head_dim],
            |row, (end, to)| {
                self.encode(text, end, 1.0, row);
                store(row, to);
            },
        );
        HostTensor::new([1, text.len() as u32, 1, self.head_dim as u32], data)
    }
}

/// Queries at `start..end`, `[1, end - start, heads, head_dim]`: query i is the context that ends with byte i.
pub(crate) fn queries<T: Element>(
    encoders: &[Encoder],
    text: &[u8],
    start: usize,
    end: usize,
) -> Result<HostTensor<T>> {
    let head_dim = encoders.first().map_or(0, |encoder| encoder.head_dim);
    let width = encoders.len() * head_dim;
    let mut data = vec![T::default(); (end - start) * width];
    data.par_chunks_exact_mut(width.max(1)).enumerate().for_each_init(
        || vec![0.0; head_dim],
        |row, (index, to)| {
            for (encoder, to) in encoders.iter().zip(to.chunks_exact_mut(head_dim)) {
                encoder.encode(text, start + index + 1, encoder.head.sharpness as f32, row);
                store(row, to);
            }
        },
    );
    HostTensor::new([1, (end - start) as u32, encoders.len() as u32, head_dim as u32], data)
}

fn store<T: Element>(from: &[f32], to: &mut [T]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to = T::from_f32(from);
    }
}

/// Random bits as a function of a seed and a counter (Steele, Lea and Flood's SplitMix64).
pub(crate) fn splitmix64(seed: u64, counter: u64) -> u64 {
    let mut z = seed.wrapping_add(counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"the cat sat on the mat; the dog sat on the log";

    fn score(encoder: &Encoder, a: usize, b: usize) -> f32 {
        let (mut q, mut k) = (vec![0.0; encoder.head_dim], vec![0.0; encoder.head_dim]);
        encoder.encode(TEXT, a, 1.0, &mut q);
        encoder.encode(TEXT, b, 1.0, &mut k);
        q.iter().zip(&k).map(|(q, k)| q * k).sum::<f32>() / encoder.head_dim as f32
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs of the reference implementation for seed 1234567.
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        for (counter, expected) in (0..).zip(expected) {
            assert_eq!(splitmix64(1_234_567, counter), expected);
        }
    }

    #[test]
    fn equal_contexts_score_high_and_others_low() {
        let encoder = Encoder::new(heads(1)[0], 0, 256, 1);
        // Two positions behind " on the "; then two positions whose contexts share nothing.
        let (first, second) = (19, 43);
        assert_eq!(&TEXT[first - 8..first], &TEXT[second - 8..second]);
        let full = score(&encoder, first, second);
        assert!((score(&encoder, first, first) - full).abs() < 1e-6, "same reach, same vector");
        assert!(full > 0.7, "{full}");
        assert!(score(&encoder, 6, 17).abs() < 0.35);
    }

    #[test]
    fn lags_before_the_start_add_nothing() {
        let encoder = Encoder::new(heads(3)[2], 2, 64, 1);
        let mut row = vec![1.0; 64];
        encoder.encode(TEXT, 0, 1.0, &mut row);
        assert!(row.iter().all(|&x| x == 0.0));
        let norm = |end| score(&encoder, end, end);
        assert!(norm(1) < norm(16));
    }

    #[test]
    fn query_i_equals_key_i_plus_1_but_for_sharpness() {
        let encoders: Vec<Encoder> =
            heads(2).iter().enumerate().map(|(index, &head)| Encoder::new(head, index, 32, 7)).collect();
        let q = queries::<f32>(&encoders, TEXT, 5, 11).unwrap();
        assert_eq!(q.shape(), [1, 6, 2, 32]);
        for (head, encoder) in encoders.iter().enumerate() {
            let k = encoder.keys::<f32>(TEXT).unwrap();
            for row in 0..6 {
                for (q, k) in q.row(0, row, head).iter().zip(k.row(0, 5 + row + 1, 0)) {
                    assert!((q - k * encoder.head.sharpness as f32).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    fn later_bytes_do_not_leak_into_queries() {
        let encoders = [Encoder::new(heads(1)[0], 0, 16, 3)];
        let mut other = TEXT.to_vec();
        other[20..].fill(b'#');
        let query = |text| queries::<f32>(&encoders, text, 0, 20).unwrap();
        assert_eq!(query(TEXT), query(&other));
    }
}
