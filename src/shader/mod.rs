//! WGSL text assembly: one module of each family, constants, the kernel's own file. There is no preprocessor: every
//! file is WGSL, and variation is the choice of modules and the values of constants.

mod edits;
mod specialization;
mod unroll;

use core::fmt::Write as _;
use std::collections::BTreeMap;

use crate::kernels::Binding;

pub(crate) use edits::edited;
pub use specialization::Specialization;
pub(crate) use unroll::{Arrays, unroll};

/// A file of `shaders/shared`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Module {
    AttendParams,
    MergeParams,
    SelectParams,
    CheckParams,
    SeqLens,
    NonFinite,
    SelectPlace,
    SamplingStride,
    SamplingMean,
    SamplePlace,
    BestScores,
    BestScoresColumns,
    ScoreKey,
    TopK,
    TopKBuckets,
    BeamScratch,
    BeamWorkgroup,
    Chunks,
    AttendPlace,
    AttendTile,
    WalkRange,
    WalkSelected,
    HandRange,
    HandSelected,
    HandStaged,
    CarryNone,
    CarryState,
    ChunkOne,
    ChunkPair,
    JoinAlone,
    JoinLanes,
    FoldNone,
    FoldSums,
    FactorsStored,
    FactorsScaled,
    AttendRows,
    AttendRowsColumns,
    MatrixLanes,
    AttendRowsMatrix,
    AttendRowsStaged,
    Matrix8,
    Matrix16,
    TilesVec4,
    TilesScalar,
    ValuesVec4,
    ValuesScalar,
    ScoreLanes,
    ScoreMatrix,
    ElemF32,
    ElemF32Wide,
    ElemF16,
    ElemF16Packed,
    ElemBf16,
    QueriesLoaded,
    QueriesKept,
    OutF32,
    OutF16,
    OutF16Packed,
    OutBf16,
    ShareWorkgroup,
    ShareSubgroup,
    ShareSegment,
    ReduceWorkgroup,
    ReduceSubgroup,
    ReduceSegment,
}

macro_rules! module_table {
    ($($variant:ident => $name:literal,)*) => {
        impl Module {
            /// The file's stem.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            fn source(self) -> &'static str {
                match self { $(Self::$variant => include_str!(concat!("../../shaders/shared/", $name, ".wgsl")),)* }
            }
        }
    };
}

module_table! {
    AttendParams => "attend_params",
    MergeParams => "merge_params",
    SelectParams => "select_params",
    CheckParams => "check_params",
    SeqLens => "seq_lens",
    NonFinite => "non_finite",
    SelectPlace => "select_place",
    SamplingStride => "sampling_stride",
    SamplingMean => "sampling_mean",
    SamplePlace => "sample_place",
    BestScores => "best_scores",
    BestScoresColumns => "best_scores_columns",
    ScoreKey => "score_key",
    TopK => "top_k",
    TopKBuckets => "top_k_buckets",
    BeamScratch => "beam_scratch",
    BeamWorkgroup => "beam_workgroup",
    Chunks => "chunks",
    AttendPlace => "attend_place",
    AttendTile => "attend_tile",
    WalkRange => "walk_range",
    WalkSelected => "walk_selected",
    HandRange => "hand_range",
    HandSelected => "hand_selected",
    HandStaged => "hand_staged",
    CarryNone => "carry_none",
    CarryState => "carry_state",
    ChunkOne => "chunk_one",
    ChunkPair => "chunk_pair",
    JoinAlone => "join_alone",
    JoinLanes => "join_lanes",
    FoldNone => "fold_none",
    FoldSums => "fold_sums",
    FactorsStored => "factors_stored",
    FactorsScaled => "factors_scaled",
    AttendRows => "attend_rows",
    AttendRowsColumns => "attend_rows_columns",
    MatrixLanes => "matrix_lanes",
    AttendRowsMatrix => "attend_rows_matrix",
    AttendRowsStaged => "attend_rows_staged",
    Matrix8 => "matrix_8",
    Matrix16 => "matrix_16",
    TilesVec4 => "tiles_vec4",
    TilesScalar => "tiles_scalar",
    ValuesVec4 => "values_vec4",
    ValuesScalar => "values_scalar",
    ScoreLanes => "score_lanes",
    ScoreMatrix => "score_matrix",
    ElemF32 => "elem_f32",
    ElemF32Wide => "elem_f32_wide",
    ElemF16 => "elem_f16",
    ElemF16Packed => "elem_f16_packed",
    ElemBf16 => "elem_bf16",
    QueriesLoaded => "queries_loaded",
    QueriesKept => "queries_kept",
    OutF32 => "out_f32",
    OutF16 => "out_f16",
    OutF16Packed => "out_f16_packed",
    OutBf16 => "out_bf16",
    ShareWorkgroup => "share_workgroup",
    ShareSubgroup => "share_subgroup",
    ShareSegment => "share_segment",
    ReduceWorkgroup => "reduce_workgroup",
    ReduceSubgroup => "reduce_subgroup",
    ReduceSegment => "reduce_segment",
}

