//! Tile sizes of the kernels that multiply matrices in hardware.

use std::collections::BTreeMap;

use super::rows::RowSets;
use super::tiling::{Sharing, Tiling};
use crate::kernels;
use crate::shader::Module;
use crate::{AttentionProblem, BlockListSpec, DType, DeviceCaps, Error, Result, Tier};

/// Unused vec4 elements between the rows of f16 tiles: 16 bytes, so that rows stay aligned for wide loads and the rows of a matrix use
/// different banks.
pub(in crate::plan) const HALVES_PADDING4: u32 = 2;
/// The same for rows of f32.
pub(in crate::plan) const FLOATS_PADDING4: u32 = 1;

/// Sizes that follow from the matrix edge, a tiling and a problem; the shader and the budget of workgroup memory share them.
#[derive(Clone, Copy, Debug)]
pub(in crate::plan) struct MatrixTiling {
    edge: u32,
    tiling: Tiling,
    head_dim: u32,
    head_dim_v: u32,
    /// Keys that a row may see.
    walk_keys: u32,
    /// Rows are finished here, and have sinks.
    has_sinks: bool,
}

/// Keys that matrices sum up before their sums are folded into f32.
const FOLD_KEYS: u32 = 8192;

/// Groups of a workgroup for many rows, and where workgroups are few.
const MOST_GROUPS: u32 = 8;
const FEW_GROUPS: u32 = 4;

/// Cores of a large GPU. Each holds one workgroup: a driver gave a core no more workgroup memory than one of them takes.
const LARGE_GPU_CORES: u64 = 132;

/// Keys of a tile; half as many where registers hold no more.
const LONG_TILE: u32 = 32;

/// Limit on the registers of an invocation, the same on every GPU seen so far.
const MOST_REGISTERS: u32 = 255;

/// Registers for indices, bounds and other values that do not grow with the tiling: an estimate.
const ADDRESSES: u32 = 20;

/// Lanes that share a row of scores.
const fn parts(lanes: u32, rows: u32) -> u32 {
    if lanes > rows { lanes / rows } else { 1 }
}

const fn most([a, b, c]: [u32; 3]) -> u32 {
    let a = if a > b { a } else { b };
    if a > c { a } else { c }
}

impl MatrixTiling {
    pub(in crate::plan) fn new(problem: &AttentionProblem, tiling: Tiling, edge: u32) -> Self {
        let shape = problem.shape();
        let walk_keys =
            problem.blocks.as_ref().map_or(u64::MAX, BlockListSpec::most_keys_of_any).min(shape.seq_len_kv.into());
        // At most a u32.
        let has_sinks = problem.sinks.is_some() && tiling.num_splits == 1;
        let walk_keys = walk_keys as u32;
        Self { edge, tiling, head_dim: shape.head_dim, head_dim_v: shape.head_dim_v, walk_keys, has_sinks }
    }

