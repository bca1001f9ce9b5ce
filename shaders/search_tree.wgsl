// One workgroup searches the tree of keys for the best blocks of one query block (HiP, section 3), then of the next one of its share: each
// round halves all groups of blocks, scores one block of each half, and keeps the best halves.
@group(0) @binding(SAMPLES_BINDING)       var<storage, read>       samples: array<vec4<f32>>; // [batch, num_q_heads, num_q_blocks, num_samples, head_dim / 4]
@group(0) @binding(K_BINDING)             var<storage, read>       k: array<Elem4>;           // [batch, seq_len_kv, num_kv_heads, head_dim / 4]
@group(0) @binding(SCRATCH_BINDING)       var<storage, read_write> scratch: array<u32>;       // [num_workgroups, words of one search]
@group(0) @binding(BLOCK_INDICES_BINDING) var<storage, read_write> block_indices: array<u32>; // [batch, num_sets, num_q_blocks, max_blocks]
@group(0) @binding(BLOCK_COUNTS_BINDING)  var<storage, read_write> block_counts: array<u32>;  // [batch, num_sets, num_q_blocks]

// What HiP alone has. `is_causal` and `align_groups` are 0 or 1: the kernel is compiled once for both.
struct HipParams {
    block_size: u32,
    stride_k: u32,
    num_groups: u32,
    max_rounds: u32,
    is_causal: u32,
    align_groups: u32,
}
@group(0) @binding(HIP_BINDING) var<uniform> hip: HipParams;

var<private> block: QueryBlock;

struct Branch {
    first: u32,
    size: u32,
}

// A half of a group. Candidate 2 g is the left half of group g, 2 g + 1 its right half.
fn half_of(candidate: u32, first: u32, size: u32) -> Branch {
    let half = size / 2u;
    if candidate % 2u == 0u {
        return Branch(first, half);
    }
    return Branch(first + half, size - half);
}

// Pairs closer than the window of candidates are not scored.
fn last_scored_key(sample: u32) -> i32 {
    if hip.is_causal == 0u {
        return i32(block.seq_len_kv) - 1;
    }
    return block.p_min + i32(sampled_queries(block.q_block, sample).first) - params.candidate_window;
}

// The first scored key of a half's representative block.
fn probe_of(half: Branch) -> u32 {
    var representative = half.first;
    if params.representative == CENTER {
        representative += half.size / 2u;
    } else if params.representative != FIRST {
        representative += max(half.size, 1u) - 1u;
    }
    return u32(params.sink_size) + representative * hip.block_size + hip.stride_k - 1u;
}

// The i-th of all candidates' scored keys, KEYS_PER_BLOCK of each.
fn probed_key(i: u32) -> u32 {
    return first_probe(i / KEYS_PER_BLOCK) + i % KEYS_PER_BLOCK * hip.stride_k;
}

// First block of group j in the first round, of num_blocks in all. Their product may exceed 32 bits.
fn group_begin(j: u32, num_blocks: u32, alignment: u32) -> u32 {
    let whole = num_blocks / hip.num_groups * j;
    let part = num_blocks % hip.num_groups;
    // part * j < num_groups^2, at most 2^40: split once more.
    let high = (part >> 10u) * j;
    let low = (part & 1023u) * j;
    let rest = high % hip.num_groups * 1024u + low;
    let begin = whole + high / hip.num_groups * 1024u + rest / hip.num_groups;
    return select(begin / alignment * alignment, begin, j == hip.num_groups);
}

fn write_list(index: u32, count: u32, rank_of_all: bool) {
    let begin = params.indices_offset + block.list * params.max_blocks;
    for (var i = index; i < params.max_blocks; i += WORKGROUP_SIZE) {
        var first = i;
        if !rank_of_all && i < count {
            first = group_first(i);
        }
        block_indices[begin + i] = select(PADDING, u32(params.sink_size) + first * hip.block_size, i < count);
    }
    if index == 0u {
        block_counts[params.counts_offset + block.list] = count;
    }
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn search_tree(
    thread: Thread,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
    let index = group_of(thread) * LANES + lane_of(thread);
    let num_groups = hip.num_groups;
    begin_searches(workgroup.x, index);
    for (var list = stretch.first_place + workgroup.x; list < stretch.end_place; list += num_workgroups.x) {
        // Conditions of barriers and subgroup operations are kept in function variables: module variables count as non-uniform.
        let place = query_block(list, params.num_sets);
        block = place;
        begin_search();

        var end = i32(place.seq_len_kv);
        if hip.is_causal != 0u {
            end = place.p_max + 1 - params.candidate_window;
        }
        let num_keys = u32(max(end - params.sink_size, 0));
        let num_blocks = (num_keys + hip.block_size - 1u) / hip.block_size;
        if is_dense(place) || num_blocks <= num_groups {
            write_list(index, select(num_blocks, 0u, is_dense(place)), true);
            continue;
        }

        // The largest power of two up to num_blocks, divided by num_groups, rounded up.
        let power = 1u << firstLeadingBit(num_blocks);
        let alignment = select(1u, (power + num_groups - 1u) / num_groups, hip.align_groups != 0u);
        for (var j = index; j < num_groups; j += WORKGROUP_SIZE) {
            let begin = group_begin(j, num_blocks, alignment);
            put_group(j, begin, group_begin(j + 1u, num_blocks, alignment) - begin);
        }
        join_groups();

        var round = 0u;
        var count = num_groups;
        for (var size = (num_blocks + num_groups - 1u) / num_groups + alignment - 1u; size > 1u; size = (size + 1u) / 2u) {
            if round == hip.max_rounds {
                break;
            }
            round++;
            score_candidates(place, thread, index);
            count = keep_best_halves(index);
        }
        write_list(index, count, false);
        end_search();
    }
}
