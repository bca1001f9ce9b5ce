//! The crate's own modules, by family: `shaders/<family>/<member>.wgsl`, and shared modules in `shaders/shared`.

use super::Binding;
use super::attend_prefill::{self, AttendParams};
use super::check_blocks::CheckParams;
use super::merge_splits::MergeParams;
use super::modifiers::{BiasPlace, SoftcapNumbers};
use super::places::{LsePlace, SeqLensPlace, SinkPlace};
use super::sample_queries::{self, SelectParams};
use super::score_chunks::StageParams;
use super::stretch::StretchRecord;
use crate::shader::{Constant, Module, Need};
use crate::{LEAST_SCORE, LSE_EMPTY};

macro_rules! modules {
    (
        shared { $($shared:ident = $file:literal $(, $shared_method:ident $shared_argument:expr)*;)* }
        families { $($name:ident = $family:literal / $member:literal $(, $method:ident $argument:expr)*;)* }
    ) => {
        $(
            #[doc = concat!("`shaders/shared/", $file, ".wgsl`.")]
            pub static $shared: Module =
                Module::own("shared", $file, include_str!(concat!("../../shaders/shared/", $file, ".wgsl")))
                    $(.$shared_method($shared_argument))*;
        )*
        $(
            #[doc = concat!("`shaders/", $family, "/", $member, ".wgsl`.")]
            pub static $name: Module = Module::own(
                $family,
                concat!($family, "_", $member),
                include_str!(concat!("../../shaders/", $family, "/", $member, ".wgsl")),
            )
            $(.$method($argument))*;
        )*

        /// All of them.
        pub static ALL: &[&Module] = &[$(&$shared,)* $(&$name,)*];
    };
}

