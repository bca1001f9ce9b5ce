//! Devices to plan for, none of which has to be present.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use wattn::{Candidates, DeviceCaps, MatrixTile, SelectionTiling, Sharing};

/// The caps of a large GPU: matrices of 16, subgroups of 32, 48 KiB.
pub fn matrix_gpu() -> DeviceCaps {
    let mut caps = DeviceCaps::BASELINE;
    caps.shader_f16 = true;
    caps.subgroup_size = Some(32..=32);
    caps.max_workgroup_storage_bytes = 48 << 10;
    caps.max_invocations_per_workgroup = 1024;
    caps.matrix_tiles = vec![MatrixTile::square(16)];
    caps.matrix_from_vec4 = true;
    caps
}

/// The tiling of a search for one query at the first visit to an H100: each lane walks through keys of its own.
pub const FIRST_SEARCHES: SelectionTiling = SelectionTiling::SMALLEST
    .with_lanes(32)
    .with_rows(1)
    .with_search_groups(8)
    .with_score_groups(2)
    .with_top_k_size(256)
    .with_max_searches(512)
    .with_sharing(Sharing::Keys)
    .with_candidates(Candidates::Scratch);

/// Devices of the kinds that plans distinguish, small enough for tiny tilings: plain WGSL, subgroups of one size and of several on a GPU,
/// software, matrices with a buffer to spare.
pub fn small_devices() -> Vec<DeviceCaps> {
    let device = |subgroup_size, software| {
        let mut caps = DeviceCaps::BASELINE;
        (caps.shader_f16, caps.subgroup_size) = (true, Some(subgroup_size));
        (caps.software, caps.shader_int64) = (software, software);
        caps
    };
    let mut matrices = device(8..=8, false);
    matrices.matrix_tiles = vec![MatrixTile::square(8)];
    (matrices.matrix_from_vec4, matrices.max_storage_buffers) = (true, 9);
    vec![DeviceCaps::BASELINE, device(16..=16, false), device(8..=32, false), device(4..=4, true), matrices]
}
