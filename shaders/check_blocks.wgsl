// Finds the first entry of lists of blocks that breaks a rule of block-sparse attention, in two dispatches: one invocation for each entry
// and each count checks it, then a single invocation reports the first fault.
@group(0) @binding(BLOCK_INDICES_BINDING) var<storage, read>       block_indices: array<u32>;  // [batch, num_sets, num_q_blocks, max_blocks]
@group(0) @binding(BLOCK_COUNTS_BINDING)  var<storage, read>       block_counts: array<u32>;   // [batch, num_sets, num_q_blocks]
@group(0) @binding(REPORT_BINDING)        var<storage, read_write> report: array<atomic<u32>>; // [place, value, rule]

// Rules are COUNT_RULE, ORDER_RULE and RANGE_RULE.

struct Finding {
    value: u32,
    rule: u32, // 0: none is broken
}

// A list has a place for its count, then one for each entry.
fn look_at(place: u32) -> Finding {
    let list = place / (params.max_blocks + 1u);
    let entry = place % (params.max_blocks + 1u);
    let count = block_counts[params.counts_offset + list];
    if entry == 0u {
        return Finding(count, select(0u, COUNT_RULE, count > params.max_blocks));
    }
    if entry > count {
        return Finding(0u, 0u);
    }
    let at = params.indices_offset + list * params.max_blocks + entry - 1u;
    let first = block_indices[at];
    // No difference leaves 32 bits: first - previous is computed only where it is not negative.
    if entry > 1u {
        let previous = block_indices[at - 1u];
        if first < previous || first - previous < params.block_size {
            return Finding(first, ORDER_RULE);
        }
    }
    let seq_len_kv = seq_len_kv_of(list / params.lists_per_batch);
    return Finding(first, select(0u, RANGE_RULE, first >= seq_len_kv));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn check_blocks(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    if REPORT {
        let place = atomicLoad(&report[0]);
        if index == 0u && place < params.num_places {
            let finding = look_at(place);
            atomicStore(&report[1], finding.value);
            atomicStore(&report[2], finding.rule);
        }
        return;
    }
    let place = (workgroup.y * num_workgroups.x + workgroup.x) * WORKGROUP_SIZE + index;
    if place < params.num_places && look_at(place).rule != 0u {
        atomicMin(&report[0], place);
    }
}
