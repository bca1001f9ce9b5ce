//! Cases for selection: small integers, whose sums are exact in any order (data set A of the specification, 6.6), and floats (data set B);
//! rules that every list keeps, whichever implementation selected it.

use wattn::{
    AttentionShape, DType, Element, Granularity, GroupBounds, HeadReduction, Hip, HostBlockLists, HostTensor,
    InfiniteHip, Mask, PADDING, Preset, Representative, Result, SelectionInputs, SelectionMethod, SelectionProblem,
    Stage,
};

use super::{Random, recorded::record};

/// Any implementation of selection.
pub type Selector<'a, T = f32> = &'a dyn Fn(&SelectionProblem, &SelectionInputs<'_, T>) -> Result<HostBlockLists>;

/// A selection with its inputs.
#[derive(Clone)]
pub struct SelectCase<T = f32> {
    pub name: String,
    pub problem: SelectionProblem,
    pub q: HostTensor<T>,
    pub k: HostTensor<T>,
    pub seq_lens_kv: Option<Vec<u32>>,
}

impl<T: Element> SelectCase<T> {
    /// Integers: q in -36..36, multiples of 12 so that means of up to four are integers too; k in -3..3; scores unscaled.
    pub fn integers(name: impl Into<String>, problem: SelectionProblem, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut draw = || ((random.bits() >> 32) % 7) as f32 - 3.0;
        let q = super::fill(problem.q_shape(), |_| 12.0 * draw());
        let k = super::fill(problem.k_shape(), |_| draw());
        Self { name: name.into(), problem: problem.with_selection_scale(1.0), q, k, seq_lens_kv: None }
    }

    /// Floats in [-1, 1), scaled by the default.
    pub fn floats(name: impl Into<String>, problem: SelectionProblem, seed: u64) -> Self {
        let (q, k) = (super::random(problem.q_shape(), seed), super::random(problem.k_shape(), seed + 1));
        Self { name: name.into(), problem, q, k, seq_lens_kv: None }
    }

    pub fn inputs(&self) -> SelectionInputs<'_, T> {
        let inputs = SelectionInputs::new(&self.q, &self.k);
        self.seq_lens_kv.as_deref().map_or(inputs, |lens| inputs.with_seq_lens_kv(lens))
    }

    /// With different lengths in a batch.
    pub fn lens(mut self, lens: &[u32]) -> Self {
        self.problem = self.problem.with_seq_lens_kv();
        self.seq_lens_kv = Some(lens.to_vec());
        self
    }

    /// With scores scaled by a factor that keeps sums exact.
    pub fn scaled(mut self, scale: f32) -> Self {
        self.problem = self.problem.with_selection_scale(scale);
        self
    }

    /// With queries for which all scores tie.
    pub fn zero_q(mut self) -> Self {
        self.q.data_mut().fill(T::from_f32(0.0));
        self
    }
}

/// `[seq_len_q, seq_len_kv]`, `[num_kv_heads, group]`.
pub fn shape(batch_size: u32, lens: [u32; 2], heads: [u32; 2], head_dim: u32) -> AttentionShape {
    AttentionShape { head_dim, head_dim_v: 8, ..super::shape(batch_size, lens, heads) }
}

/// 8 groups of 2-key blocks.
pub const HIP: Hip = Hip::new()
    .with_top_k(16)
    .with_block_size_q(16)
    .with_stride_q(2)
    .with_block_size_k(2)
    .with_stride_k(1)
    .with_sink_size(4)
    .with_window_size(16)
    .with_representative(Representative::Center)
    .with_group_bounds(GroupBounds::Even)
    .with_refresh_interval(1);

/// Stages of `(chunk_size, keep, stride_q, refresh_interval)`; block size 16, sinks 8, window 32.
pub fn infinite(stages: &[[u32; 4]]) -> InfiniteHip {
    let stage = |&[chunk_size, keep, stride_q, refresh_interval]: &[u32; 4]| {
        Stage::new(chunk_size, keep).with_stride_q(stride_q).with_refresh_interval(refresh_interval)
    };
    InfiniteHip::new(stages.iter().map(stage).collect())
        .with_block_size_q(16)
        .with_sink_size(8)
        .with_window_size(32)
        .with_representative(Representative::Center)
        .with_reduction(HeadReduction::Max)
}

