// Family `top_k`: the best `keep` of a workgroup's candidates, in the candidates' order. Among equal keys the first candidates are kept.
// No sort; the result does not depend on the order in which invocations run. Here keys lie in workgroup memory, at most CANDIDATES, and
// subgroups add up what they know. The depth of a candidate says how far its score lies below the best one, in DEPTHS equal steps down to
// the least one. Numbers of candidates at each depth give the depth of the keep-th; the few candidates there are compared with one another.
//
// Subgroup operations follow a barrier, with no branch in between, since drivers need not bring lanes together again after a branch.
// The kernel's own file defines keep_candidate(i, place). Its invocations are numbered subgroup by subgroup, and all subgroups are full.

// 0 for a candidate that does not exist.
var<workgroup> candidate_keys: array<atomic<u32>, CANDIDATES>;
// The largest key, and the largest complement of a key.
var<workgroup> key_range: array<atomic<u32>, 2>;
// Candidates at each depth, in the order of depth_at.
var<workgroup> counts: array<atomic<u32>, DEPTHS>;
// A bit for each candidate at the depth of the keep-th where not all of them are kept, and a bit for each word that has some.
var<workgroup> level: array<atomic<u32>, CANDIDATES / 32u>;
var<workgroup> level_words: array<atomic<u32>, 2>;
// A bit for each candidate that is kept.
var<workgroup> kept: array<atomic<u32>, CANDIDATES / 32u>;

var<private> own_range: vec2<u32>;
var<private> subgroup_lanes: u32;
var<private> own_lane: u32;

const KEYS_ARE_PUT = true;

// Keys between this one's complement and this one are of scores up to 2^125, whose differences are finite. Others are as deep as they can be.
const LARGEST = 0xfe000000u;

// Runs once, before the first keys are put; keep_best restores this state.
fn begin_top_k(index: u32) {
    subgroup_lanes = subgroupAdd(1u);
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
    // Should a lane be missing here, the range is smaller, and scores beyond it are as deep as its ends.
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
        atomicStore(&kept[i], 0u);
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
    workgroupBarrier(); // orders counts, level, level_words and kept
    let scans = own_lane < SCANNED;
    var ahead: array<u32, DEPTHS / SCANNED>;
    var own = 0u;
    for (var d = 0u; d < DEPTHS / SCANNED; d++) { // unroll in registers
        ahead[d] = own;
        own += select(0u, atomicLoad(&counts[d * SCANNED + own_lane % SCANNED]), scans);
    }
    let before = subgroupExclusiveAdd(own);
    // One lane has the keep-th candidate; where there are fewer, the last one. It tells the others its depth and how many there are kept.
    var depth = 0u;
    var less_deep = 0u;
    for (var d = 0u; d < DEPTHS / SCANNED; d++) { // unroll in registers
        let is_before = before + ahead[d] < keep;
        depth = select(depth, d, is_before);
        less_deep = select(less_deep, before + ahead[d], is_before);
    }
    let has_it = scans & (before < keep) & ((before + own >= keep) | (own_lane + 1u == SCANNED));
    let told = subgroupMax(select(0u, ((own_lane * (DEPTHS / SCANNED) + depth) << 16u) + keep - less_deep, has_it));
    let last_depth = told >> 16u;
    let num_last = told & 0xffffu;
    let chooses = atomicLoad(&counts[depth_at(last_depth)]) > num_last;
    // Bits of candidates that are kept, and of those among which some are.
    var bits: array<vec2<u32>, TURNS * SUBGROUP_WORDS>;
    for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
        let bit = 1u << ((turn * WORKGROUP_SIZE + index) % 32u);
        let is_last = chooses & (depths[turn] == last_depth);
        let own_bits = select(vec2<u32>(), vec2<u32>(bit), vec2<bool>((depths[turn] <= last_depth) & !is_last, is_last));
        for (var part = 0u; part < SUBGROUP_WORDS; part++) { // unroll in registers
            bits[turn * SUBGROUP_WORDS + part] = subgroupOr(select(vec2<u32>(), own_bits, own_lane / 32u == part));
        }
    }
    if own_lane == 0u {
        for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
            for (var part = 0u; part < SUBGROUP_WORDS; part++) { // unroll in registers
                let found = bits[turn * SUBGROUP_WORDS + part];
                let word = (turn * WORKGROUP_SIZE + index) / 32u + part;
                if found.x != 0u {
                    atomicOr(&kept[word], found.x);
                }
                if found.y != 0u {
                    atomicOr(&level[word], found.y);
                    atomicOr(&level_words[word / 32u], 1u << (word % 32u));
                }
            }
        }
    }
    workgroupBarrier(); // orders level, level_words, counts and key_range
    for (var i = index; i < DEPTHS; i += WORKGROUP_SIZE) {
        atomicStore(&counts[i], 0u);
    }
    for (var i = index; i < 2u; i += WORKGROUP_SIZE) {
        atomicStore(&key_range[i], ~LARGEST);
    }
    for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
        let i = turn * WORKGROUP_SIZE + index;
        if chooses && depths[turn] == last_depth {
            if num_ahead(i, keys[turn]) < num_last {
                atomicOr(&kept[i / 32u], 1u << (i % 32u));
            }
        }
    }
    workgroupBarrier(); // orders kept
    // Kept candidates: in the upper half all, in the lower half those in words before the subgroup's first one.
    var sums: array<u32, TURNS>;
    for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
        let first_word = (turn * WORKGROUP_SIZE + index - own_lane) / 32u;
        var sum = 0u;
        for (var begin = 0u; begin < CANDIDATES / 32u; begin += subgroup_lanes) {
            let word = begin + own_lane;
            let own_kept = countOneBits(atomicLoad(&kept[word % (CANDIDATES / 32u)]));
            sum += select(0u, own_kept * select(0x10000u, 0x10001u, word < first_word), word < CANDIDATES / 32u);
        }
        sums[turn] = subgroupAdd(sum);
    }
    for (var turn = 0u; turn < TURNS; turn++) { // unroll in registers
        let i = turn * WORKGROUP_SIZE + index;
        if i < count {
            let own_word = atomicLoad(&kept[i / 32u]);
            if ((own_word >> (i % 32u)) & 1u) == 1u {
                var place = (sums[turn] & 0xffffu) + countOneBits(own_word & ((1u << (i % 32u)) - 1u));
                for (var word = (i - own_lane) / 32u; word < i / 32u; word++) {
                    place += countOneBits(atomicLoad(&kept[word]));
                }
                keep_candidate(i, place);
            }
            atomicStore(&candidate_keys[i], 0u);
        }
    }
    return sums[0] >> 16u;
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
