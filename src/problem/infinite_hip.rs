//! InfiniteHiP: a few stages, each of which descends by halving into every chunk of keys and keeps the best chunks.

use super::selector::{Margin, QuerySampling, Selector, SelectorStep};
use super::{BlockListSpec, Granularity, Representative, SelectionProblem};
use crate::{AttentionShape, Error, Mask, Result};

/// How the heads that share a list combine their scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum HeadReduction {
    /// The largest score over the heads, and one top-k.
    #[default]
    Max,
    /// A top-k for each head, and the union of the results: a list may hold up to `heads` times as many chunks.
    Union,
}

/// One stage of [`InfiniteHip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Stage {
    /// Keys of a chunk, `l_c`. Divides the chunk size of the stage before; in the last stage it is the block size of the lists, from 1
    /// to 128.
    pub chunk_size: u32,
    /// Keys in the chunks that survive the stage: a multiple of `chunk_size`.
    pub keep: u32,
    /// Number of neighbouring queries that are averaged before they are scored, `sigma_q`.
    pub stride_q: u32,
    /// Decode steps for which the surviving chunks are used: a multiple of the next stage's interval.
    pub refresh_interval: u32,
}

crate::setters::setters!(Stage {
    with_chunk_size(chunk_size: u32)
    with_keep(keep: u32)
    with_stride_q(stride_q: u32)
    with_refresh_interval(refresh_interval: u32)
});

impl Stage {
    /// A stage that scores every query, at every step.
    #[must_use]
    pub const fn new(chunk_size: u32, keep: u32) -> Self {
        Self { chunk_size, keep, stride_q: 1, refresh_interval: 1 }
    }
}

impl Stage {
    /// Chunks of a list that the stage keeps; any number for a stage that breaks the rules.
    pub(crate) fn kept_chunks(&self) -> u32 {
        self.keep / self.chunk_size.max(1)
    }
}

/// InfiniteHiP (*Extending Language Model Context Up to 3 Million Tokens on a Single GPU*, section 3; where paper and code differ, the
/// code's rules): the keys between sinks and window are cut into chunks. A stage descends into each chunk
/// by halving, always into the half whose representative key scores higher, and gives the chunk the largest score on the way. The best
/// chunks survive and are cut into the smaller chunks of the next stage, and so on. Positions are those of the keys: no dynamic RoPE.
///
/// A score is the largest `q·k` over the averaged queries of the block. Ties in a descent go to the right half, ties in a top-k to the
/// lower position. By default all heads of a layer share the lists ([`Granularity::Layer`](crate::Granularity)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct InfiniteHip {
    /// Queries that share a list.
    pub block_size_q: u32,
    /// From coarse to fine: one to [`InfiniteHip::MAX_STAGES`].
    pub stages: Vec<Stage>,
    /// First keys that are always attended to: a multiple of the last stage's chunk size.
    pub sink_size: u32,
    /// Last keys that are always attended to.
    pub window_size: u32,
    /// The key that stands for a half: `Center` (the published code: a chunk's score is the largest of all winners), or `First` (the
    /// paper's pseudo-code: it is the score of the key where the descent ends).
    pub representative: Representative,
    /// How the heads that share a list combine their scores.
    pub reduction: HeadReduction,
}

crate::setters::setters!(InfiniteHip {
    with_block_size_q(block_size_q: u32)
    with_sink_size(sink_size: u32)
    with_window_size(window_size: u32)
    with_representative(representative: Representative)
    with_reduction(reduction: HeadReduction)
});

impl InfiniteHip {
    /// The given stages from coarse to fine, otherwise as the presets: query blocks of 64, 256 sinks, a window of 1024.
    #[must_use]
    pub fn new(stages: Vec<Stage>) -> Self {
        Self { stages, ..Preset::ThreeK.into() }
    }

    /// Sets [`stages`](Self::stages).
    #[must_use]
    pub fn with_stages(mut self, stages: Vec<Stage>) -> Self {
        self.stages = stages;
        self
    }
}

/// Published settings of [`InfiniteHip`], named after the number of keys that a query attends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preset {
    /// The paper's default: chunks 256, 32, 8; 2048 keys; stages refreshed every 16, 8 and 4 steps.
    ThreeK,
    /// The same, refreshed every 32, 16 and 8 steps.
    ThreeKFast,
    /// The same, refreshed every 96, 24 and 8 steps.
    ThreeKFlash,
    /// Chunks 64, 32, 16; 4096 keys.
    FiveK,
    /// One stage of chunks of 32; 16384 keys. In the paper the first three layers have a window of 128k keys besides: set
    /// `window_size` there.
    SixteenKShallow,
    /// Chunks 16, 4, 1; 128 keys: small enough for tests.
    Debug,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 6] =
        [Self::ThreeK, Self::ThreeKFast, Self::ThreeKFlash, Self::FiveK, Self::SixteenKShallow, Self::Debug];

    /// The name that the command line uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ThreeK => "3K",
            Self::ThreeKFast => "3K-fast",
            Self::ThreeKFlash => "3K-flash",
            Self::FiveK => "5K",
            Self::SixteenKShallow => "16K-shallow",
            Self::Debug => "debug",
        }
    }

    /// The preset of a name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.name().eq_ignore_ascii_case(name))
    }
}

