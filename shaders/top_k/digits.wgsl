// Family `top_k`: the best `keep` of a workgroup's candidates, in the candidates' order. Among equal keys the first candidates are kept.
// No sort; the result does not depend on the order in which invocations run. Here a radix select of the keep-th largest key, eight bits at
// a time, then a compaction: any number of candidates, wherever their keys are.
//
// The kernel's own file defines candidate_key(i), 0 for one that does not exist, and keep_candidate(i, place).

// For each of four digits the number of candidates with each value of it, and with each value of its upper half.
const DIGIT = 272u;
var<workgroup> histogram: array<atomic<u32>, 1088>;

struct Threshold {
    key: u32,
    // Number of candidates with exactly this key to keep.
    num_equal: u32,
}

fn find_threshold(count: u32, keep: u32, index: u32) -> Threshold {
    for (var i = index; i < 4u * DIGIT; i += WORKGROUP_SIZE) {
        atomicStore(&histogram[i], 0u);
    }
    workgroupBarrier(); // orders histogram
    var found = Threshold(0u, keep);
    for (var digit = 0u; digit < 4u; digit++) {
        let shift = 24u - 8u * digit;
        let begin = digit * DIGIT;
        // Mask of the upper digits, which are known.
        let fixed = select(0xffffffffu << (shift + 8u), 0u, digit == 0u);
        for (var i = index; i < count; i += WORKGROUP_SIZE) {
            let key = candidate_key(i);
            if (key & fixed) == found.key {
                let value = (key >> shift) & 255u;
                atomicAdd(&histogram[begin + value], 1u);
                atomicAdd(&histogram[begin + 256u + value / 16u], 1u);
            }
        }
        workgroupBarrier(); // orders histogram
        // Every invocation finds the same digit.
        var upper = 15u;
        while upper > 0u && found.num_equal > atomicLoad(&histogram[begin + 256u + upper]) {
            found.num_equal -= atomicLoad(&histogram[begin + 256u + upper]);
            upper--;
        }
        var value = upper * 16u + 15u;
        while value > upper * 16u && found.num_equal > atomicLoad(&histogram[begin + value]) {
            found.num_equal -= atomicLoad(&histogram[begin + value]);
            value--;
        }
        found.key |= value << shift;
    }
    return found;
}

// Numbers (above the threshold, at it) of each invocation's candidates, and of PARTS parts of the invocations.
var<workgroup> tallies: array<vec2<u32>, WORKGROUP_SIZE>;
var<workgroup> part_tallies: array<vec2<u32>, PARTS>;

// Calls keep_candidate for each kept candidate, and returns their number.
fn compact(count: u32, threshold: Threshold, index: u32) -> u32 {
    let each = (count + WORKGROUP_SIZE - 1u) / WORKGROUP_SIZE;
    let begin = min(index * each, count);
    let end = min(begin + each, count);
    var own = vec2<u32>();
    for (var i = begin; i < end; i++) {
        let key = candidate_key(i);
        own += vec2<u32>(u32(key > threshold.key), u32(key == threshold.key && key != 0u));
    }
    tallies[index] = own;
    workgroupBarrier(); // orders tallies
    let part = WORKGROUP_SIZE / PARTS;
    if index < PARTS {
        var sum = vec2<u32>();
        for (var i = index * part; i < (index + 1u) * part; i++) {
            sum += tallies[i];
        }
        part_tallies[index] = sum;
    }
    workgroupBarrier(); // orders part_tallies
    var before = vec2<u32>();
    var total = vec2<u32>();
    for (var i = 0u; i < PARTS; i++) {
        before += select(vec2<u32>(), part_tallies[i], i < index / part);
        total += part_tallies[i];
    }
    for (var i = index / part * part; i < index; i++) {
        before += tallies[i];
    }
    for (var i = begin; i < end; i++) {
        let key = candidate_key(i);
        if key > threshold.key {
            keep_candidate(i, before.x + min(before.y, threshold.num_equal));
            before.x++;
        } else if key == threshold.key && key != 0u {
            if before.y < threshold.num_equal {
                keep_candidate(i, before.x + before.y);
            }
            before.y++;
        }
    }
    return total.x + min(total.y, threshold.num_equal);
}

const KEYS_ARE_PUT = false;

fn begin_top_k(index: u32) {}

fn put_key(i: u32, key: u32) {}

// Calls keep_candidate for each candidate that exists, and returns their number.
fn keep_all(count: u32, index: u32) -> u32 {
    return compact(count, Threshold(0u, 0u), index);
}

// Calls keep_candidate for each kept candidate, and returns their number.
fn keep_best(count: u32, keep: u32, index: u32) -> u32 {
    return compact(count, find_threshold(count, keep, index), index);
}
