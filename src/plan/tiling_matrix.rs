//! Tile sizes of the kernels that multiply matrices in hardware.

use std::collections::BTreeMap;

use super::attend::RowSets;
use super::{Sharing, Tiling};
use crate::shader::Module;
use crate::{AttentionProblem, BlockSelection, DType, DeviceCaps, Error, Result, Tier};

/// vec4 elements between the rows of f16 tiles that hold nothing: 16 bytes, so that rows stay aligned for wide loads and
/// those of a matrix fall on different banks.
pub(super) const HALVES_PADDING4: u32 = 2;
/// The same for rows of f32.
pub(super) const FLOATS_PADDING4: u32 = 1;

/// What the matrix edge makes of a tiling and a problem: sizes that the shader and the budget of workgroup memory share.
#[derive(Clone, Copy, Debug)]
pub(super) struct MatrixTiling {
    edge: u32,
    tiling: Tiling,
    head_dim: u32,
    head_dim_v: u32,
    /// Keys that a row may see.
    walk_keys: u32,
}

/// Keys that matrices sum up before their sums are folded.
const FOLD_KEYS: u32 = 4096;

impl MatrixTiling {
    pub(super) fn new(problem: &AttentionProblem, tiling: Tiling, edge: u32) -> Self {
        let shape = problem.shape();
        let listed = |blocks: &BlockSelection| blocks.most_keys().max(blocks.dense_below.into());
        let walk_keys = problem.blocks.as_ref().map_or(u64::MAX, listed).min(shape.seq_len_kv.into());
        // At most a u32.
        Self { edge, tiling, head_dim: shape.head_dim, head_dim_v: shape.head_dim_v, walk_keys: walk_keys as u32 }
    }

    /// The tiling for a problem on a device with matrices of this edge; `None` when workgroup memory holds none.
    pub(super) fn choose(problem: &AttentionProblem, caps: &DeviceCaps, edge: u32) -> Option<Tiling> {
        let lanes = *caps.subgroup_size.as_ref()?.start();
        let num_rows = RowSets::of(problem).rows_per_q_block();
        // One row of matrices a subgroup: two would double the products for each load, and with heads 128 wide take more
        // than the 255 registers that an invocation may have.
        let rows = edge;
        // 32 keys let scores, weights and tiles of heads 128 wide fit in 32 KiB.
        let keys = (32 / lanes).max(1);
        // Four subgroups share what is loaded of keys and values.
        let groups = num_rows.div_ceil(rows.into()).clamp(1, 4) as u32;
        let mut tiling = Tiling { lanes, rows, keys, groups, num_splits: 1, sharing: Sharing::Keys };
        while Self::new(problem, tiling, edge).validate(caps).is_err() {
            // Fewer keys cost barriers, fewer groups loads.
            if tiling.keys > 1 && (tiling.tile_kv() / 2).is_multiple_of(edge) {
                tiling.keys /= 2;
            } else if tiling.groups > 1 {
                tiling.groups /= 2;
            } else {
                return None;
            }
        }
        Some(tiling)
    }

    /// Workgroup memory of the smallest tiling.
    pub(super) fn least_storage_bytes(problem: &AttentionProblem, caps: &DeviceCaps, edge: u32) -> u64 {
        let lanes = caps.subgroup_size.as_ref().map_or(edge, |size| *size.start());
        let tiling =
            Tiling { lanes, rows: edge, keys: (edge / lanes).max(1), groups: 1, num_splits: 1, sharing: Sharing::Keys };
        Self::new(problem, tiling, edge).storage_bytes()
    }

    /// Checks what is particular to matrices. [`Tiling::validate`] has checked the rest.
    pub(super) fn validate(&self, caps: &DeviceCaps) -> Result<()> {
        let Self { edge, tiling, .. } = *self;
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if caps.subgroup_size.as_ref().is_none_or(|size| tiling.lanes != *size.start()) {
            return invalid("lanes", tiling.lanes, "must be the subgroup size: a subgroup holds a matrix");
        }
        if tiling.sharing != Sharing::Keys {
            return invalid("sharing", tiling.sharing as u32, "must be Sharing::Keys with matrices");
        }
        if !tiling.rows.is_multiple_of(edge) {
            return invalid("rows", tiling.rows, "must be a multiple of the matrix edge");
        }
        if !tiling.tile_kv().is_multiple_of(edge) || tiling.tile_kv() > 128 {
            return invalid("keys", tiling.keys, "lanes * keys must be a multiple of the matrix edge up to 128");
        }
        if !tiling.tile_kv().is_multiple_of(4 * self.parts()) {
            return invalid("keys", tiling.keys, "must give each lane of a row a multiple of four keys");
        }
        let (needed, available) = (self.storage_bytes(), u64::from(caps.max_workgroup_storage_bytes));
        if needed > available {
            return Err(Error::Limit { limit: "max_compute_workgroup_storage_size", needed, available });
        }
        Ok(())
    }