/// Chunks of 16, 4 and 2 keys.
pub fn three_stages() -> InfiniteHip {
    infinite(&[[16, 64, 4, 4], [4, 32, 2, 2], [2, 16, 1, 1]])
}

const REPRESENTATIVES: [Representative; 3] = [Representative::Center, Representative::First, Representative::Last];

/// Data set A: every size and option of the specification at least once. Few enough for a GPU test.
pub fn integer_cases<T: Element>() -> Vec<SelectCase<T>> {
    let mut cases = hip_cases();
    cases.extend(infinite_cases());
    cases
}

fn problem<T: Element>(shape: AttentionShape, method: impl Into<SelectionMethod>) -> SelectionProblem {
    SelectionProblem::new(shape, T::DTYPE, method)
}

fn hip_cases<T: Element>() -> Vec<SelectCase<T>> {
    let of = |lens, hip: Hip| problem::<T>(shape(1, lens, [1, 2], 16), hip);
    let new = |name: &str, problem| SelectCase::integers(format!("HiP, {name}"), problem, 1);
    let mut cases = vec![
        new("everything fits", of([16, 36], HIP)),
        new("one key too many to fit", of([16, 37], HIP)),
        new("shorter than the window", of([13, 13], HIP)),
        new("prefill from the start", of([100, 100], HIP)),
        new("prime length", of([16, 389], HIP)),
        new("decode", of([1, 300], HIP.with_stride_q(1))),
        new("decode, stride longer than the block", of([1, 300], HIP)),
        new("trailing block of one query", of([33, 301], HIP)),
        new("trailing block shorter than the stride", of([34, 301], HIP.with_stride_q(5))),
        new("more queries than keys", of([40, 29], HIP.with_top_k(4).with_window_size(4))),
        new(
            "strides",
            of(
                [16, 300],
                HIP.with_top_k(40).with_block_size_k(5).with_stride_k(2).with_sink_size(5).with_window_size(15),
            ),
        ),
        new("no sinks", of([16, 300], HIP.with_sink_size(0))),
        new("no window", of([16, 300], HIP.with_window_size(0))),
        new("neither", of([16, 300], HIP.with_sink_size(0).with_window_size(0))),
        new("refreshes", of([1, 300], HIP.with_refresh_interval(5))),
        new("a margin wider than the window", of([16, 300], HIP).with_margin(40)),
        new("dense below", of([64, 300], HIP).with_dense_below(270)),
        new("dense", of([16, 100], HIP).with_dense_below(1000)),
        new("decode settings", of([1, 700], Hip::decode().with_top_k(64).with_window_size(32))),
    ];
    for scale in [-1.0, -0.5, 0.0, -0.0] {
        cases.push(new(&format!("scaled by {scale}"), of([16, 300], HIP)).scaled(scale));
        cases.push(new(&format!("decode, scaled by {scale}"), of([1, 300], HIP)).scaled(scale));
    }
    cases.push(new("all ties, scaled by -1", of([16, 300], HIP)).zero_q().scaled(-1.0));
    for representative in REPRESENTATIVES {
        let hip = HIP.with_representative(representative);
        cases.push(new(&format!("all ties, {representative:?}"), of([16, 300], hip)).zero_q());
        for granularity in Granularity::ALL {
            let problem = problem::<T>(shape(1, [20, 200], [2, 2], 16), hip).with_granularity(granularity);
            cases.push(new(&format!("{representative:?} for each {granularity}"), problem));
        }
        // Groups of even and of uneven size, one group, and more groups than a power of two.
        for top_k in [2, 6, 16, 22] {
            let hip = hip.with_top_k(top_k).with_group_bounds(GroupBounds::Aligned);
            cases.push(new(&format!("{representative:?}, aligned, {top_k} keys"), of([3, 317], hip)));
        }
    }
    for (heads, head_dim) in [([2, 1], 64), ([1, 4], 80), ([1, 8], 96), ([1, 1], 128), ([1, 1], 256)] {
        cases.push(new(
            &format!("heads {heads:?} of {head_dim}"),
            problem::<T>(shape(1, [16, 200], heads, head_dim), HIP),
        ));
    }
    let full = HIP.with_sink_size(0).with_window_size(0);
    let several = shape(5, [24, 150], [1, 2], 16);
    let lens = [150, 0, 5, 24, 61];
    cases.push(new("several lengths", problem::<T>(several, HIP)).lens(&lens));
    cases.push(new("several lengths, full mask", problem::<T>(several, full).with_mask(Mask::Full)).lens(&lens));
    cases.push(
        new("full mask, dense below", problem::<T>(several, full).with_mask(Mask::Full).with_dense_below(40))
            .lens(&lens),
    );
    cases
}

