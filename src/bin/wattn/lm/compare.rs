//! Kinds of attention that read the same number of keys for a query.

use wattn::lm::{LayerAttention, ListSource};
use wattn::{GroupBounds, Hip, InfiniteHip, Preset, Stage};

/// Numbers of first and of last keys that every kind reads.
const SINKS: u32 = 16;
const WINDOW: u32 = 64;

/// A kind of attention and its name.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    pub(crate) name: String,
    /// Number of keys that it may read for a query; `None`: all.
    pub(crate) budget: Option<u32>,
    pub(crate) attention: LayerAttention,
}

impl Method {
    pub(crate) fn dense() -> Self {
        Self { name: "dense".to_owned(), budget: None, attention: LayerAttention::Dense }
    }

    /// A preset of InfiniteHiP as published.
    pub(crate) fn preset(preset: Preset) -> Self {
        let method = InfiniteHip::from(preset);
        let selected = method.stages.last().map_or(0, |stage| stage.keep);
        let budget = Some(selected + method.sink_size + method.window_size);
        Self { name: format!("InfiniteHiP {preset}"), budget, attention: LayerAttention::select(method) }
    }

    /// All kinds that read `budget` keys, sinks and window included.
    pub(crate) fn with_budget(budget: u32, seed: u64) -> Vec<Self> {
        let hip = hip(budget);
        let of = |name: &str, attention| Self { name: name.to_owned(), budget: Some(budget), attention };
        vec![
            of("HiP", LayerAttention::select(hip)),
            of("InfiniteHiP", LayerAttention::select(infinite_hip(budget))),
            of("window + sinks", LayerAttention::window(SINKS, budget.saturating_sub(SINKS))),
            of("random blocks", LayerAttention::listed(hip, ListSource::Random { seed })),
        ]
    }

    /// HiP that reads `budget` keys.
    pub(crate) fn hip(budget: u32) -> Self {
        Self { name: "HiP".to_owned(), budget: Some(budget), attention: LayerAttention::select(hip(budget)) }
    }
}

/// Smallest budget that leaves room for selected keys.
pub(crate) const LEAST_BUDGET: u32 = 2 * (SINKS + WINDOW);

fn hip(budget: u32) -> Hip {
    let top_k = budget.saturating_sub(SINKS + WINDOW).next_multiple_of(2);
    Hip::default()
        .with_top_k(top_k)
        .with_block_size_q(32)
        .with_stride_q(1)
        .with_block_size_k(2)
        .with_sink_size(SINKS)
        .with_window_size(WINDOW)
        .with_group_bounds(GroupBounds::Even)
}

/// Two stages: at most half of the chunks survive the first.
fn infinite_hip(budget: u32) -> InfiniteHip {
    let keep = budget.saturating_sub(SINKS + WINDOW).next_multiple_of(8);
    let stages = vec![
        Stage::new(32, (2 * keep).next_multiple_of(32)).with_stride_q(2).with_refresh_interval(8),
        Stage::new(8, keep).with_refresh_interval(4),
    ];
    InfiniteHip::from(Preset::ThreeK)
        .with_block_size_q(32)
        .with_stages(stages)
        .with_sink_size(SINKS)
        .with_window_size(WINDOW)
}

/// A budget, or `all`.
pub(super) fn keys(budget: Option<u32>) -> String {
    budget.map_or_else(|| "all".to_owned(), |budget| budget.to_string())
}
