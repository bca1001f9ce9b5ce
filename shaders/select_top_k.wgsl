// One workgroup keeps the best k of the entries of one row, as an ascending list of blocks.
@group(0) @binding(PARAMS_BINDING)        var<uniform>             params: TopKParams;
@group(0) @binding(SCORES_BINDING)        var<storage, read>       scores: array<f32>;        // [batch, num_sets, num_q_blocks, num_entries]
@group(0) @binding(BLOCK_INDICES_BINDING) var<storage, read_write> block_indices: array<u32>; // [batch, num_sets, num_q_blocks, k]
@group(0) @binding(BLOCK_COUNTS_BINDING)  var<storage, read_write> block_counts: array<u32>;  // [batch, num_sets, num_q_blocks]

struct TopKParams {
    num_rows: u32,
    num_sets: u32,
    num_q_blocks: u32,
    num_entries: u32,
    k: u32,
    block_size: u32,
    forced_first: u32,
    forced_last: u32,
    scores_offset: u32,
    scores_batch: u32,
    scores_set: u32,
    scores_q_block: u32,
    indices_offset: u32,
    counts_offset: u32,
    marks_offset: u32,
}

var<private> row: u32;
var<private> scores_at: u32;
// One past the last entry that exists.
var<private> end: u32;

var<workgroup> row_end: atomic<u32>;

// Entries rank by their keys: 0 is not taken, the largest of all is forced.
fn candidate_key(i: u32) -> u32 {
    let score = scores[scores_at + i];
    let mark = mark_of(i);
    if is_masked(score) || mark == MARK_FORBIDDEN {
        return 0u;
    }
    if mark == MARK_FORCED || i < params.forced_first || i + params.forced_last >= end {
        return 0xffffffffu;
    }
    let key = key_of_score(score);
    return select(0u, key, key > key_of_score(bitcast<f32>(MASKED_BITS)));
}

fn is_masked(score: f32) -> bool {
    return bitcast<u32>(score) == MASKED_BITS;
}

fn keep_candidate(i: u32, place: u32) {
    block_indices[params.indices_offset + row * params.k + place] = i * params.block_size;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn select_top_k(
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
    let list = stretch.first_place + workgroup.y * num_workgroups.x + workgroup.x;
    if list >= params.num_rows {
        return;
    }
    row = list;
    scores_at = params.scores_offset + row / params.num_q_blocks / params.num_sets * params.scores_batch
        + row / params.num_q_blocks % params.num_sets * params.scores_set
        + row % params.num_q_blocks * params.scores_q_block;
    begin_top_k(index);
    end = params.num_entries + params.forced_last;
    if index == 0u {
        atomicStore(&row_end, 0u);
    }
    workgroupBarrier(); // orders row_end, and what the top-k begins with
    if FORCED_LAST {
        for (var i = index; i < params.num_entries; i += WORKGROUP_SIZE) {
            if !is_masked(scores[scores_at + i]) {
                atomicMax(&row_end, i + 1u);
            }
        }
        workgroupBarrier(); // orders row_end
        end = atomicLoad(&row_end);
    }
    if KEYS_ARE_PUT {
        for (var i = index; i < params.num_entries; i += WORKGROUP_SIZE) {
            put_key(i, candidate_key(i));
        }
    }
    let kept = keep_best(params.num_entries, params.k, index);
    for (var i = kept + index; i < params.k; i += WORKGROUP_SIZE) {
        block_indices[params.indices_offset + row * params.k + i] = PADDING;
    }
    if index == 0u {
        block_counts[params.counts_offset + row] = kept;
    }
}