impl Module {
    const fn needs_f16(self) -> bool {
        matches!(self, Self::ElemF16 | Self::OutF16 | Self::FactorsScaled)
    }

    const fn needs_int64(self) -> bool {
        matches!(self, Self::ElemF32Wide)
    }

    const fn needs_matrices(self) -> bool {
        matches!(self, Self::Matrix8 | Self::Matrix16)
    }

    /// Bindings that the module brings, after those of the kernel.
    pub(crate) const fn bindings(self) -> &'static [Binding] {
        const BLOCKS: [Binding; 2] = [Binding::read("block_indices"), Binding::read("block_counts")];
        const EXPONENTS: [Binding; 1] = [Binding::write("exponents")];
        const CARRIED: [Binding; 1] = [Binding::write("carried")];
        match self {
            Self::WalkSelected => &BLOCKS,
            Self::FactorsScaled => &EXPONENTS,
            Self::CarryState => &CARRIED,
            _ => &[],
        }
    }
}

impl Specialization {
    /// Whether it has the type u64.
    pub(crate) fn needs_int64(&self) -> bool {
        self.modules.iter().any(|module| module.needs_int64())
    }

    /// The complete WGSL of this variant.
    #[must_use]
    pub fn wgsl(&self) -> String {
        self.assemble(|text| unroll(text, &self.constants, self.arrays))
    }

    /// [`wgsl`](Self::wgsl) with its loops as they stand in the files. For tests: the marked loops are WGSL themselves.
    #[doc(hidden)]
    #[must_use]
    pub fn wgsl_rolled(&self) -> String {
        self.assemble(str::to_owned)
    }

    fn assemble(&self, prepare: impl Fn(&str) -> String) -> String {
        assemble(&self.modules, &self.constants, &self.switches, self.kernel.source(), prepare)
    }
}

/// A text of modules, constants and a kernel's own file.
pub(crate) fn assemble(
    modules: &[Module],
    constants: &BTreeMap<&'static str, u32>,
    switches: &BTreeMap<&'static str, bool>,
    kernel: &str,
    prepare: impl Fn(&str) -> String,
) -> String {
    let mut source = String::new();
    if modules.iter().any(|module| module.needs_f16()) {
        source.push_str("enable f16;\n");
    }
    if modules.iter().any(|module| module.needs_matrices()) {
        source.push_str("enable wgpu_cooperative_matrix;\n");
        // naga takes every variable of a function for different in each invocation, and refuses matrix operations
        // under a condition on one. Ours are the same for a whole workgroup, and have barriers beside them.
        source.push_str("diagnostic(off, derivative_uniformity);\n");
    }
    for (name, value) in constants {
        // Writing to a String cannot fail.
        let _ = writeln!(source, "const {name}: u32 = {value}u;");
    }
    for (name, value) in switches {
        let _ = writeln!(source, "const {name}: bool = {value};");
    }
    for text in modules.iter().map(|module| module.source()).chain([kernel]) {
        source.push('\n');
        source.push_str(&prepare(&edited(text)));
    }
    source
}
