// Family `top_k`: the best `keep` of a workgroup's candidates, in the candidates' order. Among equal keys the first candidates are kept.
// No sort; the result does not depend on the order in which invocations run. Here keys lie in workgroup memory, at most CANDIDATES. One
// histogram of BUCKETS equal intervals between the smallest and the largest key gives the bucket of the keep-th largest; the few
// candidates in this bucket are compared with one another.
//
// The kernel's own file defines keep_candidate(i, place).

// 0 for a candidate that does not exist.
var<workgroup> candidate_keys: array<atomic<u32>, CANDIDATES>;
// The largest key, and the largest complement of a key.
var<workgroup> key_range: array<atomic<u32>, 4>;
// Candidates in each bucket, then in each parent of 32 buckets.
var<workgroup> counts: array<atomic<u32>, BUCKETS + PARENTS>;
// The bucket of the keep-th largest key, and how many of its candidates are kept.
var<workgroup> found: vec4<u32>;
// Two bits for each candidate: it is in that bucket; it is kept.
var<workgroup> in_bucket: array<atomic<u32>, CANDIDATES / 32u>;
var<workgroup> kept: array<atomic<u32>, CANDIDATES / 32u>;

const KEYS_ARE_PUT = true;

// Runs once, before the first keys are put; keep_best restores this state.
fn begin_top_k(index: u32) {
    for (var i = index; i < CANDIDATES; i += WORKGROUP_SIZE) {
        atomicStore(&candidate_keys[i], 0u);
    }
    for (var i = index; i < BUCKETS + PARENTS; i += WORKGROUP_SIZE) {
        atomicStore(&counts[i], 0u);
    }
    for (var i = index; i < 2u; i += WORKGROUP_SIZE) {
        atomicStore(&key_range[i], 0u);
    }
}

// If several keys are put for a candidate, the largest counts.
fn put_key(i: u32, key: u32) {
    atomicMax(&candidate_keys[i], key);
    atomicMax(&key_range[0], key);
    atomicMax(&key_range[1], ~key);
}

// Whether a candidate's bit is set.
fn has_bit(word: u32, i: u32) -> bool {
    return ((word >> (i % 32u)) & 1u) == 1u;
}

// Calls keep_candidate for each kept candidate, and returns their number. All keys have been put.
fn keep_best(count: u32, keep: u32, index: u32) -> u32 {
    workgroupBarrier(); // orders candidate_keys and key_range
    let least = ~atomicLoad(&key_range[1]);
    // Enough bits to number the buckets.
    let shift = max(firstLeadingBit(atomicLoad(&key_range[0]) - least) + 1u, BUCKET_BITS) - BUCKET_BITS;
    for (var i = index; i < CANDIDATES / 32u; i += WORKGROUP_SIZE) {
        atomicStore(&in_bucket[i], 0u);
        atomicStore(&kept[i], 0u);
    }
    for (var i = index; i < count; i += WORKGROUP_SIZE) {
        let key = atomicLoad(&candidate_keys[i]);
        if key != 0u {
            let bucket = (key - least) >> shift;
            atomicAdd(&counts[bucket], 1u);
            atomicAdd(&counts[BUCKETS + bucket / 32u], 1u);
        }
    }
    workgroupBarrier(); // orders counts
    for (var parent = index; parent < PARENTS; parent += WORKGROUP_SIZE) {
        var above = 0u;
        for (var i = 0u; i < PARENTS; i++) { // unroll in registers
            above += select(0u, atomicLoad(&counts[BUCKETS + i]), i > parent);
        }
        // One parent has the key; where there are fewer candidates than `keep`, the first one.
        if above < keep && (parent == 0u || above + atomicLoad(&counts[BUCKETS + parent]) >= keep) {
            var bucket = parent * 32u + 31u;
            while bucket > parent * 32u && above + atomicLoad(&counts[bucket]) < keep {
                above += atomicLoad(&counts[bucket]);
                bucket--;
            }
            found = vec4<u32>(bucket, keep - above, 0u, 0u);
        }
    }
    workgroupBarrier(); // orders found
    let bucket = found.x;
    for (var i = index; i < count; i += WORKGROUP_SIZE) {
        let key = atomicLoad(&candidate_keys[i]);
        if key != 0u {
            let own = (key - least) >> shift;
            if own > bucket {
                atomicOr(&kept[i / 32u], 1u << (i % 32u));
            } else if own == bucket {
                atomicOr(&in_bucket[i / 32u], 1u << (i % 32u));
            }
        }
    }
    for (var i = index; i < BUCKETS + PARENTS; i += WORKGROUP_SIZE) {
        atomicStore(&counts[i], 0u);
    }
    workgroupBarrier(); // orders in_bucket
    for (var i = index; i < count; i += WORKGROUP_SIZE) {
        if has_bit(atomicLoad(&in_bucket[i / 32u]), i) && num_ahead(i) < found.y {
            atomicOr(&kept[i / 32u], 1u << (i % 32u));
        }
    }
    workgroupBarrier(); // orders kept
    var total = 0u;
    for (var word = 0u; word < CANDIDATES / 32u; word++) {
        total += countOneBits(atomicLoad(&kept[word]));
    }
    for (var i = index; i < count; i += WORKGROUP_SIZE) {
        let own = atomicLoad(&kept[i / 32u]);
        if has_bit(own, i) {
            var before = countOneBits(own & ((1u << (i % 32u)) - 1u));
            for (var word = 0u; word < i / 32u; word++) {
                before += countOneBits(atomicLoad(&kept[word]));
            }
            keep_candidate(i, before);
        }
        atomicStore(&candidate_keys[i], 0u);
    }
    for (var i = index; i < 2u; i += WORKGROUP_SIZE) {
        atomicStore(&key_range[i], 0u);
    }
    return total;
}

// Calls keep_candidate for each candidate that exists, and returns their number.
fn keep_all(count: u32, index: u32) -> u32 {
    return keep_best(count, count, index);
}

// Kept candidates of the bucket before this one.
fn num_ahead(i: u32) -> u32 {
    let key = atomicLoad(&candidate_keys[i]);
    var ahead = 0u;
    for (var word = 0u; word < CANDIDATES / 32u; word++) {
        for (var bits = atomicLoad(&in_bucket[word]); bits != 0u; bits &= bits - 1u) {
            let other = word * 32u + firstTrailingBit(bits);
            let other_key = atomicLoad(&candidate_keys[other]);
            ahead += u32(other_key > key || (other_key == key && other < i));
        }
    }
    return ahead;
}