impl core::fmt::Display for Preset {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Preset> for InfiniteHip {
    fn from(preset: Preset) -> Self {
        // (chunk_size, keep, stride_q, refresh_interval)
        let (stages, sink_size, window_size): (&[[u32; 4]], u32, u32) = match preset {
            Preset::ThreeK => (&[[256, 32768, 4, 16], [32, 8192, 4, 8], [8, 2048, 1, 4]], 256, 1024),
            Preset::ThreeKFast => (&[[256, 32768, 4, 32], [32, 8192, 4, 16], [8, 2048, 1, 8]], 256, 1024),
            Preset::ThreeKFlash => (&[[256, 32768, 4, 96], [32, 8192, 4, 24], [8, 2048, 1, 8]], 256, 1024),
            Preset::FiveK => (&[[64, 32768, 4, 16], [32, 16384, 4, 8], [16, 4096, 1, 4]], 256, 1024),
            // The sources give neither stride nor interval for these two.
            Preset::SixteenKShallow => (&[[32, 16384, 1, 4]], 256, 1024),
            Preset::Debug => (&[[16, 512, 4, 1], [4, 256, 2, 1], [1, 128, 1, 1]], 64, 128),
        };
        let stage = |&[chunk_size, keep, stride_q, refresh_interval]: &[u32; 4]| Stage {
            chunk_size,
            keep,
            stride_q,
            refresh_interval,
        };
        Self {
            block_size_q: 64,
            stages: stages.iter().map(stage).collect(),
            sink_size,
            window_size,
            representative: Representative::Center,
            reduction: HeadReduction::Max,
        }
    }
}

impl InfiniteHip {
    /// Maximum number of stages.
    pub const MAX_STAGES: usize = 8;

    /// Block size of the lists: the last stage's chunk size.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.stages.last().map_or(1, |stage| stage.chunk_size)
    }

    fn check(&self, mask: Mask) -> Result<()> {
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if mask != Mask::Causal {
            let rule = "InfiniteHiP selects below a causal mask only; HiP selects without one too";
            return Err(Error::Argument { argument: "mask", rule });
        }
        if self.stages.is_empty() || self.stages.len() > Self::MAX_STAGES {
            return invalid("stages", self.stages.len() as u32, "must be from 1 to 8"); // a Vec of that length fits
        }
        if self.block_size_q == 0 {
            return invalid("block_size_q", 0, "must be at least 1");
        }
        for stage in &self.stages {
            for (field, value) in [
                ("chunk_size", stage.chunk_size),
                ("keep", stage.keep),
                ("stride_q", stage.stride_q),
                ("refresh_interval", stage.refresh_interval),
            ] {
                if value == 0 {
                    return invalid(field, 0, "must be at least 1");
                }
            }
            if !stage.keep.is_multiple_of(stage.chunk_size) {
                return invalid("keep", stage.keep, "must be a multiple of the stage's chunk_size");
            }
            if stage.keep > 1 << 24 {
                return invalid("keep", stage.keep, "must be at most 2^24 keys");
            }
            if stage.stride_q > self.block_size_q {
                return invalid("stride_q", stage.stride_q, "must be at most block_size_q");
            }
        }
        for pair in self.stages.windows(2) {
            if !pair[0].chunk_size.is_multiple_of(pair[1].chunk_size) {
                let rule = "must divide the chunk_size of the stage before";
                return invalid("chunk_size", pair[1].chunk_size, rule);
            }
            if !pair[0].refresh_interval.is_multiple_of(pair[1].refresh_interval) {
                let rule = "must be a multiple of the next stage's, or that stage would be refreshed from stale chunks";
                return invalid("refresh_interval", pair[0].refresh_interval, rule);
            }
        }
        if self.block_size() > 128 {
            return invalid("chunk_size", self.block_size(), "must be at most 128 keys in the last stage");
        }
        if !self.sink_size.is_multiple_of(self.block_size()) {
            return invalid("sink_size", self.sink_size, "must be a multiple of the last stage's chunk_size");
        }
        if self.representative == Representative::Last {
            let rule = "InfiniteHiP takes Center or First";
            return Err(Error::Argument { argument: "representative", rule });
        }
        Ok(())
    }
}

impl Selector for InfiniteHip {
    fn name(&self) -> &str {
        "InfiniteHiP"
    }