    /// The tiling of a problem for a device with matrices of this edge; `None` when workgroup memory is too small.
    pub(in crate::plan) fn choose(problem: &AttentionProblem, caps: &DeviceCaps, edge: u32) -> Option<Tiling> {
        let lanes = *caps.subgroup_size.as_ref()?.start();
        let sets = RowSets::of(problem);
        let num_rows = sets.rows_per_q_block();
        // Groups share the loads of keys and values, and a core runs no more of them than a workgroup has: 4 reached 0.6 of 8 (H200).
        let most_groups = (caps.max_invocations_per_workgroup / lanes).clamp(1, MOST_GROUPS);
        let tiling = |rows, keys, most: u32| {
            // Rows spread evenly over the tiles.
            let groups = num_rows.div_ceil(u64::from(rows)).max(1);
            let groups = groups.div_ceil(groups.div_ceil(most.into())) as u32; // at most `most`
            Tiling { lanes, rows, keys, groups, num_splits: 1, sharing: Sharing::Rows }
        };
        let of = |tiling| Self::new(problem, tiling, edge);
        let fits_registers = |rows, keys| of(tiling(rows, keys, most_groups)).registers() <= MOST_REGISTERS;
        let shorter =
            |rows, keys: u32| (keys / 2).is_multiple_of(edge) && (keys / 2).is_multiple_of(4 * parts(lanes, rows));

        // Matrices of keys and values serve all rows of a group: as many rows as registers hold, where there are enough for four groups. A
        // longer tile costs fewer barriers, a second row of matrices halves the loads.
        let mut rows = edge;
        // Software devices unroll every product, and take minutes to compile tiles of four matrices: they get the smallest tiles.
        let keys_of = |rows| match LONG_TILE {
            _ if caps.software => edge.max(4 * parts(lanes, rows)),
            keys if fits_registers(rows, keys) || !shorter(rows, keys) => keys,
            keys => keys / 2,
        };
        while !caps.software
            && 2 * rows <= 32
            && num_rows >= u64::from(8 * rows)
            && fits_registers(2 * rows, keys_of(2 * rows))
        {
            rows *= 2;
        }
        let mut chosen = tiling(rows, keys_of(rows), most_groups);
        // Where workgroups leave half of the cores idle, smaller ones spread the work.
        let workgroups =
            sets.row_tiles(problem.shape(), chosen) * u64::from(sets.num_sets) * u64::from(problem.shape().batch_size);
        if chosen.groups > FEW_GROUPS && 2 * workgroups <= LARGE_GPU_CORES {
            chosen = tiling(rows, keys_of(rows), most_groups.min(FEW_GROUPS));
        }
        while of(chosen).validate(caps).is_err() {
            // To fit memory: fewer keys cost barriers, fewer groups copies, fewer rows loads of matrices.
            if shorter(chosen.rows, chosen.keys) {
                chosen.keys /= 2;
            } else if chosen.groups > 1 {
                chosen.groups /= 2;
            } else if chosen.rows > edge {
                chosen.rows /= 2;
            } else {
                return None;
            }
        }
        Some(chosen)
    }

    /// Workgroup memory of the smallest tiling.
    pub(in crate::plan) fn least_storage_bytes(problem: &AttentionProblem, caps: &DeviceCaps, edge: u32) -> u64 {
        let lanes = caps.subgroup_size.as_ref().map_or(edge, |size| *size.start());
        let keys = edge.max(4 * parts(lanes, edge));
        let tiling = Tiling { lanes, rows: edge, keys, groups: 1, num_splits: 1, sharing: Sharing::Rows };
        Self::new(problem, tiling, edge).storage_bytes()
    }