    /// Lanes that share a row of scores.
    const fn parts(&self) -> u32 {
        if self.tiling.lanes > self.tiling.rows { self.tiling.lanes / self.tiling.rows } else { 1 }
    }

    const fn padded4(&self, width: u32) -> u32 {
        width.next_multiple_of(self.edge) / 4
    }

    const fn k_stride4(&self) -> u32 {
        self.padded4(self.head_dim) + HALVES_PADDING4
    }

    const fn v_stride4(&self) -> u32 {
        self.padded4(self.head_dim_v) + HALVES_PADDING4
    }

    const fn weights_stride4(&self) -> u32 {
        self.tiling.tile_kv() / 4 + HALVES_PADDING4
    }

    const fn scores_stride4(&self) -> u32 {
        self.tiling.tile_kv() / 4 + FLOATS_PADDING4
    }

    /// Workgroup memory that the kernels declare: a tile of keys, one of values, weights, scores, rows' factors, two flags.
    pub(super) fn storage_bytes(&self) -> u64 {
        let rows = u64::from(self.tiling.tile_q());
        let tiles = u64::from(self.tiling.tile_kv()) * u64::from(self.k_stride4() + self.v_stride4()) * 8;
        let weights = rows * u64::from(self.weights_stride4()) * 8;
        let scores = rows * u64::from(self.scores_stride4()) * 16;
        let factors = (rows * u64::from(self.parts()) * 4).next_multiple_of(16);
        tiles + weights.next_multiple_of(16) + scores + factors + 16
    }

    /// vec4 of a column of matrices that a lane carries from part to part of a walk.
    fn carried_of_column(&self) -> u32 {
        (self.tiling.rows * self.edge / 4).div_ceil(self.tiling.lanes)
    }

    /// vec4 of a lane's share of the sums.
    fn sums_each(&self) -> u32 {
        self.padded4(self.head_dim_v) * 4 / self.edge * self.carried_of_column()
    }

    /// vec4 that a lane carries in all: its share of the sums, its rows' numbers, its share of the folded sums.
    pub(super) fn carried(&self) -> u32 {
        let folded = if self.fold_tiles() > 0 { self.sums_each() } else { 0 };
        self.sums_each() + folded + self.tiling.rows.div_ceil(self.tiling.lanes)
    }

    /// Tiles after which sums leave the matrices and are added up in f32; 0: never. A matrix unit cuts sums off, so that each product
    /// loses up to two units in the last place of what has been summed up: with [`FOLD_KEYS`] keys at a time the loss stays below a
    /// quarter of what rounding to f16 costs, at any length. Walks of up to two such runs are left as they are.
    pub(super) fn fold_tiles(&self) -> u32 {
        if self.walk_keys / self.tiling.num_splits.max(1) > 2 * FOLD_KEYS {
            FOLD_KEYS / self.tiling.tile_kv()
        } else {
            0
        }
    }

    /// Constants of the shader.
    pub(super) fn constants(&self) -> BTreeMap<&'static str, u32> {
        let Self { edge, tiling, head_dim, head_dim_v, .. } = *self;
        let (parts, tile_kv) = (self.parts(), tiling.tile_kv());
        let each = |columns4: u32| (tile_kv * columns4).div_ceil(tiling.workgroup_size());
        let (k_columns4, v_columns4) = (self.padded4(head_dim), self.padded4(head_dim_v));
        BTreeMap::from([
            ("EDGE", edge),
            ("LANES", tiling.lanes),
            ("ROWS", tiling.rows),
            ("GROUPS", tiling.groups),
            ("WORKGROUP_SIZE", tiling.workgroup_size()),
            ("TILE_Q", tiling.tile_q()),
            ("TILE_KV", tile_kv),
            ("ROW_TILES", tiling.rows / edge),
            ("KEY_TILES", tile_kv / edge),
            ("K_TILES", 4 * k_columns4 / edge),
            // What is loaded at a time of the queries is as wide as a tile of keys is long.
            ("Q_TILES", (4 * k_columns4).next_multiple_of(tile_kv) / edge),
            ("V_TILES", 4 * v_columns4 / edge),
            ("K_COLUMNS4", k_columns4),
            ("V_COLUMNS4", v_columns4),
            ("K_EACH", each(k_columns4)),
            ("V_EACH", each(v_columns4)),
            ("K_STRIDE4", self.k_stride4()),
            ("V_STRIDE4", self.v_stride4()),
            ("A_STRIDE4", self.weights_stride4()),
            ("SUMS_STRIDE4", self.scores_stride4()),
            ("TILE_A4", tiling.tile_q() * self.weights_stride4()),
            ("TILE_K4", tile_kv * self.k_stride4()),
            ("TILE_V4", tile_kv * self.v_stride4()),
            ("TILE_SUMS4", tiling.tile_q() * self.scores_stride4()),
            ("PARTS", parts),
            ("PART4", tile_kv / 4 / parts),
            ("ROWS_EACH", tiling.rows.div_ceil(tiling.lanes)),
            ("CARRIED_EACH", self.carried_of_column()),
            ("FOLD_TILES", self.fold_tiles()),
            ("FOLDED", self.sums_each()),
            ("CARRIED", 0),
            ("CARRIED_COLUMNS", 0),
            ("CARRIED_SUMS", self.sums_each()),
            ("HEAD_DIM4", head_dim / 4),
            ("HEAD_DIM_V4", head_dim_v / 4),
        ])
    }
}