fn infinite_cases<T: Element>() -> Vec<SelectCase<T>> {
    let of = |lens, method: InfiniteHip| problem::<T>(shape(1, lens, [1, 2], 16), method);
    let new = |name: &str, problem| SelectCase::integers(format!("InfiniteHiP, {name}"), problem, 2);
    let with = |change: &dyn Fn(&mut InfiniteHip)| {
        let mut method = three_stages();
        change(&mut method);
        method
    };
    let mut cases = vec![
        new("everything fits", of([16, 60], three_stages())),
        new("shorter than the window", of([13, 13], three_stages())),
        new("prefill from the start", of([100, 100], three_stages())),
        new("prime length", of([16, 389], three_stages())),
        new("decode", of([1, 301], three_stages())),
        new("trailing block", of([36, 301], three_stages())),
        new("more queries than keys", of([40, 29], with(&|method| method.window_size = 4))),
        new("no sinks", of([16, 300], with(&|method| method.sink_size = 0))),
        new("no window", of([16, 300], with(&|method| method.window_size = 0))),
        new(
            "neither, decode",
            of(
                [1, 300],
                with(&|method| {
                    (method.window_size, method.sink_size) = (0, 0);
                    // Without a window, keys leave at every step.
                    method.stages.iter_mut().for_each(|stage| stage.refresh_interval = 1);
                }),
            ),
        ),
        new("a margin as wide as the window", of([16, 300], three_stages()).with_margin(32)),
        new("the least margin", of([16, 300], three_stages()).with_margin(16)),
        new("long intervals", of([1, 300], infinite(&[[8, 48, 1, 24], [4, 16, 1, 8]]))),
        new("dense below", of([64, 300], three_stages()).with_dense_below(270)),
        new("uneven halves", of([16, 300], infinite(&[[24, 72, 1, 1], [12, 48, 1, 1], [6, 24, 1, 1], [1, 9, 4, 1]]))),
        new("single keys", of([16, 150], infinite(&[[1, 12, 2, 1]]))),
        new("one stage", of([16, 300], infinite(&[[8, 40, 1, 1]]))),
        new("two stages of one size", of([16, 300], infinite(&[[8, 80, 4, 1], [8, 40, 1, 1]]))),
        new("the preset for tests", of([70, 700], Preset::Debug.into())),
    ];
    for scale in [-1.0, 0.0] {
        cases.push(new(&format!("scaled by {scale}"), of([16, 300], three_stages())).scaled(scale));
    }
    for representative in [Representative::Center, Representative::First] {
        let method = with(&|method| method.representative = representative);
        cases.push(new(&format!("all ties, {representative:?}"), of([16, 300], method.clone())).zero_q());
        for granularity in Granularity::ALL {
            for reduction in [HeadReduction::Max, HeadReduction::Union] {
                let method = method.clone().with_reduction(reduction);
                let problem = problem::<T>(shape(1, [20, 200], [2, 2], 16), method).with_granularity(granularity);
                cases.push(new(&format!("{representative:?}, {reduction:?} for each {granularity}"), problem));
            }
        }
    }
    for (heads, head_dim) in [([2, 1], 64), ([1, 4], 80), ([1, 8], 96), ([1, 1], 128), ([1, 1], 256)] {
        let problem = problem::<T>(shape(1, [16, 200], heads, head_dim), three_stages());
        cases.push(new(&format!("heads {heads:?} of {head_dim}"), problem));
    }
    for seq_len_q in [1, 24] {
        let several = problem::<T>(shape(5, [seq_len_q, 150], [1, 2], 16), three_stages());
        cases.push(new(&format!("several lengths, {seq_len_q} queries"), several).lens(&[150, 0, 5, 24, 61]));
    }
    cases
}

