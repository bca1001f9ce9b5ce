//! Selection of key blocks on the CPU.

mod hip;
mod infinite_hip;
mod operators;
mod score;
#[cfg(test)]
mod tests;
mod top_k;

pub(super) use top_k::{TopK, order};

use super::sequence::widen;
use crate::{
    BlockListSpec, Element, Error, HostBlockLists, Result, SelectionInputs, SelectionMethod, SelectionProblem,
};
use core::ops::Range;
use score::HeadKeys;

/// The state that a selection keeps from one decode step to the next: for each list the surviving chunks of each stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageCache {
    filled_for: Option<CacheKey>,
    /// `[list][stage]`: first keys of chunks; the last stage's are in the lists themselves.
    survivors: Vec<Vec<Vec<u32>>>,
}

#[derive(Clone, Debug, PartialEq)]
struct CacheKey {
    method: SelectionMethod,
    indices_shape: [u32; 4],
}

/// Selects blocks for every query block.
///
/// The result has the same bits on every run, for any number of threads and any batch around a sequence. Scores are sums
/// in f32.
///
/// # Errors
/// The errors of [`SelectionInputs::validate`].
///
/// # Cost
/// Blocks until done, on all threads of the current rayon pool. HiP: `O(seq_len_q log seq_len_kv)` time and memory for
/// the lists. InfiniteHiP: also one score for each chunk of its first stage, for each of up to 16 query blocks of a thread.
pub fn select<T: Element>(problem: &SelectionProblem, inputs: &SelectionInputs<'_, T>) -> Result<HostBlockLists> {
    select_from(problem, inputs, 0, &mut StageCache::default())
}

/// [`select`] from stage `first_stage` on, with the survivors of earlier stages from an earlier call. The cache then holds the
/// survivors of the computed stages. [`SelectionProblem::first_stage`] says where a decode step begins.
///
/// # Errors
/// The errors of [`select`]; [`Error::Invalid`] for a stage that does not exist; [`Error::Argument`] when `first_stage` is not 0 and
/// the cache was not filled by this method for as many lists.
///
/// # Cost
/// The cost of [`select`] without the stages before.
pub fn select_from<T: Element>(
    problem: &SelectionProblem,
    inputs: &SelectionInputs<'_, T>,
    first_stage: usize,
    cache: &mut StageCache,
) -> Result<HostBlockLists> {
    inputs.validate(problem)?;
    if first_stage >= problem.num_stages() {
        let rule = "must be below the number of stages";
        return Err(Error::Invalid { field: "first_stage", value: first_stage as u64, rule });
    }
    let blocks = problem.blocks();
    let indices_shape = blocks.indices_shape(problem.shape());
    let key = CacheKey { method: problem.method().clone(), indices_shape };
    if first_stage == 0 {
        cache.survivors.clear();
    } else if cache.filled_for.as_ref() != Some(&key) {
        let rule = "a later stage needs a cache that stage 0 filled, with the same method for as many lists";
        return Err(Error::Argument { argument: "cache", rule });
    }
    cache.filled_for = Some(key);
    let call = Call { problem, inputs, blocks };
    let mut lists = HostBlockLists::empty(indices_shape);
    let found = match problem.method() {
        SelectionMethod::Hip(hip) => hip::select(&call, hip),
        SelectionMethod::Other(_) => return operators::select(problem, inputs),
        SelectionMethod::InfiniteHip(method) => {
            cache.survivors.resize(call.num_lists(), Vec::new());
            infinite_hip::select(&call, method, first_stage, &mut cache.survivors)
        }
    };
    for (index, list) in found.iter().enumerate() {
        let ListId { batch, set, q_block } = call.list_id(index);
        lists.set_list(batch, set, q_block, list);
    }
    Ok(lists)
}

struct Call<'a, T> {
    problem: &'a SelectionProblem,
    inputs: &'a SelectionInputs<'a, T>,
    blocks: BlockListSpec,
}

/// Index of the list.
#[derive(Clone, Copy, Debug)]
struct ListId {
    batch: u32,
    set: u32,
    q_block: u32,
}

/// The queries of a list, and where they sit.
#[derive(Clone, Debug)]
struct QueryBlock {
    queries: Range<usize>,
    seq_len_kv: u32,
    /// Position of the first query, and of the last.
    p_min: i64,
    p_max: i64,
}

impl<T: Element> Call<'_, T> {
    fn num_lists(&self) -> usize {
        self.blocks.num_lists(self.problem.shape()) as usize // fewer than 2^32 entries in all: validated
    }

    fn list_id(&self, index: usize) -> ListId {
        let [_, num_sets, num_q_blocks, _] = self.blocks.indices_shape(self.problem.shape()).map(|n| n as usize);
        let [batch, set] = [index / num_q_blocks / num_sets, index / num_q_blocks % num_sets].map(|n| n as u32);
        ListId { batch, set, q_block: (index % num_q_blocks) as u32 }
    }

    /// `None` where attention is dense or there are no keys: the list is empty.
    fn query_block(&self, id: ListId) -> Option<QueryBlock> {
        let shape = self.problem.shape();
        let seq_len_kv = self.inputs.seq_len_kv(id.batch);
        let start = id.q_block as usize * self.blocks.block_size_q as usize;
        let queries = start..(shape.seq_len_q as usize).min(start + self.blocks.block_size_q as usize);
        let offset = i64::from(seq_len_kv) - i64::from(shape.seq_len_q);
        let [p_min, p_max] = [queries.start, queries.end - 1].map(|i| i as i64 + offset); // positions fit 30 bits
        if seq_len_kv == 0 || self.blocks.is_dense(p_max) {
            return None;
        }
        Some(QueryBlock { queries, seq_len_kv, p_min, p_max })
    }

    /// Query heads of a set.
    fn heads(&self, set: u32) -> Range<usize> {
        let heads_per_set = self.blocks.granularity.heads_per_set(self.problem.shape()) as usize;
        set as usize * heads_per_set..(set as usize + 1) * heads_per_set
    }

    /// Keys of the KV head of a query head.
    fn keys(&self, batch: u32, q_head: usize) -> HeadKeys<'_, T> {
        let shape = self.problem.shape();
        let [seq, num_kv_heads, dim] = [shape.seq_len_kv, shape.num_kv_heads, shape.head_dim].map(|n| n as usize);
        let len = seq * num_kv_heads * dim;
        let used = self.inputs.seq_len_kv(batch) as usize * num_kv_heads * dim;
        let k = &self.inputs.k.data()[batch as usize * len..][..used];
        HeadKeys::new(k, num_kv_heads, q_head / shape.group_size() as usize, dim)
    }

    /// Widens one query.
    fn read_query(&self, batch: u32, q_index: usize, q_head: usize, to: &mut [f32]) {
        let shape = self.problem.shape();
        let [seq, num_q_heads, dim] = [shape.seq_len_q, shape.num_q_heads, shape.head_dim].map(|n| n as usize);
        let row = (batch as usize * seq + q_index) * num_q_heads + q_head;
        widen(&self.inputs.q.data()[row * dim..][..dim], to);
    }
}
