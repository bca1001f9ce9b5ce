//! Bytes and operations of a part, as the problem requires them, independent of kernels.

use super::{Case, Part};
use crate::{AttentionProblem, AttentionShape, BlockListSpec, HostBlockLists, SelectionProblem};

/// The least that a part must move and compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Every input that is needed, once, and every output, once.
    pub bytes: u64,
    /// Multiplications and additions of the products of q and k and of weights and v.
    pub operations: u64,
}

impl Counts {
    /// Counts of one part of a case. Attention to lists counts the keys in them; without lists, the keys of full lists.
    #[must_use]
    pub fn new(case: &Case, part: Part, blocks: Option<&HostBlockLists>) -> Self {
        let problem = case.problem();
        let Some(selection) = case.selection() else { return Self::dense(problem) };
        let select = || Self::of_selection(selection);
        let attend = || Self::attend(problem, &selection.blocks(), blocks);
        match part {
            Part::Dense => Self::dense(problem),
            Part::Select => select(),
            Part::Attend => attend(),
            Part::Sparse => select() + attend(),
            Part::Step => {
                // A step without a refresh selects nothing; a step that refreshes late stages only is counted as nothing too.
                let cycle = u64::from(case.cycle());
                let Self { bytes, operations } = select();
                Self { bytes: bytes / cycle, operations: operations / cycle } + attend()
            }
        }
    }

    /// Attention, to lists where the problem has some.
    #[cfg(feature = "tune")]
    pub(crate) fn of_attention(problem: &AttentionProblem, blocks: Option<&HostBlockLists>) -> Self {
        problem.blocks().map_or_else(|| Self::dense(problem), |spec| Self::attend(problem, spec, blocks))
    }

    fn dense(problem: &AttentionProblem) -> Self {
        let shape = problem.shape();
        let pairs: u64 = (0..shape.seq_len_q).map(|query| problem.keys_seen(query)).sum();
        let heads = u64::from(shape.batch_size) * u64::from(shape.num_q_heads);
        let keys = product(shape.k()) + product(shape.v());
        Self {
            bytes: rows_bytes(problem) + keys * problem.dtype().size_bytes(),
            operations: heads * pairs * per_pair(shape),
        }
    }

    /// Each list reads its keys once; together they read no key more often than once.
    fn attend(problem: &AttentionProblem, selection: &BlockListSpec, blocks: Option<&HostBlockLists>) -> Self {
        let shape = problem.shape();
        let [batch_size, num_sets, q_blocks, max_blocks] = selection.indices_shape(shape);
        let rows_per_set = u64::from(shape.num_q_heads / num_sets);
        let (mut keys_read, mut pairs) = (0, 0);
        for batch in 0..batch_size {
            let mut keys_of_batch = 0;
            for (set, q_block) in (0..num_sets).flat_map(|set| (0..q_blocks).map(move |q_block| (set, q_block))) {
                let listed = blocks.map_or(max_blocks, |blocks| blocks.list(batch, set, q_block).len() as u32);
                let queries = selection.block_size_q.min(shape.seq_len_q - q_block * selection.block_size_q);
                let keys = selection.keys_with(listed).min(shape.seq_len_kv.into());
                // A set that spans KV heads reads the keys of each.
                keys_of_batch += keys * u64::from(shape.num_kv_heads).div_ceil(num_sets.into());
                pairs += keys * u64::from(queries) * rows_per_set;
            }
            let all = u64::from(shape.seq_len_kv) * u64::from(shape.num_kv_heads);
            keys_read += keys_of_batch.min(all);
        }
        let width = u64::from(shape.head_dim + shape.head_dim_v) * problem.dtype().size_bytes();
        let lists = blocks.map_or(0, |blocks| 4 * (blocks.block_indices().len() + blocks.block_counts().len()) as u64);
        Self { bytes: rows_bytes(problem) + lists + keys_read * width, operations: pairs * per_pair(shape) }
    }

    /// A selection that computes all stages.
    pub(crate) fn of_selection(selection: &SelectionProblem) -> Self {
        let shape = selection.shape();
        let lists = selection.blocks().num_lists(shape);
        let [probes, samples] = selection.method().selector().num_probes(shape);
        let heads = u64::from(selection.blocks().granularity.heads_per_set(shape));
        let element = selection.dtype().size_bytes();
        let all = product(shape.k());
        let keys = probes * lists * u64::from(shape.head_dim) * u64::from(shape.num_kv_heads);
        Self {
            bytes: element * (product(shape.q()) + keys.min(all)),
            operations: lists * heads * probes * samples * 2 * u64::from(shape.head_dim),
        }
    }
}