/// More of data set A: small problems drawn at random, some of them as small as possible.
pub fn drawn_case(seed: u64) -> SelectCase {
    let mut random = Random(seed);
    let mut below = move |n: u32| ((random.bits() >> 32) % u64::from(n)) as u32;
    let heads = [1 + below(2), 1 + below(3)];
    let seq_len_q = if below(3) == 0 { 1 } else { 1 + below(40) };
    let shape = shape(1 + below(3), [seq_len_q, 1 + below(160)], heads, 4 + 4 * below(3));
    let granularity = Granularity::ALL[below(3) as usize];
    let block_size_q = 1 + below(20);
    let mut pick = move |n| below(n);
    let method: SelectionMethod = if pick(2) == 0 {
        let block_size_k = 1 + pick(5);
        let hip = Hip::default()
            .with_top_k(block_size_k * (1 + pick(9)))
            .with_block_size_q(block_size_q)
            .with_stride_q(1 + pick(block_size_q))
            .with_block_size_k(block_size_k)
            .with_stride_k(1 + pick(block_size_k))
            .with_sink_size(block_size_k * pick(4))
            .with_window_size(block_size_k * pick(8))
            .with_representative(REPRESENTATIVES[pick(3) as usize])
            .with_group_bounds([GroupBounds::Even, GroupBounds::Aligned][pick(2) as usize])
            .with_refresh_interval(1 + pick(4));
        // Keys newer than a refresh stay in the window until the next.
        let hip = hip.with_refresh_interval(hip.refresh_interval.min(hip.window_size + 1));
        hip.into()
    } else {
        let last = [1 + pick(4), 1 + pick(5), 1 + pick(8)];
        let mut stages = vec![[last[0], last[0] * last[1], 1 + pick(block_size_q.min(4)), 1 + pick(3)]];
        for _ in 0..pick(3) {
            let [size, keep, _, interval] = stages[0];
            let size = size * (1 + pick(4));
            let keep = (keep.div_ceil(size) + pick(3)) * size;
            stages.insert(0, [size, keep, 1 + pick(block_size_q.min(4)), interval * (1 + pick(3))]);
        }
        let representative = REPRESENTATIVES[pick(2) as usize];
        let reduction = [HeadReduction::Max, HeadReduction::Union][pick(2) as usize];
        let (sink_size, window_size) = (last[0] * pick(4), pick(50).max(stages[0][3] - 1));
        infinite(&stages)
            .with_block_size_q(block_size_q)
            .with_sink_size(sink_size)
            .with_window_size(window_size)
            .with_representative(representative)
            .with_reduction(reduction)
            .into()
    };
    let full = matches!(method, SelectionMethod::Hip(hip) if hip.sink_size + hip.window_size == 0 && hip.refresh_interval == 1);
    let mut problem = SelectionProblem::new(shape, DType::F32, method).with_granularity(granularity);
    if full && pick(2) == 0 {
        problem = problem.with_mask(Mask::Full);
    }
    if pick(4) == 0 {
        problem = problem.with_dense_below(pick(shape.seq_len_kv + 1));
    }
    if pick(3) == 0 {
        let least = problem.clone();
        problem = problem.with_margin(least.margin() + pick(20));
    }
    let case = SelectCase::integers(format!("drawn from seed {seed}: {problem:?}"), problem, seed);
    let case = if pick(10) == 0 { case.zero_q() } else { case };
    if pick(2) == 0 {
        let lens: Vec<u32> = (0..shape.batch_size).map(|_| pick(shape.seq_len_kv + 1)).collect();
        return case.lens(&lens);
    }
    case
}

