//! CPU twin of `check_blocks.wgsl`.

use crate::{BlockListSpec, HostBlockLists};

/// CPU twin of the kernel `check_blocks`: the place of the first entry that breaks a rule, its value, and the number of the rule (1:
/// count, 2: order, 3: range). A list has a place for its count, then one for each entry.
#[must_use]
pub fn check_blocks(selection: &BlockListSpec, blocks: &HostBlockLists, seq_lens_kv: &[u32]) -> Option<[u32; 3]> {
    let [_, num_sets, num_q_blocks, max_blocks] = blocks.shape();
    let look_at = |place: u32| {
        let (list, entry) = (place / (max_blocks + 1), place % (max_blocks + 1));
        let count = blocks.block_counts()[list as usize];
        if entry == 0 {
            return (count > max_blocks).then_some([place, count, 1]);
        }
        if entry > count {
            return None;
        }
        let at = (list * max_blocks + entry - 1) as usize;
        let first = blocks.block_indices()[at];
        if entry > 1 {
            let previous = blocks.block_indices()[at - 1];
            if first < previous || first - previous < selection.block_size {
                return Some([place, first, 2]);
            }
        }
        let seq_len_kv = seq_lens_kv[(list / (num_sets * num_q_blocks)) as usize];
        (first >= seq_len_kv).then_some([place, first, 3])
    };
    (0..blocks.block_counts().len() as u32 * (max_blocks + 1)).find_map(look_at)
}