modules! {
    shared {
        STRETCH = "stretch", binding &[Binding::stretch("stretch", StretchRecord::FIELDS)];
        WORKSPACE = "workspace", binding &[Binding::write("workspace")];
        ATTEND_PARAMS = "attend_params", binding &[Binding::uniform("params", AttendParams::FIELDS)];
        MERGE_PARAMS = "merge_params", binding &[Binding::uniform("params", MergeParams::FIELDS)];
        SELECT_PARAMS = "select_params", binding &[Binding::uniform("params", SelectParams::FIELDS)], declaring sample_queries::CONSTANTS;
        CHECK_PARAMS = "check_params", binding &[Binding::uniform("params", CheckParams::FIELDS)];
        NON_FINITE = "non_finite", declaring &[Constant::f32("LSE_EMPTY", LSE_EMPTY)];
        SELECT_PLACE = "select_place";
        SAMPLE_PLACE = "sample_place", declaring &[Constant::f32("MASKED", LSE_EMPTY)];
        SCORE_KEY = "score_key";
        CHUNKS = "chunks", binding &[Binding::uniform("stage", StageParams::FIELDS)];
        ATTEND_PLACE = "attend_place";
        ATTEND_TILE = "attend_tile", declaring &[Constant::f32("MASKED", LSE_EMPTY)];
        ROWS_OF_K = "rows_of_k";
        ROWS_OF_V = "rows_of_v";
        MATRIX_LANES = "matrix_lanes";
        TANH = "tanh";
        LANES = "lanes", needing &[Need::Subgroups];
        GROUP_SUMS = "group_sums";
    }
    families {
        LENGTHS_EQUAL = "lengths" / "equal";
        LENGTHS_LISTED = "lengths" / "listed", binding &[Binding::read("seq_lens_kv"), Binding::uniform("seq_lens_place", SeqLensPlace::FIELDS)];
        LSE_NONE = "lse" / "none";
        LSE_STORED = "lse" / "stored", binding &[Binding::write("lse"), Binding::uniform("lse_place", LsePlace::FIELDS)];
        SAMPLING_STRIDE = "sampling" / "stride";
        SAMPLING_MEAN = "sampling" / "mean";
        BEST_SCORES_LANES = "best_scores" / "lanes";
        BEST_SCORES_COLUMNS = "best_scores" / "columns";
        MARKS_NONE = "marks" / "none";
        MARKS_GIVEN = "marks" / "given", binding &[Binding::read("marks")];
        TOP_K_DIGITS = "top_k" / "digits";
        TOP_K_BUCKETS = "top_k" / "buckets";
        TOP_K_DEPTHS = "top_k" / "depths", needing &[Need::Subgroups];
        BEAM_SCRATCH = "beam" / "scratch";
        BEAM_WORKGROUP = "beam" / "workgroup";
        WALK_RANGE = "walk" / "range";
        WALK_SELECTED = "walk" / "selected", binding &[Binding::read("block_indices"), Binding::read("block_counts")];
        PAGING_CONTIGUOUS = "paging" / "contiguous";
        GATHER_LANE = "gather" / "lane";
        GATHER_GROUP = "gather" / "group";
        GATHER_WORKGROUP = "gather" / "workgroup";
        RESUME_NONE = "resume" / "none";
        RESUME_STATE = "resume" / "state";
        CHUNK_ONE = "chunk" / "one";
        CHUNK_PAIR = "chunk" / "pair";
        JOIN_ALONE = "join" / "alone";
        JOIN_LANES = "join" / "lanes";
        FOLD_NONE = "fold" / "none";
        FOLD_SUMS = "fold" / "sums";
        FACTORS_STORED = "factors" / "stored";
        FACTORS_SCALED = "factors" / "scaled", needing &[Need::F16];
        ROWS_KEYS = "rows" / "keys";
        ROWS_COLUMNS = "rows" / "columns";
        ROWS_SPREAD = "rows" / "spread", needing &[Need::Subgroups];
        ROWS_MATRIX = "rows" / "matrix", declaring &[Constant::f32("SLACK", attend_prefill::SLACK), Constant::f32("SHIFT", attend_prefill::SHIFT)];
        ROWS_STAGED = "rows" / "staged";
        SINK_NONE = "sink" / "none";
        SINK_LEARNED = "sink" / "learned", binding &[Binding::uniform("sink_place", SinkPlace::FIELDS)];
        KEPT_SINK_NONE = "kept_sink" / "none";
        KEPT_SINK_SHARED = "kept_sink" / "shared";
        MODIFY_NONE = "modify" / "none";
        MODIFY_CHAIN = "modify" / "chain", declaring &[Constant::f32("LEAST_SCORE", LEAST_SCORE)];
        MODIFIER_SOFTCAP = "modifier" / "softcap", binding &[Binding::uniform("softcap", SoftcapNumbers::FIELDS)];
        MODIFIER_ALIBI = "modifier" / "alibi", binding &[Binding::read("slopes")];
        MODIFIER_BIAS = "modifier" / "bias", binding &[Binding::uniform("bias_place", BiasPlace::FIELDS)];
        NUMBER_F32 = "number" / "f32", binding &[Binding::read("numbers")];
        NUMBER_F16 = "number" / "f16", binding &[Binding::read("numbers")];
        NUMBER_BF16 = "number" / "bf16", binding &[Binding::read("numbers")];
        MATRIX_8 = "matrix" / "8", needing &[Need::Matrices];
        MATRIX_16 = "matrix" / "16", needing &[Need::Matrices];
        TILES_VEC4 = "tiles" / "vec4";
        TILES_SCALAR = "tiles" / "scalar";
        VALUES_VEC4 = "values" / "vec4";
        VALUES_SCALAR = "values" / "scalar";
        SCORE_LANES = "score" / "lanes";
        SCORE_COLUMNS = "score" / "columns", needing &[Need::Subgroups], declaring &[Constant::f32("MASKED", LSE_EMPTY)];
        SCORE_MATRIX = "score" / "matrix", declaring &[Constant::f32("MASKED", LSE_EMPTY)];
        ELEM_F32 = "elem" / "f32";
        ELEM_F32_WIDE = "elem" / "f32_wide", needing &[Need::Int64];
        ELEM_F16 = "elem" / "f16", needing &[Need::F16];
        ELEM_F16_PACKED = "elem" / "f16_packed";
        ELEM_BF16 = "elem" / "bf16";
        Q_STREAMED = "q" / "streamed";
        Q_CACHED = "q" / "cached";
        OUT_F32 = "out" / "f32";
        OUT_F16 = "out" / "f16", needing &[Need::F16];
        OUT_F16_PACKED = "out" / "f16_packed";
        OUT_BF16 = "out" / "bf16";
        SHUFFLE_WORKGROUP = "shuffle" / "workgroup";
        SHUFFLE_SUBGROUP = "shuffle" / "subgroup", needing &[Need::Subgroups];
        SHUFFLE_SEGMENT = "shuffle" / "segment", needing &[Need::Subgroups];
        REDUCE_WORKGROUP = "reduce" / "workgroup";
        REDUCE_SUBGROUP = "reduce" / "subgroup", needing &[Need::Subgroups];
        REDUCE_SEGMENT = "reduce" / "segment", needing &[Need::Subgroups];
    }
}

/// The member of `lengths` for a problem.
pub(crate) const fn lengths(listed: bool) -> &'static Module {
    if listed { &LENGTHS_LISTED } else { &LENGTHS_EQUAL }
}

/// The member of `lse` for a problem.
pub(crate) const fn lse(stored: bool) -> &'static Module {
    if stored { &LSE_STORED } else { &LSE_NONE }
}