/// Whether the kernels of a tier take these tensors.
pub(super) fn check_dtype(dtype: DType, tier: Tier) -> Result<()> {
    match dtype {
        _ if !tier.matrix() => Ok(()),
        DType::F16 => Ok(()),
        DType::F32 | DType::BF16 => Err(Error::Argument {
            argument: "tier",
            rule: "matrix multiplies f16 tensors only, and this problem has others",
        }),
    }
}

/// The modules of a matrix edge, for arrays that the device loads matrices from.
pub(super) fn modules(edge: u32, caps: &DeviceCaps) -> [Module; 2] {
    [
        if edge == 8 { Module::Matrix8 } else { Module::Matrix16 },
        if caps.matrix_from_vec4 { Module::TilesVec4 } else { Module::TilesScalar },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionShape, MatrixTile};

    /// Matrices are loaded from multiples of 16 bytes of workgroup memory, in which drivers place variables one after the other: so
    /// each takes a multiple of 16 bytes, with every tiling that a plan accepts.
    #[test]
    fn arrays_take_multiples_of_16_bytes() {
        let mut tilings = 0;
        for (edge, lanes) in [(8, 8), (8, 16), (8, 32), (16, 16), (16, 32), (16, 64)] {
            let mut caps = DeviceCaps::BASELINE;
            (caps.shader_f16, caps.subgroup_size) = (true, Some(lanes..=lanes));
            caps.matrix_tiles = vec![MatrixTile::square(edge)];
            (caps.max_workgroup_storage_bytes, caps.max_invocations_per_workgroup) = (256 << 10, 1024);
            for (head_dim, head_dim_v) in (4..=256).step_by(12).flat_map(|dim| [(dim, 260 - dim), (dim, dim)]) {
                let shape = AttentionShape {
                    batch_size: 1,
                    seq_len_q: 99,
                    seq_len_kv: 99,
                    num_q_heads: 1,
                    num_kv_heads: 1,
                    head_dim,
                    head_dim_v,
                };
                let problem = AttentionProblem::new(shape, DType::F16);
                for (rows, keys, groups) in [edge, 2 * edge]
                    .into_iter()
                    .flat_map(|rows| (1..=16).flat_map(move |keys| (1..=4).map(move |g| (rows, keys, g))))
                {
                    let of = MatrixTiling::new(
                        &problem,
                        Tiling { lanes, rows, keys, groups, num_splits: 1, sharing: Sharing::Keys },
                        edge,
                    );
                    if of.validate(&caps).is_err() {
                        continue;
                    }
                    tilings += 1;
                    let constants = of.constants();
                    let bytes = [
                        ("tile_a", constants["TILE_A4"] * 8),
                        ("tile_k", constants["TILE_K4"] * 8),
                        ("tile_v", constants["TILE_V4"] * 8),
                        ("row_factors", groups * rows * constants["PARTS"] * 4),
                        ("rows of tile_a", constants["A_STRIDE4"] * 8),
                        ("rows of tile_k", constants["K_STRIDE4"] * 8),
                        ("rows of tile_v", constants["V_STRIDE4"] * 8),
                        ("a matrix's columns", edge * 2),
                    ];
                    for (name, bytes) in bytes {
                        assert!(bytes.is_multiple_of(16), "{name} of {bytes} bytes: {:?}", of);
                    }
                }
            }
        }
        assert!(tilings > 1000, "{tilings} tilings");
    }
}
