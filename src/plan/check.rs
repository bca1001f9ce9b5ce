//! The check of lists of blocks: one dispatch searches, one reports the result.

use std::collections::BTreeMap;

use super::Dispatch;
use crate::kernels::{self, check_blocks, modules};
use crate::shader::{Arrays, Specialization, Taken};
use crate::{AttentionShape, BlockListSpec, DeviceCaps, DispatchBudget, Error, Result};

/// The dispatches that check the lists of a selection.
pub fn check_dispatches(
    selection: &BlockListSpec,
    shape: &AttentionShape,
    seq_lens_kv: bool,
    caps: &DeviceCaps,
) -> Result<[Dispatch; 2]> {
    // A place for each entry and each count.
    let places = selection.num_lists(shape) * (u64::from(selection.max_blocks) + 1);
    if places > u64::from(u32::MAX) {
        return Err(Error::TooLarge { what: "entries of lists", needed: places, available: u32::MAX.into() });
    }
    let specialization = |report| Specialization {
        kernel: &kernels::CHECK_BLOCKS,
        modules: Taken::all([&modules::CHECK_PARAMS, modules::lengths(seq_lens_kv)]),
        constants: BTreeMap::from([("WORKGROUP_SIZE", check_blocks::WORKGROUP_SIZE)]),
        switches: BTreeMap::from([("REPORT", report)]),
        arrays: Arrays::Memory, // it has none
        chain: Vec::new(),
    };
    // For debugging, with a few words read for each entry: not cut.
    let grid = places.div_ceil(check_blocks::WORKGROUP_SIZE.into());
    let whole = DeviceCaps { budget: DispatchBudget::UNLIMITED, ..caps.clone() };
    let dispatch = |report, grid| Dispatch::even(specialization(report), grid, 1, &whole);
    Ok([dispatch(false, grid)?, dispatch(true, 1)?])
}