    fn lists(&self, shape: &AttentionShape, granularity: Granularity) -> BlockListSpec {
        let kept = self.stages.last().map_or(0, Stage::kept_chunks);
        let heads = if self.unites_heads() { granularity.heads_per_set(shape) } else { 1 };
        BlockListSpec::new(self.block_size_q, self.block_size(), kept.saturating_mul(heads))
            .with_granularity(granularity)
            .with_sink_size(self.sink_size)
            .with_window_size(self.window_size)
    }

    /// None: it has kernels of its own.
    fn steps(&self, _: &SelectionProblem) -> Vec<SelectorStep> {
        Vec::new()
    }

    fn granularity(&self) -> Granularity {
        Granularity::Layer
    }

    fn validate(&self, mask: Mask) -> Result<()> {
        self.check(mask)
    }

    fn num_stages(&self) -> usize {
        self.stages.len()
    }

    fn refresh_interval(&self, stage: usize) -> u32 {
        self.stages.get(stage).map_or(1, |stage| stage.refresh_interval)
    }

    /// The distance from the first query of a block; HiP's is from the last.
    fn margin(&self, shape: &AttentionShape) -> Margin {
        let queries = self.block_size_q.min(shape.seq_len_q).saturating_sub(1);
        // Only one query at a time is decoded with lists from an earlier step.
        let interval = if shape.seq_len_q > 1 { 1 } else { Selector::refresh_interval(self, 0) };
        let needed = queries.saturating_add(interval);
        Margin {
            needed,
            default: needed.max(self.stages.first().map_or(0, |stage| stage.chunk_size)),
            rule: "must be at least the queries of a block - 1 + the first refresh_interval: keys leave the \
                   window meanwhile",
        }
    }

    fn crossover(&self, seq_len_q: u32) -> u32 {
        if seq_len_q < self.block_size_q { 12_288 } else { 8192 }
    }

    fn keys_kept(&self, _: &SelectionProblem) -> u32 {
        self.stages.iter().map(|stage| stage.keep).max().unwrap_or(0)
    }

    fn sampling(&self, stage: usize) -> QuerySampling {
        QuerySampling::Mean(self.stages.get(stage).map_or(1, |stage| stage.stride_q))
    }

    fn unites_heads(&self) -> bool {
        self.reduction == HeadReduction::Union
    }

    fn num_candidates(&self, problem: &SelectionProblem, seq_len_kv: u32, [p_min, _]: [i64; 2]) -> u32 {
        let chunk_size = self.stages.first().map_or(1, |stage| stage.chunk_size);
        let start = u64::from(self.sink_size);
        // Chunks are active up to E; all fits u32: E and the chunks end below seq_len_kv + chunk_size.
        let active = (p_min - i64::from(problem.candidate_window())).max(0) as u64;
        let chunks_end = start + u64::from(problem.num_chunks(seq_len_kv)) * u64::from(chunk_size);
        let end = chunks_end.min(active + 1).min(seq_len_kv.into());
        end.saturating_sub(start).div_ceil(self.block_size().into()) as u32
    }

    fn num_probes(&self, shape: &AttentionShape) -> [u64; 2] {
        let mut entering = u64::from(shape.seq_len_kv).saturating_sub(u64::from(self.sink_size));
        let (mut probes, mut samples) = (0, 1);
        for stage in &self.stages {
            // A stage that keeps all scores none.
            if entering > u64::from(stage.keep) {
                let rounds = u64::from(stage.chunk_size.next_power_of_two().ilog2().max(1));
                probes += entering / u64::from(stage.chunk_size) * 2 * rounds;
                entering = stage.keep.into();
            }
            samples = samples.max(u64::from(self.block_size_q.min(shape.seq_len_q).div_ceil(stage.stride_q)));
        }
        [probes, samples]
    }
}

impl SelectionProblem {
    /// Chunks of InfiniteHiP's first stage, for a sequence of `seq_len_kv` keys. The last one ends at
    /// `seq_len_kv - W'` at the latest.
    pub(crate) fn num_chunks(&self, seq_len_kv: u32) -> u32 {
        let super::SelectionMethod::InfiniteHip(method) = &self.method else { return 0 };
        let chunk_size = method.stages.first().map_or(1, |stage| stage.chunk_size);
        seq_len_kv.saturating_sub(method.sink_size).saturating_sub(self.first_window()).div_ceil(chunk_size)
    }

    /// Keys at the end of a sequence that need not lie in a chunk of InfiniteHiP's first stage: the keys of the window without those that
    /// leave it before that stage runs again.
    pub(crate) fn first_window(&self) -> u32 {
        let leaving = if self.shape.seq_len_q > 1 { 0 } else { self.refresh_interval() - 1 };
        self.blocks().window_size.saturating_sub(leaving)
    }
}