    /// Checks the rules of matrices. [`Tiling::validate`] has checked the others.
    pub(in crate::plan) fn validate(&self, caps: &DeviceCaps) -> Result<()> {
        let Self { edge, tiling, .. } = *self;
        let invalid = |field, value: u32, rule| Err(Error::Invalid { field, value: value.into(), rule });
        if caps.subgroup_size.as_ref().is_none_or(|size| tiling.lanes != *size.start()) {
            return invalid("lanes", tiling.lanes, "must be the subgroup size: a subgroup holds a matrix");
        }
        if !tiling.rows.is_multiple_of(edge) {
            return invalid("rows", tiling.rows, "must be a multiple of the matrix edge");
        }
        if !tiling.tile_kv().is_multiple_of(edge) || tiling.tile_kv() > 128 {
            return invalid("keys", tiling.keys, "must be a multiple of the matrix edge up to 128");
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
        parts(self.tiling.lanes, self.tiling.rows)
    }

    /// vec4 that an invocation loads of a tile with this many columns, two neighbouring ones at a time.
    const fn loaded_each(&self, columns4: u32) -> u32 {
        2 * (self.tiling.tile_kv() * columns4 / 2).div_ceil(self.tiling.workgroup_size())
    }

    /// Registers of 32 bits that an invocation needs in the loop over tiles, counted over values that are live at the same time. Sums and
    /// queries always are, and the keys and values in flight nearly so; in turn come the weights with matrices of values, the scores'
    /// products with matrices of keys, and a row's scores. A compiler that has more takes more: an H200's driver took 255 where this counts
    /// 243, without a spill in that loop, and 232 where it counts 159. Tilings counted above 255 ran at half the speed on an H100.
    pub(in crate::plan) const fn registers(&self) -> u32 {
        let Self { edge, tiling, .. } = *self;
        let (row_tiles, key_tiles) = (tiling.rows / edge, tiling.tile_kv() / edge);
        // Of a matrix.
        let f32s = edge * edge / tiling.lanes;
        let f16s = f32s.div_ceil(2);
        let (k_columns4, v_columns4) = (self.padded4(self.head_dim), self.padded4(self.head_dim_v));
        let sums = row_tiles * (4 * v_columns4 / edge) * f32s;
        let queries = row_tiles * (4 * k_columns4 / edge) * f16s;
        // A vec4 of f16 takes two.
        let (k_next, v_next) = (2 * self.loaded_each(k_columns4), 2 * self.loaded_each(v_columns4));
        let next = k_next + v_next;
        let weights = row_tiles * key_tiles * f16s;
        let adding = weights + 2 * f16s + next;
        let scoring = row_tiles * key_tiles * f32s + key_tiles * f16s + next;
        let softmax = tiling.tile_kv() / self.parts() + next;
        let rows = 3 * tiling.rows.div_ceil(tiling.lanes);
        sums + queries + most([adding, scoring, softmax]) + rows + ADDRESSES
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

    /// Workgroup memory that the kernels declare: a tile of keys, one of values, weights, scores, rows' factors and sinks, two flags.
    pub(in crate::plan) fn storage_bytes(&self) -> u64 {
        let rows = u64::from(self.tiling.tile_q());
        let tiles = u64::from(self.tiling.tile_kv()) * u64::from(self.k_stride4() + self.v_stride4()) * 8;
        let weights = rows * u64::from(self.weights_stride4()) * 8;
        let scores = rows * u64::from(self.scores_stride4()) * 16;
        let factors = (rows * u64::from(self.parts()) * 4).next_multiple_of(16);
        let sinks = if self.has_sinks { (rows * 4).next_multiple_of(16) } else { 0 };
        tiles + weights.next_multiple_of(16) + scores + factors + sinks + 16
    }

    /// vec4 of a column of matrices that a lane keeps between parts of a walk.
    fn carried_of_column(&self) -> u32 {
        (self.tiling.rows * self.edge / 4).div_ceil(self.tiling.lanes)
    }

    /// vec4 of a lane's share of the sums.
    fn sums_each(&self) -> u32 {
        self.padded4(self.head_dim_v) * 4 / self.edge * self.carried_of_column()
    }

    /// vec4 of state that a lane keeps in all: its share of the sums, its rows' maxima and sums, its share of the folded sums.
    pub(in crate::plan) fn carried(&self) -> u32 {
        let folded = if self.fold_tiles() > 0 { self.sums_each() } else { 0 };
        self.sums_each() + folded + self.tiling.rows.div_ceil(self.tiling.lanes)
    }

    /// Tiles after which sums leave the matrices and are added up in f32; 0: never. A matrix unit truncates, so that each product loses up
    /// to two units in the last place of the sum so far: with [`FOLD_KEYS`] keys at a time the loss stays below a quarter of the cost of
    /// rounding to f16, at any length. Walks of up to two such runs are not folded.
    pub(in crate::plan) fn fold_tiles(&self) -> u32 {
        if self.walk_keys / self.tiling.num_splits.max(1) > 2 * FOLD_KEYS {
            FOLD_KEYS / self.tiling.tile_kv()
        } else {
            0
        }
    }

    /// Constants of the shader.
    pub(in crate::plan) fn constants(&self) -> BTreeMap<&'static str, u32> {
        let Self { edge, tiling, head_dim, head_dim_v, .. } = *self;
        let (parts, tile_kv) = (self.parts(), tiling.tile_kv());
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
            // Queries are staged `TILE_KV` columns at a time.
            ("Q_TILES", (4 * k_columns4).next_multiple_of(tile_kv) / edge),
            ("V_TILES", 4 * v_columns4 / edge),
            ("K_COLUMNS4", k_columns4),
            ("V_COLUMNS4", v_columns4),
            ("K_EACH", self.loaded_each(k_columns4)),
            ("V_EACH", self.loaded_each(v_columns4)),
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

/// Checks that the kernels of a tier take tensors of this type.
pub(in crate::plan) fn check_dtype(dtype: DType, tier: Tier) -> Result<()> {
    match dtype {
        _ if !tier.matrix() => Ok(()),
        DType::F16 => Ok(()),
        DType::F32 | DType::BF16 => Err(Error::Argument {
            argument: "tier",
            rule: "matrix multiplies f16 tensors, and bf16 where attention asks for it (bf16_by_f16_matrices); this problem \
                   has others",
        }),
    }
}

/// The modules for a matrix edge and for the arrays that the device loads matrices from.
pub(in crate::plan) fn modules(edge: u32, caps: &DeviceCaps) -> [&'static Module; 2] {
    [
        if edge == 8 { &kernels::modules::MATRIX_8 } else { &kernels::modules::MATRIX_16 },
        if caps.matrix_from_vec4 { &kernels::modules::TILES_VEC4 } else { &kernels::modules::TILES_SCALAR },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttentionShape, MatrixTile};

    /// Prototypes' tilings that ran well on an H100 must fit, with the register counts of their parts.
    #[test]
    fn registers_are_those_of_prototypes() {
        let of = |head_dim, [rows, keys, groups]: [u32; 3]| {
            let shape = AttentionShape {
                batch_size: 1,
                seq_len_q: 8192,
                seq_len_kv: 8192,
                num_q_heads: 1,
                num_kv_heads: 1,
                head_dim,
                head_dim_v: head_dim,
            };
            let tiling = Tiling { lanes: 32, rows, keys, groups, num_splits: 1, sharing: Sharing::Rows };
            MatrixTiling::new(&AttentionProblem::new(shape, DType::F16), tiling, 16).registers()
        };
        // Sums 128, queries 64, scores 16, a matrix of keys 4, the next keys and values 8, the row's maximum and sums 3, the rest 20.
        assert_eq!(of(128, [32, 16, 8]), 243);
        // Half as many groups load twice as much each.
        assert_eq!(of(128, [32, 16, 4]), 251);
        assert_eq!(of(128, [16, 32, 8]), 64 + 32 + 40 + 3 + 20);
        assert_eq!(of(64, [32, 16, 8]), 64 + 32 + 28 + 3 + 20);
        assert_eq!(of(128, [16, 16, 4]), 64 + 32 + 28 + 3 + 20);
        assert!(of(128, [32, 32, 4]) > MOST_REGISTERS && of(256, [32, 16, 8]) > MOST_REGISTERS);
        assert!(of(256, [16, 16, 8]) <= MOST_REGISTERS);
    }

    /// Matrices are loaded from multiples of 16 bytes of workgroup memory, and drivers place variables one after the other: so the size of
    /// each must be a multiple of 16 bytes, with every tiling that a plan accepts.
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
                    .flat_map(|rows| (1..=16).flat_map(move |keys| (1..=4).map(move |g| (rows, keys * edge, 2 * g))))
                {
                    let of = MatrixTiling::new(
                        &problem,
                        Tiling { lanes, rows, keys, groups, num_splits: 1, sharing: Sharing::Rows },
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
