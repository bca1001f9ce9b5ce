//! The best blocks by their definition.

use wattn::{HeadReduction, HostTensor, Mask, SelectionMethod, SelectionProblem};

/// One list of the best blocks from the definition: one query and one key at a time, in f64.
pub(crate) struct Definition<'a> {
    pub(crate) problem: &'a SelectionProblem,
    pub(crate) q: &'a HostTensor,
    pub(crate) k: &'a HostTensor,
    pub(crate) seq_len_kv: u32,
    pub(crate) batch: u32,
    pub(crate) q_block: u32,
}

impl Definition<'_> {
    fn position(&self, query: u32) -> i64 {
        i64::from(query) + i64::from(self.seq_len_kv) - i64::from(self.problem.shape().seq_len_q)
    }

    fn queries(&self) -> Vec<u32> {
        let of_block = |query: &u32| query / self.problem.blocks().block_size_q == self.q_block;
        (0..self.problem.shape().seq_len_q).filter(of_block).collect()
    }

    /// Keys nearer than this are no candidates.
    fn window(&self) -> i64 {
        (i64::from(self.problem.blocks().window_size) - i64::from(self.problem.margin())).max(0)
    }

    /// The vectors of a head that score keys, and the last key that each may look at.
    fn scoring(&self, head: u32) -> Vec<(Vec<f64>, i64)> {
        let row = |&query: &u32| self.q.row(self.batch as usize, query as usize, head as usize);
        let wide = |query: &u32| row(query).iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let queries = self.queries();
        match self.problem.method() {
            SelectionMethod::Hip(hip) => {
                let stride = hip.stride_q as usize;
                let sampled = |(offset, query): (usize, &u32)| {
                    let last_of_few = queries.len() < stride && offset + 1 == queries.len();
                    let reach = match self.problem.mask() {
                        Mask::Full => i64::MAX,
                        _ => self.position(*query) - self.window(),
                    };
                    ((offset + 1) % stride == 0 || last_of_few).then(|| (wide(query), reach))
                };
                queries.iter().enumerate().filter_map(sampled).collect()
            }
            SelectionMethod::InfiniteHip(method) => {
                let mean = |group: &[u32]| {
                    let mut mean = vec![0.0; self.problem.shape().head_dim as usize];
                    for query in group {
                        mean.iter_mut().zip(wide(query)).for_each(|(to, x)| *to += x / group.len() as f64);
                    }
                    (mean, self.position(queries[0]))
                };
                queries.chunks(method.stages[method.stages.len() - 1].stride_q as usize).map(mean).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn score(&self, heads: &[u32], block: u32) -> Option<f64> {
        let stride_k = match self.problem.method() {
            SelectionMethod::Hip(hip) => hip.stride_k,
            _ => 1,
        };
        let sampled = |key: &u32| (key - block + 1).is_multiple_of(stride_k) && *key < self.seq_len_kv;
        let mut scores = Vec::new();
        for &head in heads {
            let kv_head = (head / self.problem.shape().group_size()) as usize;
            for key in (block..block + self.problem.blocks().block_size).filter(sampled) {
                let k = self.k.row(self.batch as usize, key as usize, kv_head);
                let seeing = self.scoring(head).into_iter().filter(|&(_, reach)| i64::from(key) <= reach);
                // A sum of negative zeros is a negative zero; adding 0 makes it equal to the other.
                scores.extend(seeing.map(|(q, _)| q.iter().zip(k).map(|(q, k)| q * f64::from(*k)).sum::<f64>() + 0.0));
            }
        }
        scores.into_iter().reduce(f64::max)
    }

    /// The first keys of all candidates.
    fn candidates(&self) -> Vec<u32> {
        let blocks = self.problem.blocks();
        let queries = self.queries();
        let sinks = i64::from(blocks.sink_size);
        let end = match self.problem.method() {
            _ if self.problem.mask() == Mask::Full => i64::from(self.seq_len_kv),
            SelectionMethod::InfiniteHip(method) => {
                let chunk_size = i64::from(method.stages[0].chunk_size);
                let keys = (i64::from(self.seq_len_kv) - sinks - i64::from(blocks.window_size)).max(0);
                let active = (self.position(queries[0]) - self.window()).max(0) + 1;
                (sinks + (keys + chunk_size - 1) / chunk_size * chunk_size).min(active)
            }
            _ => self.position(queries[queries.len() - 1]) + 1 - self.window(),
        };
        (blocks.sink_size..).step_by(blocks.block_size as usize).take_while(|&start| i64::from(start) < end).collect()
    }

    pub(crate) fn best(&self, set: u32) -> Vec<u32> {
        let (shape, blocks) = (self.problem.shape(), self.problem.blocks());
        let heads: Vec<u32> =
            (0..shape.num_q_heads).filter(|&head| blocks.granularity.set_of_head(shape, head) == set).collect();
        let union = matches!(
            self.problem.method(),
            SelectionMethod::InfiniteHip(method) if method.reduction == HeadReduction::Union
        );
        let groups: Vec<&[u32]> = if union { heads.chunks(1).collect() } else { vec![&heads] };
        let mut best = std::collections::BTreeSet::new();
        for heads in &groups {
            let scored = self.candidates().into_iter().filter_map(|block| Some((self.score(heads, block)?, block)));
            let mut ranked: Vec<(f64, u32)> = scored.collect();
            ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            best.extend(ranked.iter().take(blocks.max_blocks as usize / groups.len()).map(|&(_, block)| block));
        }
        best.into_iter().collect()
    }
}
