//! The crate's own modules, by family: the files of `shaders/shared`.

use super::Binding;
use crate::shader::{Module, Need};

macro_rules! modules {
    ($($name:ident = $family:literal, $file:literal $(, $method:ident $argument:expr)*;)*) => {
        $(
            #[doc = concat!("`shaders/shared/", $file, ".wgsl`.")]
            pub static $name: Module =
                Module::own($family, $file, include_str!(concat!("../../shaders/shared/", $file, ".wgsl")))$(.$method($argument))*;
        )*

        /// Every one.
        pub static ALL: &[&Module] = &[$(&$name,)*];
    };
}

modules! {
    ATTEND_PARAMS = "shared", "attend_params";
    MERGE_PARAMS = "shared", "merge_params";
    SELECT_PARAMS = "shared", "select_params";
    CHECK_PARAMS = "shared", "check_params";
    SEQ_LENS = "shared", "seq_lens";
    NON_FINITE = "shared", "non_finite";
    SELECT_PLACE = "shared", "select_place";
    SAMPLING_STRIDE = "sampling", "sampling_stride";
    SAMPLING_MEAN = "sampling", "sampling_mean";
    SAMPLE_PLACE = "shared", "sample_place";
    BEST_SCORES = "best_scores", "best_scores";
    BEST_SCORES_COLUMNS = "best_scores", "best_scores_columns";
    MARKS_NONE = "marks", "marks_none";
    MARKS_GIVEN = "marks", "marks_given", binding &[Binding::read("marks")];
    SCORE_KEY = "shared", "score_key";
    TOP_K = "top_k", "top_k";
    TOP_K_BUCKETS = "top_k", "top_k_buckets";
    BEAM_SCRATCH = "beam", "beam_scratch";
    BEAM_WORKGROUP = "beam", "beam_workgroup";
    CHUNKS = "shared", "chunks";
    ATTEND_PLACE = "shared", "attend_place";
    ATTEND_TILE = "shared", "attend_tile";
    WALK_RANGE = "walk", "walk_range";
    WALK_SELECTED = "walk", "walk_selected", binding &[Binding::read("block_indices"), Binding::read("block_counts")];
    HAND_RANGE = "hand", "hand_range";
    HAND_SELECTED = "hand", "hand_selected";
    HAND_STAGED = "hand", "hand_staged";
    CARRY_NONE = "carry", "carry_none";
    CARRY_STATE = "carry", "carry_state", binding &[Binding::write("carried")];
    CHUNK_ONE = "chunk", "chunk_one";
    CHUNK_PAIR = "chunk", "chunk_pair";
    JOIN_ALONE = "join", "join_alone";
    JOIN_LANES = "join", "join_lanes";
    FOLD_NONE = "fold", "fold_none";
    FOLD_SUMS = "fold", "fold_sums";
    FACTORS_STORED = "factors", "factors_stored";
    FACTORS_SCALED = "factors", "factors_scaled", binding &[Binding::write("exponents")], needing &[Need::F16];
    ATTEND_ROWS = "rows", "attend_rows";
    ATTEND_ROWS_COLUMNS = "rows", "attend_rows_columns";
    MATRIX_LANES = "shared", "matrix_lanes";
    ATTEND_ROWS_MATRIX = "rows", "attend_rows_matrix";
    ATTEND_ROWS_STAGED = "rows", "attend_rows_staged";
    MATRIX_8 = "matrix", "matrix_8", needing &[Need::Matrices];
    MATRIX_16 = "matrix", "matrix_16", needing &[Need::Matrices];
    TILES_VEC4 = "tiles", "tiles_vec4";
    TILES_SCALAR = "tiles", "tiles_scalar";
    VALUES_VEC4 = "values", "values_vec4";
    VALUES_SCALAR = "values", "values_scalar";
    SCORE_LANES = "score", "score_lanes";
    SCORE_MATRIX = "score", "score_matrix";
    ELEM_F32 = "elem", "elem_f32";
    ELEM_F32_WIDE = "elem", "elem_f32_wide", needing &[Need::Int64];
    ELEM_F16 = "elem", "elem_f16", needing &[Need::F16];
    ELEM_F16_PACKED = "elem", "elem_f16_packed";
    ELEM_BF16 = "elem", "elem_bf16";
    QUERIES_LOADED = "queries", "queries_loaded";
    QUERIES_KEPT = "queries", "queries_kept";
    OUT_F32 = "out", "out_f32";
    OUT_F16 = "out", "out_f16", needing &[Need::F16];
    OUT_F16_PACKED = "out", "out_f16_packed";
    OUT_BF16 = "out", "out_bf16";
    SHARE_WORKGROUP = "share", "share_workgroup";
    SHARE_SUBGROUP = "share", "share_subgroup", needing &[Need::Subgroups];
    SHARE_SEGMENT = "share", "share_segment", needing &[Need::Subgroups];
    REDUCE_WORKGROUP = "reduce", "reduce_workgroup";
    REDUCE_SUBGROUP = "reduce", "reduce_subgroup", needing &[Need::Subgroups];
    REDUCE_SEGMENT = "reduce", "reduce_segment", needing &[Need::Subgroups];
}