/// Data set B.
pub fn float_cases<T: Element>() -> Vec<SelectCase<T>> {
    let hip = HIP.with_top_k(64).with_stride_q(4);
    let mut cases = Vec::new();
    for (seed, (lens, heads, head_dim)) in
        [([64, 1500], [1, 2], 64), ([128, 500], [2, 1], 32), ([1, 3000], [2, 2], 128), ([40, 700], [1, 1], 96)]
            .into_iter()
            .enumerate()
    {
        let (shape, seed) = (shape(1, lens, heads, head_dim), seed as u64);
        for representative in REPRESENTATIVES {
            let hip = hip.with_representative(representative);
            cases.push(SelectCase::floats(format!("HiP {lens:?} {representative:?}"), problem::<T>(shape, hip), seed));
        }
        let each = problem::<T>(shape, hip).with_granularity(Granularity::KvHead);
        cases.push(SelectCase::floats(format!("HiP {lens:?} for each KV head"), each, seed));
        for representative in [Representative::Center, Representative::First] {
            for reduction in [HeadReduction::Max, HeadReduction::Union] {
                let method = three_stages().with_representative(representative).with_reduction(reduction);
                let name = format!("InfiniteHiP {lens:?} {representative:?} {reduction:?}");
                cases.push(SelectCase::floats(name, problem::<T>(shape, method), seed));
            }
        }
    }
    let method = hip.with_sink_size(0).with_window_size(0);
    let full = problem::<T>(shape(3, [32, 400], [1, 2], 64), method).with_mask(Mask::Full);
    cases.push(SelectCase::floats("HiP, full mask", full, 9).lens(&[400, 31, 0]));
    cases
}

/// Asserts that two selections are the same, and names the first list that differs.
pub fn assert_lists_equal(got: &HostBlockLists, expected: &HostBlockLists, what: &str) {
    record(got.block_counts().iter().chain(got.block_indices()).copied());
    assert_eq!(got.shape(), expected.shape(), "{what}: shape");
    let [batches, sets, q_blocks, _] = expected.shape();
    for (b, s, m) in (0..batches).flat_map(|b| (0..sets).flat_map(move |s| (0..q_blocks).map(move |m| (b, s, m)))) {
        let (got, expected) = (got.list(b, s, m), expected.list(b, s, m));
        assert_eq!(got, expected, "{what}: sequence {b}, set {s}, query block {m}");
    }
    assert_eq!(got, expected, "{what}: counts and padding");
}

/// Asserts the rules of every list of a selection (specification 6.6, 6), and that attention would take the lists.
pub fn assert_invariants(problem: &SelectionProblem, seq_lens_kv: Option<&[u32]>, blocks: &HostBlockLists, what: &str) {
    let (shape, of) = (problem.shape(), problem.blocks());
    blocks.validate(&of, shape, seq_lens_kv).unwrap_or_else(|error| panic!("{what}: {error}"));
    let near = i64::from(of.window_size.saturating_sub(problem.margin()));
    let [_, sets, q_blocks, max_blocks] = blocks.shape();
    for [b, s, m] in super::certificate::indices(problem) {
        let what = format!("{what}: sequence {b}, set {s}, query block {m}");
        let row = ((b * sets + s) * q_blocks + m) as usize;
        let (count, len) = (blocks.block_counts()[row], seq_lens_kv.map_or(shape.seq_len_kv, |lens| lens[b as usize]));
        let entries = &blocks.block_indices()[row * max_blocks as usize..][..max_blocks as usize];
        assert!(entries[count as usize..].iter().all(|&entry| entry == PADDING), "{what}: padding {entries:?}");
        let list = blocks.list(b, s, m);
        assert!(list.windows(2).all(|pair| pair[0] < pair[1]), "{what}: not ascending: {list:?}");
        let position = |query: u32| i64::from(query) + i64::from(len) - i64::from(shape.seq_len_q);
        let first = position(m * of.block_size_q);
        let last = position(shape.seq_len_q.min((m + 1) * of.block_size_q) - 1);
        if of.dense_below > 0 && last < of.dense_below.into() {
            assert_eq!(count, 0, "{what}: a dense query block has no list");
            continue;
        }
        let end = match problem.method() {
            _ if problem.mask() == Mask::Full => len.into(),
            SelectionMethod::Hip(_) => last + 1 - near,
            _ => (first + i64::from(of.block_size_q)).min(len.into()),
        };
        for &start in list {
            assert!(start >= of.sink_size && i64::from(start) < end, "{what}: {start} is no candidate");
            assert_eq!((start - of.sink_size) % of.block_size, 0, "{what}: {start} is not on a block");
        }
        if matches!(problem.method(), SelectionMethod::Hip(_)) {
            let candidates = (end - i64::from(of.sink_size)).max(0).unsigned_abs().div_ceil(of.block_size.into());
            assert_eq!(u64::from(count), candidates.min(max_blocks.into()), "{what}: a list is as full as it can be");
        }
    }
}
