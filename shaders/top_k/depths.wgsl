// Family `top_k`: the best `keep` of a workgroup's candidates, in the candidates' order. Among equal keys the first candidates are kept.
// No sort; the result does not depend on the order in which invocations run. Here keys lie in workgroup memory, at most CANDIDATES, and
// subgroups add up what they know. The depth of a candidate says how far its score lies below the best one, in DEPTHS equal steps down to
// the least one. Numbers of candidates at each depth give the depth of the keep-th; the few candidates there are compared with one another.
//
// The kernel's own file defines keep_candidate(i, place). Its invocations are numbered subgroup by subgroup, and all subgroups are full.

// 0 for a candidate that does not exist.
var<workgroup> candidate_keys: array<atomic<u32>, CANDIDATES>;
// The largest key, and the largest complement of a key.
var<workgroup> key_range: array<atomic<u32>, 2>;
// Candidates at each depth, in the order of depth_at.
var<workgroup> counts: array<atomic<u32>, DEPTHS>;
// A bit for each candidate at the depth of the keep-th, and a bit for each word that has some.
var<workgroup> level: array<atomic<u32>, CANDIDATES / 32u>;
var<workgroup> level_words: array<atomic<u32>, 2>;
// Candidates that each subgroup keeps in each turn.
var<workgroup> tallies: array<u32, TURNS * SUBGROUPS>;

var<private> own_range: vec2<u32>;
var<private> subgroup_lanes: u32;
var<private> num_subgroups: u32;
var<private> own_subgroup: u32;
var<private> own_lane: u32;

const KEYS_ARE_PUT = true;

// Keys between this one's complement and this one are of scores up to 2^125, whose differences are finite. Others are as deep as they can be.
const LARGEST = 0xfe000000u;

// Runs once, before the first keys are put; keep_best restores this state.
fn begin_top_k(index: u32) {
    subgroup_lanes = subgroupAdd(1u);
    num_subgroups = WORKGROUP_SIZE / subgroup_lanes;
    own_subgroup = index / subgroup_lanes;
    own_lane = index % subgroup_lanes;
    own_range = vec2<u32>(~LARGEST);
    for (var i = index; i < CANDIDATES; i += WORKGROUP_SIZE) {
        atomicStore(&candidate_keys[i], 0u);
    }
    for (var i = index; i < DEPTHS; i += WORKGROUP_SIZE) {
        atomicStore(&counts[i], 0u);
    }
    for (var i = index; i < 2u; i += WORKGROUP_SIZE) {
        atomicStore(&key_range[i], ~LARGEST);
    }
}

// If several keys are put for a candidate, the largest counts.
fn put_key(i: u32, key: u32) {
    atomicMax(&candidate_keys[i], key);
    if key > ~LARGEST && key < LARGEST {
        own_range = max(own_range, vec2<u32>(key, ~key));
    }
}

