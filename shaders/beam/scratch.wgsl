// Family `beam`: where a search keeps its groups, and how it keeps the best of their halves. Here in scratch memory, any number of
// groups.

// The groups of this workgroup's search: num_groups first blocks, then as many sizes. Candidate 2 g is the left half of group g, 2 g + 1
// its right half. Surviving groups are written to the second of two places, which then becomes the first.
var<private> groups_at: u32;
var<private> survivors_at: u32;
// Keys of the candidates' scores, then the scores of all the candidates' keys.
var<private> candidates_at: u32;
var<private> scores_at: u32;
var<private> scratch_begin: u32;

fn begin_searches(workgroup: u32, index: u32) {
    scratch_begin = workgroup * hip.num_groups * (6u + 2u * KEYS_PER_BLOCK);
    candidates_at = scratch_begin + 4u * hip.num_groups;
    scores_at = candidates_at + 2u * hip.num_groups;
}

fn begin_search() {
    groups_at = scratch_begin;
    survivors_at = scratch_begin + 2u * hip.num_groups;
}

fn end_search() {
    storageBarrier(); // orders the scratch of this search and the next one's
}

fn put_group(i: u32, first: u32, size: u32) {
    scratch[groups_at + i] = first;
    scratch[groups_at + hip.num_groups + i] = size;
}

fn join_groups() {
    storageBarrier(); // orders the groups
}

fn group_first(i: u32) -> u32 {
    return scratch[groups_at + i];
}

fn branch(candidate: u32) -> Branch {
    return half_of(candidate, scratch[groups_at + candidate / 2u], scratch[groups_at + hip.num_groups + candidate / 2u]);
}

fn first_probe(candidate: u32) -> u32 {
    return probe_of(branch(candidate));
}

fn put_score(i: u32, score: f32) {
    scratch[scores_at + i] = key_of_score(score);
}

fn candidate_key(i: u32) -> u32 {
    return scratch[candidates_at + i];
}

fn keep_candidate(i: u32, place: u32) {
    let kept = branch(i);
    scratch[survivors_at + place] = kept.first;
    scratch[survivors_at + hip.num_groups + place] = kept.size;
}

// A block's score is that of its best key; an empty half is no candidate.
fn rank_candidates(index: u32) {
    for (var i = index; i < 2u * hip.num_groups; i += WORKGROUP_SIZE) {
        var key = 0u;
        if branch(i).size > 0u {
            for (var j = 0u; j < KEYS_PER_BLOCK; j++) {
                key = max(key, scratch[scores_at + i * KEYS_PER_BLOCK + j]);
            }
        }
        scratch[candidates_at + i] = key;
    }
}

// Makes the best halves the groups and returns their number.
fn keep_best_halves(index: u32) -> u32 {
    storageBarrier(); // orders the scores
    rank_candidates(index);
    storageBarrier(); // orders the candidates' keys
    let count = keep_best(2u * hip.num_groups, hip.num_groups, index);
    for (var i = count + index; i < hip.num_groups; i += WORKGROUP_SIZE) {
        scratch[survivors_at + i] = 0u;
        scratch[survivors_at + hip.num_groups + i] = 0u;
    }
    storageBarrier(); // orders the survivors
    let previous = groups_at;
    groups_at = survivors_at;
    survivors_at = previous;
    return count;
}
