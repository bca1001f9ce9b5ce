// Family `beam`: where a search keeps its groups, and how it keeps the best of their halves. Here in workgroup memory, like the keys of
// their scores: at most CANDIDATES halves.

// First blocks and sizes, twice. Candidate 2 g is the left half of group g, 2 g + 1 its right half. Surviving groups are written to the
// half of the array that is not in use.
var<workgroup> groups: array<vec2<u32>, CANDIDATES>;
// The first scored key of each candidate; ABSENT for an empty half.
var<workgroup> probes: array<u32, CANDIDATES>;
// 0 or CANDIDATES / 2.
var<private> groups_at: u32;

const ABSENT = 0xffffffffu;

fn begin_searches(workgroup: u32, index: u32) {
    begin_top_k(index);
}

fn begin_search() {
    groups_at = 0u;
}

// The next search writes only where the same invocation has read the list, or where groups before the last ones were.
fn end_search() {}

fn put_group(i: u32, first: u32, size: u32) {
    groups[groups_at + i] = vec2<u32>(first, size);
    put_probes(i, first, size);
}

// Once for each candidate, where scoring would look at it once for each of its keys and lanes.
fn put_probes(i: u32, first: u32, size: u32) {
    for (var half = 0u; half < 2u; half++) { // unroll
        let branch = half_of(half, first, size);
        probes[2u * i + half] = select(ABSENT, probe_of(branch), branch.size > 0u);
    }
}

fn join_groups() {
    workgroupBarrier(); // orders groups, probes, and what the top-k begins with
}

fn group_first(i: u32) -> u32 {
    return groups[groups_at + i].x;
}

fn branch(candidate: u32) -> Branch {
    let group = groups[groups_at + candidate / 2u];
    return half_of(candidate, group.x, group.y);
}

fn first_probe(candidate: u32) -> u32 {
    return probes[candidate];
}

// A block's score is that of its best key; an empty half is no candidate.
fn put_score(i: u32, score: f32) {
    let candidate = i / KEYS_PER_BLOCK;
    if probes[candidate] != ABSENT {
        put_key(candidate, key_of_score(score));
    }
}

fn keep_candidate(i: u32, place: u32) {
    let kept = branch(i);
    groups[CANDIDATES / 2u - groups_at + place] = vec2<u32>(kept.first, kept.size);
    put_probes(place, kept.first, kept.size);
}

// Makes the best halves the groups and returns their number.
fn keep_best_halves(index: u32) -> u32 {
    let count = keep_best(2u * hip.num_groups, hip.num_groups, index);
    for (var i = count + index; i < hip.num_groups; i += WORKGROUP_SIZE) {
        groups[CANDIDATES / 2u - groups_at + i] = vec2<u32>();
        put_probes(i, 0u, 0u);
    }
    workgroupBarrier(); // orders groups, probes, and what the top-k restores
    groups_at = CANDIDATES / 2u - groups_at;
    return count;
}
