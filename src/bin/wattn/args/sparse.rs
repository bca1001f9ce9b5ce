//! The options of sparse attention, shared by `attend` and `recall`, and how they map to a selection.

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use wattn::lm::{LayerAttention, ListSource};
use wattn::{
    AttentionShape, DType, Granularity, GroupBounds, HeadReduction, Hip, InfiniteHip, Mask, Preset, Representative,
    SelectionMethod, SelectionProblem, Stage,
};

use AttentionArg::{Blocks, Dense, Hip as HipArg, InfiniteHip as InfiniteArg};

use crate::failure::Failure;

/// The keys that attention reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttentionArg {
    /// All keys that the mask shows
    #[default]
    Dense,
    /// Selected blocks (HiP), sinks and a window
    Hip,
    /// Selected blocks (InfiniteHiP), sinks and a window
    InfiniteHip,
    /// Blocks listed in the input file, sinks and a window
    Blocks,
}

impl AttentionArg {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Hip => "hip",
            Self::InfiniteHip => "infinite-hip",
            Self::Blocks => "blocks",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Dense, Self::Hip, Self::InfiniteHip, Self::Blocks].into_iter().find(|method| method.name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GranularityArg {
    /// A list for each query head
    QueryHead,
    /// A list for the query heads of each KV head
    KvHead,
    /// A list for all heads
    Layer,
}

impl From<GranularityArg> for Granularity {
    fn from(granularity: GranularityArg) -> Self {
        match granularity {
            GranularityArg::QueryHead => Self::QueryHead,
            GranularityArg::KvHead => Self::KvHead,
            GranularityArg::Layer => Self::Layer,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HipRepresentativeArg {
    Center,
    First,
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StageRepresentativeArg {
    /// The middle key, as in the published code
    Center,
    /// The first key, as in the paper's pseudo-code
    First,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeadReductionArg {
    /// One top-k, by the largest score over the heads
    Max,
    /// The union of the top-k of each head
    Union,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// Options that several methods take.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Sparse attention")]
pub(crate) struct SelectionArgs {
    /// Number of first keys that every query sees [default: 16 for hip, the preset's for infinite-hip, 0 for blocks]
    #[arg(long, value_name = "KEYS", allow_negative_numbers = true)]
    sink: Option<u32>,
    /// Number of last keys that every query sees, its own among them [default: 256 for hip, the preset's for infinite-hip, 0 for blocks]
    #[arg(long, value_name = "KEYS", allow_negative_numbers = true)]
    window: Option<u32>,
    /// Heads that share a list of blocks [default: query-head, or layer for infinite-hip]
    #[arg(long, value_enum)]
    granularity: Option<GranularityArg>,
    /// Factor on q·k in the scores of the selection; 1 scores q unscaled [default: the softmax scale]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    selection_scale: Option<f32>,
    /// Query blocks that end before position N are dense [default: 0, in recall 4096 for hip and 8192 for infinite-hip]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    dense_below: Option<u32>,
    /// Queries that share a list, for infinite-hip [default: 64] and blocks
    #[arg(long, value_name = "QUERIES", allow_negative_numbers = true)]
    block_q: Option<u32>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "HiP (--attention hip)")]
pub(crate) struct HipArgs {
    /// Keys selected for a query block [default: 512]
    #[arg(long, value_name = "KEYS", allow_negative_numbers = true)]
    hip_k: Option<u32>,
    /// Queries that share a list [default: 64]
    #[arg(long, value_name = "QUERIES", allow_negative_numbers = true)]
    hip_block_q: Option<u32>,
    /// Score every N-th query of a block [default: 2]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    hip_stride_q: Option<u32>,
    /// Keys of a block [default: 2]
    #[arg(long, value_name = "KEYS", allow_negative_numbers = true)]
    hip_block_k: Option<u32>,
    /// Score every N-th key of a block [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    hip_stride_k: Option<u32>,
    /// The block that stands for a branch of the tree [default: center]
    #[arg(long, value_enum)]
    hip_representative: Option<HipRepresentativeArg>,
    /// Round the first branches so that they rarely move while the context grows [default: off]
    #[arg(long, value_enum)]
    hip_align_groups: Option<Switch>,
    /// Decode steps N that share a list; N - 1 keys of the window are candidates too [default: 1]
    #[arg(long, value_name = "STEPS", allow_negative_numbers = true)]
    hip_refresh: Option<u32>,
}

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "InfiniteHiP (--attention infinite-hip)")]
pub(crate) struct InfiniteHipArgs {
    /// Published settings, instead of the stage options [default: 3K]
    #[arg(long, value_name = "NAME", ignore_case = true, value_parser = preset_parser())]
    preset: Option<Preset>,
    /// Keys of a chunk in each stage; chunks of the last stage are the blocks [default: 256,32,8]
    #[arg(long, value_name = "KEYS", value_delimiter = ',', allow_negative_numbers = true)]
    stage_chunks: Option<Vec<u32>>,
    /// Keys that enter the second stage, the third, ... [default: 32768,8192]
    #[arg(long, value_name = "KEYS", value_delimiter = ',', allow_negative_numbers = true)]
    stage_k: Option<Vec<u32>>,
    /// Keys that leave the last stage [default: 2048]
    #[arg(long, value_name = "KEYS", allow_negative_numbers = true)]
    stage_final: Option<u32>,
    /// Neighbouring queries averaged before each stage scores them [default: 4,4,1]
    #[arg(long, value_name = "N", value_delimiter = ',', allow_negative_numbers = true)]
    stage_stride_q: Option<Vec<u32>>,
    /// Decode steps that share the results of each stage [default: 16,8,4]
    #[arg(long, value_name = "STEPS", value_delimiter = ',', allow_negative_numbers = true)]
    stage_refresh: Option<Vec<u32>>,
    /// The key that stands for a half of a chunk [default: center]
    #[arg(long, value_enum)]
    stage_representative: Option<StageRepresentativeArg>,
    /// How heads that share a list combine their scores [default: max]
    #[arg(long, value_enum)]
    head_reduction: Option<HeadReductionArg>,
}

fn preset_parser() -> impl clap::builder::TypedValueParser<Value = Preset> {
    PossibleValuesParser::new(Preset::ALL.map(Preset::name))
        .try_map(|name| Preset::from_name(&name).ok_or("no such preset"))
}

/// All options of sparse attention.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SparseArgs {
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    hip: HipArgs,
    #[command(flatten)]
    infinite: InfiniteHipArgs,
}

/// A selection without the sizes of its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    pub(crate) name: &'static str,
    method: SelectionMethod,
    granularity: Option<Granularity>,
    mask: Mask,
    scale: Option<f32>,
    dense_below: u32,
}

impl Selector {
    /// The selection on tensors of these sizes, with scores scaled like the softmax unless options say otherwise.
    pub(crate) fn problem(&self, shape: AttentionShape, dtype: DType, softmax_scale: f32) -> SelectionProblem {
        let problem = SelectionProblem::new(shape, dtype, self.method.clone())
            .with_mask(self.mask)
            .with_selection_scale(self.scale.unwrap_or(softmax_scale))
            .with_dense_below(self.dense_below);
        match self.granularity {
            Some(granularity) => problem.with_granularity(granularity),
            None => problem,
        }
    }
}

impl Selector {
    /// The selection of a language model's layer.
    pub(super) fn layer(self) -> Result<LayerAttention, Failure> {
        if self.scale.is_some() {
            let message = "--selection-scale changes the scores that lists come with, and a model looks at none";
            return Err(Failure::Usage(message.to_owned()));
        }
        let Self { method, granularity, dense_below, .. } = self;
        Ok(LayerAttention::Sparse { method, lists: ListSource::Selected, granularity, dense_below })
    }
}

impl SparseArgs {
    /// `(name, whether it was given, methods that take it)` of every option.
    fn given(&self) -> Vec<(&'static str, bool, &'static [AttentionArg])> {
        const SELECTED: &[AttentionArg] = &[HipArg, InfiniteArg, Blocks];
        const SEARCHED: &[AttentionArg] = &[HipArg, InfiniteArg];
        const HIP: &[AttentionArg] = &[HipArg];
        const INFINITE: &[AttentionArg] = &[InfiniteArg];
        let (shared, hip, infinite) = (&self.selection, &self.hip, &self.infinite);
        vec![
            ("--sink", shared.sink.is_some(), SELECTED),
            ("--window", shared.window.is_some(), SELECTED),
            ("--granularity", shared.granularity.is_some(), SELECTED),
            ("--selection-scale", shared.selection_scale.is_some(), SEARCHED),
            ("--dense-below", shared.dense_below.is_some(), SELECTED),
            ("--block-q", shared.block_q.is_some(), &[InfiniteArg, Blocks]),
            ("--hip-k", hip.hip_k.is_some(), HIP),
            ("--hip-block-q", hip.hip_block_q.is_some(), HIP),
            ("--hip-stride-q", hip.hip_stride_q.is_some(), HIP),
            ("--hip-block-k", hip.hip_block_k.is_some(), HIP),
            ("--hip-stride-k", hip.hip_stride_k.is_some(), HIP),
            ("--hip-representative", hip.hip_representative.is_some(), HIP),
            ("--hip-align-groups", hip.hip_align_groups.is_some(), HIP),
            ("--hip-refresh", hip.hip_refresh.is_some(), HIP),
            ("--preset", infinite.preset.is_some(), INFINITE),
            ("--stage-chunks", infinite.stage_chunks.is_some(), INFINITE),
            ("--stage-k", infinite.stage_k.is_some(), INFINITE),
            ("--stage-final", infinite.stage_final.is_some(), INFINITE),
            ("--stage-stride-q", infinite.stage_stride_q.is_some(), INFINITE),
            ("--stage-refresh", infinite.stage_refresh.is_some(), INFINITE),
            ("--stage-representative", infinite.stage_representative.is_some(), INFINITE),
            ("--head-reduction", infinite.head_reduction.is_some(), INFINITE),
        ]
    }

    /// The selection of a method; `None` for methods without one. `dense_below` is the default where no option gives it.
    pub(crate) fn selector(
        &self,
        attention: AttentionArg,
        mask: Mask,
        dense_below: fn(&SelectionMethod) -> u32,
    ) -> Result<Option<Selector>, Failure> {
        let method: SelectionMethod = match attention {
            Dense | Blocks => return Ok(None),
            HipArg => self.hip(mask).into(),
            InfiniteArg => self.infinite_hip()?.into(),
        };
        Ok(Some(Selector {
            name: attention.name(),
            granularity: self.granularity(),
            mask,
            scale: self.selection.selection_scale,
            dense_below: self.selection.dense_below.unwrap_or_else(|| dense_below(&method)),
            method,
        }))
    }

    pub(super) fn granularity(&self) -> Option<Granularity> {
        self.selection.granularity.map(Granularity::from)
    }

    pub(super) fn sink(&self) -> Option<u32> {
        self.selection.sink
    }

    pub(super) fn window(&self) -> Option<u32> {
        self.selection.window
    }

    pub(super) fn dense_below(&self) -> Option<u32> {
        self.selection.dense_below
    }

    pub(super) fn block_size_q(&self) -> Option<u32> {
        self.selection.block_q
    }

    /// A given option that no wanted method takes is an error, since it would have no effect.
    pub(crate) fn check(&self, wanted: &[AttentionArg]) -> Result<(), Failure> {
        for (name, given, takers) in self.given() {
            if given {
                check_taken(name, takers, wanted)?;
            }
        }
        Ok(())
    }

    fn hip(&self, mask: Mask) -> Hip {
        let (args, defaults) = (&self.hip, Hip::default());
        // Without a causal mask there are neither sinks nor a window.
        let always = |default| if mask == Mask::Full { 0 } else { default };
        Hip::default()
            .with_top_k(args.hip_k.unwrap_or(defaults.top_k))
            .with_block_size_q(args.hip_block_q.unwrap_or(defaults.block_size_q))
            .with_stride_q(args.hip_stride_q.unwrap_or(defaults.stride_q))
            .with_block_size_k(args.hip_block_k.unwrap_or(defaults.block_size_k))
            .with_stride_k(args.hip_stride_k.unwrap_or(defaults.stride_k))
            .with_sink_size(self.sink().unwrap_or(always(defaults.sink_size)))
            .with_window_size(self.window().unwrap_or(always(defaults.window_size)))
            .with_representative(match args.hip_representative {
                None => defaults.representative,
                Some(HipRepresentativeArg::Center) => Representative::Center,
                Some(HipRepresentativeArg::First) => Representative::First,
                Some(HipRepresentativeArg::Last) => Representative::Last,
            })
            .with_group_bounds(match args.hip_align_groups {
                None => defaults.group_bounds,
                Some(Switch::On) => GroupBounds::Aligned,
                Some(Switch::Off) => GroupBounds::Even,
            })
            .with_refresh_interval(args.hip_refresh.unwrap_or(defaults.refresh_interval))
    }

    fn infinite_hip(&self) -> Result<InfiniteHip, Failure> {
        let args = &self.infinite;
        let mut method = InfiniteHip::from(args.preset.unwrap_or(Preset::ThreeK));
        let stages = ["--stage-chunks", "--stage-k", "--stage-final", "--stage-stride-q", "--stage-refresh"];
        let stage_option = self.given().into_iter().find(|(name, given, _)| *given && stages.contains(name));
        match (args.preset, stage_option) {
            (Some(preset), Some((name, ..))) => {
                let message = format!("--preset {preset} sets all stages, {name} would change one; give either");
                return Err(Failure::Usage(message));
            }
            (None, Some(_)) => method.stages = args.stages(&method.stages)?,
            (_, None) => {}
        }
        if let Some(block_size_q) = self.selection.block_q {
            method.block_size_q = block_size_q;
        }
        method.sink_size = self.sink().unwrap_or(method.sink_size);
        method.window_size = self.window().unwrap_or(method.window_size);
        match args.stage_representative {
            None => {}
            Some(StageRepresentativeArg::Center) => method.representative = Representative::Center,
            Some(StageRepresentativeArg::First) => method.representative = Representative::First,
        }
        match args.head_reduction {
            None => {}
            Some(HeadReductionArg::Max) => method.reduction = HeadReduction::Max,
            Some(HeadReductionArg::Union) => method.reduction = HeadReduction::Union,
        }
        Ok(method)
    }
}

impl InfiniteHipArgs {
    /// The stages of the options. Options that are not given take the first values of the preset, also for fewer stages.
    fn stages(&self, preset: &[Stage]) -> Result<Vec<Stage>, Failure> {
        let chunks = match &self.stage_chunks {
            Some(chunks) => chunks.clone(),
            None => preset.iter().map(|stage| stage.chunk_size).collect(),
        };
        let list = |name, given: &Option<Vec<u32>>, preset: &[Stage], default: fn(&Stage) -> u32, len: usize| {
            let values = match given {
                Some(values) => values.clone(),
                None => preset.iter().take(len).map(default).collect(),
            };
            if values.len() == len {
                return Ok(values);
            }
            let (stages, numbers) = (count(chunks.len(), "stage"), count(len, "number"));
            let what = if given.is_some() { format!("{} given", values.len()) } else { "none given".to_owned() };
            Err(Failure::Usage(format!("{name} needs {numbers} for {stages} of --stage-chunks, {what}")))
        };
        let len = chunks.len();
        // What leaves a stage enters the next one; what leaves the last one is the result.
        let default_final = preset.last().map_or(0, |stage| stage.keep);
        let entering = &preset[..preset.len().saturating_sub(1)];
        let mut keep = list("--stage-k", &self.stage_k, entering, |stage| stage.keep, len.saturating_sub(1))?;
        keep.push(self.stage_final.unwrap_or(default_final));
        let strides = list("--stage-stride-q", &self.stage_stride_q, preset, |stage| stage.stride_q, len)?;
        let refresh = list("--stage-refresh", &self.stage_refresh, preset, |stage| stage.refresh_interval, len)?;
        let numbers = chunks.iter().zip(keep).zip(strides).zip(refresh);
        let stage = |(((&chunk_size, keep), stride_q), refresh_interval)| {
            Stage::new(chunk_size, keep).with_stride_q(stride_q).with_refresh_interval(refresh_interval)
        };
        Ok(numbers.map(stage).collect())
    }
}

/// `1 stage`, `2 stages`.
fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Whether one of the wanted methods takes an option.
pub(super) fn check_taken(name: &str, takers: &[AttentionArg], wanted: &[AttentionArg]) -> Result<(), Failure> {
    if takers.iter().any(|taker| wanted.contains(taker)) {
        return Ok(());
    }
    let names = |list: &[AttentionArg], between| {
        list.iter().map(|attention| attention.name()).collect::<Vec<_>>().join(between)
    };
    let (takers, wanted) = (names(takers, " or "), names(wanted, ","));
    Err(Failure::Usage(format!("{name} is for --attention {takers}, not {wanted}")))
}