impl core::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, operations: self.operations + other.operations }
    }
}

fn product(shape: [u32; 4]) -> u64 {
    shape.iter().map(|&axis| u64::from(axis)).product()
}

/// q, out and lse.
fn rows_bytes(problem: &AttentionProblem) -> u64 {
    let shape = problem.shape();
    product(shape.q()) * problem.dtype().size_bytes()
        + product(shape.out()) * problem.out_dtype().size_bytes()
        + product(shape.lse()) * 4
}

fn per_pair(shape: &AttentionShape) -> u64 {
    2 * u64::from(shape.head_dim + shape.head_dim_v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Series;
    use crate::{DType, Hip, Preset, SelectionMethod};

    #[test]
    fn dense_counts_follow_from_the_shape() {
        // 3 queries at the end of 5 keys see 3, 4 and 5 of them.
        let case = Case::dense(Series::Gqa, [4, 2, 3, 5], 8, DType::F16);
        let Counts { bytes, operations } = Counts::new(&case, Part::Dense, None);
        assert_eq!(operations, 4 * (3 + 4 + 5) * 2 * (8 + 8));
        let (q, k, out, lse) = (3 * 4 * 8, 5 * 2 * 8, 3 * 4 * 8, 3 * 4);
        assert_eq!(bytes, 2 * (q + 2 * k + out) + 4 * lse);
    }

    #[test]
    fn attention_to_lists_counts_their_keys() {
        let case = Case::sparse(Series::SparseDecode, "hip", [2, 2, 1, 131_072], Hip::decode());
        let blocks = HostBlockLists::empty(case.selection().unwrap().blocks().indices_shape(case.problem().shape()));
        let empty = Counts::new(&case, Part::Attend, Some(&blocks));
        let full = Counts::new(&case, Part::Attend, None);
        assert_eq!(empty.operations, 2 * (16 + 256) * 4 * 128);
        assert_eq!(full.operations, 2 * (16 + 256 + 512) * 4 * 128);
        let dense = Counts::new(&case, Part::Dense, None);
        assert!(dense.bytes > 100 * full.bytes && dense.operations > 100 * full.operations);
        let [select, sparse, step] =
            [Part::Select, Part::Sparse, Part::Step].map(|part| Counts::new(&case, part, None));
        assert_eq!(sparse, select + full);
        assert_eq!(step.operations, select.operations / 8 + full.operations);
    }

    #[cfg(feature = "tune")]
    #[test]
    fn each_sequence_counts() {
        let case = Case::sparse(Series::SparsePrefill, "hip", [4, 2, 96, 4096], Hip::default());
        for problem in [case.problem().clone(), case.sparse_problem().unwrap()] {
            let of = |batch_size| {
                let problem =
                    AttentionProblem { shape: AttentionShape { batch_size, ..*problem.shape() }, ..problem.clone() };
                Counts::of_attention(&problem, None)
            };
            let (one, three) = (of(1), of(3));
            assert_eq!(three, one + one + one);
            assert_eq!(one == Counts::new(&case, Part::Dense, None), problem.blocks().is_none());
        }
    }

    #[test]
    fn lists_together_read_no_key_twice() {
        let case = Case::sparse(Series::SparsePrefill, "hip", [2, 2, 1024, 2048], Hip::default());
        let attend = Counts::new(&case, Part::Attend, None);
        assert_eq!(attend.bytes, Counts::new(&case, Part::Dense, None).bytes);
    }

    #[test]
    fn probes_grow_with_the_logarithm_or_the_length() {
        let shape = |keys| *Case::dense(Series::Decode, [1, 1, 1, keys], 128, DType::F32).problem().shape();
        let hip: SelectionMethod = Hip::decode().into();
        assert_eq!(hip.selector().num_probes(&shape(700)), [0, 1]);
        assert_eq!(hip.selector().num_probes(&shape(512 * 256 + 272)), [1024 * 8, 1]);
        let infinite: SelectionMethod = Preset::ThreeK.into();
        let [short, long] = [1 << 18, 1 << 20].map(|keys| infinite.selector().num_probes(&shape(keys))[0]);
        // 16 comparisons for each chunk of 256 keys of the first stage; the later ones cost the same.
        assert_eq!(long - short, ((1 << 20) - (1 << 18)) / 256 * 16);
    }
}
