//! Inputs with known structure, for comparing selections.
//!
//! Queries look for the direction of one or more keys: the score of such a key is about 12, the scores of the others are normal with variance
//! `144 / head_dim`.

use core::fmt;

use super::random::Random;
use crate::{AttentionShape, Error, HostInputs, HostTensor, Result, parallel};

/// The score that a query gives to a key whose direction it looks for, with the default scale.
const PEAK: f32 = 12.0;

/// Noise in a query, beside a direction of length 1 in each component.
const NOISE: f32 = 0.25;

/// The arrangement of the keys of a synthetic set, and the keys that queries look for.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Pattern {
    /// Queries and keys are independent normals: no key is better than chance.
    Independent,
    /// Keys are an autoregressive process of order 1, `k[u] = rho k[u - 1] + sqrt(1 - rho^2) noise`: neighbours are alike, distant keys
    /// less so, as HiP assumes. Runs of neighbouring queries look for the same random earlier key.
    Correlated {
        /// Correlation of neighbouring keys, from 0 to 1.
        rho: f32,
        /// Queries that look for the same key, from 1.
        run: u32,
    },
    /// Independent keys with a few needles among them. Each query looks for one needle.
    Needles {
        /// Needles for each KV head, from 1.
        count: u32,
        /// Number of keys on either side that share the needle's direction, the less the farther: 0 for a needle of one key, which no
        /// search that samples other keys first can find.
        width: u32,
    },
    /// Independent keys except every `stride`-th, which all queries look for.
    Strided {
        /// Keys from one to the next, from 1.
        stride: u32,
    },
    /// Independent keys; a query looks for the key at a fixed distance behind it.
    Diagonal {
        /// Distance from a query to its key.
        distance: u32,
    },
}

impl Pattern {
    /// The patterns of the published tables.
    pub const STANDARD: [Self; 6] = [
        Self::Independent,
        Self::Correlated { rho: 0.99, run: 16 },
        Self::Needles { count: 16, width: 64 },
        Self::Needles { count: 16, width: 0 },
        Self::Strided { stride: 128 },
        Self::Diagonal { distance: 3000 },
    ];

    /// q, k and v of this pattern; the same for the same shape and seed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a field that its rule forbids.
    pub fn generate(self, shape: &AttentionShape, seed: u64) -> Result<SyntheticInputs> {
        self.validate()?;
        let mut k = normals(shape.k(), Random::new(seed, 1));
        self.arrange(&mut k, Random::new(seed, 2));
        Ok(SyntheticInputs { q: self.queries(shape, &k, seed), k, v: normals(shape.v(), Random::new(seed, 3)) })
    }

    fn validate(self) -> Result<()> {
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        match self {
            Self::Correlated { rho, .. } if !(0.0..=1.0).contains(&rho) => {
                Err(Error::Argument { argument: "rho", rule: "must be from 0 to 1" })
            }
            Self::Correlated { run: 0, .. } => invalid("run", 0, "must be at least 1"),
            Self::Needles { count: 0, .. } => invalid("count", 0, "must be at least 1"),
            Self::Strided { stride: 0 } => invalid("stride", 0, "must be at least 1"),
            _ => Ok(()),
        }
    }

    /// Gives independent keys their structure.
    fn arrange(self, k: &mut HostTensor, random: Random) {
        let [batch_size, seq_len_kv, num_kv_heads, dim] = k.shape().map(|axis| axis as usize);
        let row = |batch: usize, key: usize, head: usize| ((batch * seq_len_kv + key) * num_kv_heads + head) * dim;
        for (batch, head) in (0..batch_size).flat_map(|batch| (0..num_kv_heads).map(move |head| (batch, head))) {
            // `key` becomes `share * from + sqrt(1 - share^2) * key`, which keeps its expected length.
            let blend = |data: &mut [f32], key: usize, from: &[f32], share: f32| {
                let rest = (1.0 - share * share).sqrt();
                let to = &mut data[row(batch, key, head)..][..dim];
                to.iter_mut().zip(from).for_each(|(to, from)| *to = share * from + rest * *to);
            };
            let data = k.data_mut();
            match self {
                Self::Independent | Self::Diagonal { .. } => {}
                Self::Correlated { rho, .. } => {
                    for key in 1..seq_len_kv {
                        let before = data[row(batch, key - 1, head)..][..dim].to_vec();
                        blend(data, key, &before, rho);
                    }
                }
                Self::Needles { count, width } => {
                    for needle in self.needles(seq_len_kv, count, batch * num_kv_heads + head, random) {
                        let direction = data[row(batch, needle, head)..][..dim].to_vec();
                        let width = width as usize;
                        for key in needle.saturating_sub(width)..(needle + width + 1).min(seq_len_kv) {
                            let share = 1.0 - key.abs_diff(needle) as f32 / (width + 1) as f32;
                            if key != needle {
                                blend(data, key, &direction, share);
                            }
                        }
                    }
                }
                Self::Strided { stride } => {
                    let direction = data[row(batch, 0, head)..][..dim].to_vec();
                    for key in (0..seq_len_kv).step_by(stride as usize) {
                        blend(data, key, &direction, 1.0);
                    }
                }
            }
        }
    }