// The score of a key, from which key_of_score makes the key.
fn score_of_key(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

// Where a depth lies in arrays: each of SCANNED lanes scans DEPTHS / SCANNED neighbouring depths, and neighbouring lanes read neighbours.
fn depth_at(depth: u32) -> u32 {
    return depth % (DEPTHS / SCANNED) * SCANNED + depth / (DEPTHS / SCANNED);
}

// Calls keep_candidate for each kept candidate, and returns their number. All keys have been put.
fn keep_best(count: u32, keep: u32, index: u32) -> u32 {
    let put = subgroupMax(own_range);
    if own_lane == 0u {
        atomicMax(&key_range[0], put.x);
        atomicMax(&key_range[1], put.y);
    }
    own_range = vec2<u32>(~LARGEST);
    workgroupBarrier(); // orders candidate_keys and key_range
    let best = atomicLoad(&key_range[0]);
    let least = ~atomicLoad(&key_range[1]);
    let top = score_of_key(best);
    // Rounding keeps the order: no score is less deep than a larger one. Where all scores are equal they are all at one depth.
    let steps = f32(DEPTHS) / max(top - score_of_key(least), 1e-30);
    for (var i = index; i < CANDIDATES / 32u; i += WORKGROUP_SIZE) {
        atomicStore(&level[i], 0u);
    }
    for (var i = index; i < 2u; i += WORKGROUP_SIZE) {
        atomicStore(&level_words[i], 0u);
    }
    var keys: array<u32, TURNS>;
    var depths: array<u32, TURNS>;
    for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
        let i = turn * WORKGROUP_SIZE + index;
        keys[turn] = 0u;
        depths[turn] = DEPTHS;
        if i < count {
            keys[turn] = atomicLoad(&candidate_keys[i]);
        }
        if keys[turn] != 0u {
            let score = score_of_key(min(max(keys[turn], least), best));
            depths[turn] = min(u32((top - score) * steps), DEPTHS - 1u);
            atomicAdd(&counts[depth_at(depths[turn])], 1u);
        }
    }
    workgroupBarrier(); // orders counts, level and level_words
    var ahead: array<u32, DEPTHS / SCANNED>;
    var own = 0u;
    if own_lane < SCANNED {
        for (var d = 0u; d < DEPTHS / SCANNED; d++) { // unroll in registers
            ahead[d] = own;
            own += atomicLoad(&counts[d * SCANNED + own_lane]);
        }
    }
    let before = subgroupExclusiveAdd(own);
    // One lane has the keep-th candidate; where there are fewer, the last one. It tells the others its depth and how many there are kept.
    var told = 0u;
    if own_lane < SCANNED && before < keep && (before + own >= keep || own_lane + 1u == SCANNED) {
        var depth = 0u;
        var less_deep = 0u;
        for (var d = 0u; d < DEPTHS / SCANNED; d++) { // unroll in registers
            let is_before = before + ahead[d] < keep;
            depth = select(depth, d, is_before);
            less_deep = select(less_deep, before + ahead[d], is_before);
        }
        told = ((own_lane * (DEPTHS / SCANNED) + depth) << 16u) + keep - less_deep;
    }
    told = subgroupMax(told);
    let last_depth = told >> 16u;
    let num_last = told & 0xffffu;
    let chooses = atomicLoad(&counts[depth_at(last_depth)]) > num_last;
    for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
        let i = turn * WORKGROUP_SIZE + index;
        if chooses && depths[turn] == last_depth {
            atomicOr(&level[i / 32u], 1u << (i % 32u));
            atomicOr(&level_words[i / 1024u], 1u << (i / 32u % 32u));
        }
    }
    workgroupBarrier(); // orders level, level_words, counts and key_range
    for (var i = index; i < DEPTHS; i += WORKGROUP_SIZE) {
        atomicStore(&counts[i], 0u);
    }
    for (var i = index; i < 2u; i += WORKGROUP_SIZE) {
        atomicStore(&key_range[i], ~LARGEST);
    }
    var kept: array<bool, TURNS>;
    var places: array<u32, TURNS>;
    for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
        let i = turn * WORKGROUP_SIZE + index;
        kept[turn] = depths[turn] <= last_depth;
        if chooses && depths[turn] == last_depth {
            kept[turn] = num_ahead(i, keys[turn]) < num_last;
        }
        places[turn] = subgroupExclusiveAdd(u32(kept[turn]));
        if own_lane == subgroup_lanes - 1u {
            tallies[turn * num_subgroups + own_subgroup] = places[turn] + u32(kept[turn]);
        }
    }
    workgroupBarrier(); // orders tallies
    var total = 0u;
    for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
        let i = turn * WORKGROUP_SIZE + index;
        // In the upper half all, in the lower half those before this subgroup's turn. All lanes go round the loop equally often.
        var sums = 0u;
        for (var begin = 0u; begin < TURNS * num_subgroups; begin += subgroup_lanes) {
            let j = begin + own_lane;
            if j < TURNS * num_subgroups {
                sums += tallies[j] * select(0x10000u, 0x10001u, j < turn * num_subgroups + own_subgroup);
            }
        }
        sums = subgroupAdd(sums);
        total = sums >> 16u;
        if kept[turn] {
            keep_candidate(i, (sums & 0xffffu) + places[turn]);
        }
        if i < count {
            atomicStore(&candidate_keys[i], 0u);
        }
    }
    return total;
}

// Calls keep_candidate for each candidate that exists, and returns their number.
fn keep_all(count: u32, index: u32) -> u32 {
    return keep_best(count, count, index);
}

// Candidates at the same depth that are better than this one.
fn num_ahead(i: u32, key: u32) -> u32 {
    var ahead = 0u;
    for (var part = 0u; part < 2u; part++) {
        for (var words = atomicLoad(&level_words[part]); words != 0u; words &= words - 1u) {
            let word = part * 32u + firstTrailingBit(words);
            for (var bits = atomicLoad(&level[word]); bits != 0u; bits &= bits - 1u) {
                let other = word * 32u + firstTrailingBit(bits);
                let other_key = atomicLoad(&candidate_keys[other]);
                ahead += u32(other_key > key || (other_key == key && other < i));
            }
        }
    }
    return ahead;
}