    /// The needles of a KV head of a sequence, ascending.
    fn needles(self, seq_len_kv: usize, count: u32, stream: usize, random: Random) -> Vec<usize> {
        if seq_len_kv == 0 {
            return Vec::new();
        }
        let count = u64::from(count);
        let draw = |needle| random.below(stream as u64 * count + needle, seq_len_kv as u64) as usize;
        let mut needles: Vec<usize> = (0..count).map(draw).collect();
        needles.sort_unstable();
        needles
    }

    /// Queries that look for arranged keys.
    fn queries(self, shape: &AttentionShape, k: &HostTensor, seed: u64) -> HostTensor {
        let mut q = normals(shape.q(), Random::new(seed, 4));
        let (random, needle_random) = (Random::new(seed, 5), Random::new(seed, 2));
        let [_, seq_len_q, num_q_heads, dim] = shape.q().map(|axis| axis as usize);
        let seq_len_kv = shape.seq_len_kv as usize;
        let peak = PEAK / (dim as f32).sqrt();
        // The number of keys before and at a query.
        let seen = |query: usize| (query + 1 + seq_len_kv).saturating_sub(seq_len_q);
        parallel::for_each_chunk(q.data_mut(), dim, |number, row| {
            let (head, query) = (number % num_q_heads, number / num_q_heads % seq_len_q);
            let (batch, kv_head) = (number / num_q_heads / seq_len_q, head / shape.group_size() as usize);
            let draw = |index: usize, end: usize| random.below(index as u64, end as u64) as usize;
            let target = match self {
                Self::Independent => None,
                Self::Correlated { run, .. } => {
                    let first = query - query % run as usize;
                    let index = (batch * num_q_heads + head) * seq_len_q + first;
                    (seen(first) > 0).then(|| draw(index, seen(first)))
                }
                Self::Needles { count, .. } => {
                    let stream = batch * shape.num_kv_heads as usize + kv_head;
                    let mut needles = self.needles(seq_len_kv, count, stream, needle_random);
                    needles.retain(|&needle| needle < seen(query));
                    (!needles.is_empty()).then(|| needles[draw(number, needles.len())])
                }
                Self::Strided { .. } => (seq_len_kv > 0).then_some(0),
                Self::Diagonal { distance } => seen(query).checked_sub(distance as usize + 1),
            };
            match target.map(|key| k.row(batch, key, kv_head)) {
                Some(key) => row.iter_mut().zip(key).for_each(|(x, key)| *x = peak * (key + NOISE * *x)),
                None => row.iter_mut().for_each(|x| *x *= peak),
            }
        });
        q
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Independent => f.write_str("independent"),
            Self::Correlated { rho, .. } => write!(f, "correlated {rho}"),
            Self::Needles { width: 0, .. } => f.write_str("needles of one key"),
            Self::Needles { width, .. } => write!(f, "needles +-{width}"),
            Self::Strided { stride } => write!(f, "strided {stride}"),
            Self::Diagonal { distance } => write!(f, "diagonal {distance}"),
        }
    }
}

/// Neighbouring numbers that one task draws.
const NORMALS_PER_TASK: usize = 4096;

fn normals(shape: [u32; 4], random: Random) -> HostTensor {
    let mut tensor = HostTensor::zeros(shape);
    parallel::for_each_chunk(tensor.data_mut(), NORMALS_PER_TASK, |chunk, numbers| {
        for (index, x) in (chunk * NORMALS_PER_TASK..).zip(numbers) {
            *x = random.normal(index as u64);
        }
    });
    tensor
}

/// q, k and v of a [`Pattern`].
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticInputs {
    /// `[batch, seq_len_q, num_q_heads, head_dim]`.
    pub q: HostTensor,
    /// `[batch, seq_len_kv, num_kv_heads, head_dim]`.
    pub k: HostTensor,
    /// `[batch, seq_len_kv, num_kv_heads, head_dim_v]`.
    pub v: HostTensor,
}

impl SyntheticInputs {
    /// As inputs of a call.
    #[must_use]
    pub const fn inputs(&self) -> HostInputs<'_> {
        HostInputs::new(&self.q, &self.k, &self.v)
    }
}
