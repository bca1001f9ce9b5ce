// One workgroup draws the next token from the logits of the last, and advances the state by one token. It finds the thresholds of top-k
// and top-p by bisection over the bits of the logits, from the highest bit down. A NaN logit is never drawn; if all are NaN, the token
// is 0.
struct SampleParams {
    vocab_size: u32,
    top_k: u32,         // 0: all
    top_p: f32,         // 1: all
    temperature: f32,   // 0: the best
    seed: u32,
}

@group(0) @binding(PARAMS_BINDING) var<uniform>             params: SampleParams;
@group(0) @binding(LOGITS_BINDING) var<storage, read>       logits: array<f32>;   // [vocab_size]
@group(0) @binding(STATE_BINDING)  var<storage, read_write> state: array<u32>;    // [0] tokens so far, [1] position of the first
@group(0) @binding(TOKENS_BINDING) var<storage, read_write> tokens: array<u32>;   // [0]: the token drawn

const NONE = 0xffffffffu;

var<workgroup> floats: array<f32, WORKGROUP_SIZE>;
var<workgroup> words: array<u32, WORKGROUP_SIZE>;
var<workgroup> winners: array<u32, WORKGROUP_SIZE>;

fn is_nan(x: f32) -> bool {
    return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

// Integers that order as the floats do; only NaN gives 0.
fn ordered(x: f32) -> u32 {
    let bits = bitcast<u32>(x);
    return select(select(bits | 0x80000000u, ~bits, bits >> 31u == 1u), 0u, is_nan(x));
}

// Weight of a logit that is not NaN, relative to the best one. Infinities have no difference, but are equal.
fn weight_of(x: f32, best: f32) -> f32 {
    let exponent = select((x - best) / params.temperature, 0.0, x == best);
    // Gives a weight of 0 without computing with an infinity.
    return exp(max(exponent, -200.0));
}

fn mix(x: u32) -> u32 {
    let state = x * 747796405u + 2891336453u;
    let word = ((state >> ((state >> 28u) + 4u)) ^ state) * 277803737u;
    return (word >> 22u) ^ word;
}

// The sum over the workgroup, the same in every invocation, added in the order of the lanes. `floats` may be reused at once:
// workgroupUniformLoad is a barrier before and after.
fn sum_floats(lane: u32, value: f32) -> f32 {
    floats[lane] = value;
    workgroupBarrier(); // orders floats
    if lane == 0u {
        var sum = 0.0;
        for (var i = 0u; i < WORKGROUP_SIZE; i++) {
            sum += floats[i];
        }
        floats[0] = sum;
    }
    return workgroupUniformLoad(&floats[0]);
}

fn count_above(lane: u32, key: u32) -> u32 {
    var count = 0u;
    for (var token = lane; token < params.vocab_size; token += WORKGROUP_SIZE) {
        count += select(0u, 1u, ordered(logits[token]) >= key);
    }
    words[lane] = count;
    for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
        workgroupBarrier(); // orders words
        if lane < half {
            words[lane] += words[lane + half];
        }
    }
    return workgroupUniformLoad(&words[0]);
}

// Weight of this lane's tokens at or above a threshold.
fn lane_mass(lane: u32, key: u32, best: f32) -> f32 {
    var sum = 0.0;
    for (var token = lane; token < params.vocab_size; token += WORKGROUP_SIZE) {
        let x = logits[token];
        if ordered(x) >= key {
            sum += weight_of(x, best);
        }
    }
    return sum;
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn sample_token(@builtin(local_invocation_index) lane: u32) {
    // The best token, the first of equals.
    var best_key = 0u;
    var best_token = NONE;
    for (var token = lane; token < params.vocab_size; token += WORKGROUP_SIZE) {
        let key = ordered(logits[token]);
        if best_token == NONE || key > best_key {
            best_key = key;
            best_token = token;
        }
    }
    words[lane] = best_key;
    winners[lane] = best_token;
    for (var half = WORKGROUP_SIZE / 2u; half > 0u; half /= 2u) {
        workgroupBarrier(); // orders words and winners
        if lane < half {
            let other = words[lane + half];
            let other_token = winners[lane + half];
            if other > words[lane] || (other == words[lane] && other_token < winners[lane]) {
                words[lane] = other;
                winners[lane] = other_token;
            }
        }
    }
    workgroupBarrier(); // orders words and winners
    let winner = winners[0];
    let best = logits[winner];

    var chosen = winner;
    if params.temperature > 0.0 {
        var key = 0u;
        if params.top_k > 0u {
            for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
                if count_above(lane, key | bit) >= params.top_k {
                    key |= bit;
                }
            }
        }
        key = max(key, 1u); // of a number
        if params.top_p < 1.0 {
            let wanted = params.top_p * sum_floats(lane, lane_mass(lane, key, best));
            var nucleus = 0u;
            for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
                if sum_floats(lane, lane_mass(lane, nucleus | bit, best)) >= wanted {
                    nucleus |= bit;
                }
            }
            key = max(key, nucleus);
        }
        let mass = lane_mass(lane, key, best);
        let all = sum_floats(lane, mass);
        floats[lane] = mass;
        workgroupBarrier(); // orders floats
        if lane == 0u {
            // Walk the lanes, then the tokens of the lane where the draw falls.
            var left = f32(mix(params.seed ^ mix(state[0])) >> 8u) / 16777216.0 * all;
            var at = 0u;
            while at < WORKGROUP_SIZE - 1u && left >= floats[at] {
                left -= floats[at];
                at++;
            }
            for (var token = at; token < params.vocab_size; token += WORKGROUP_SIZE) {
                let x = logits[token];
                if ordered(x) >= key {
                    chosen = token;
                    left -= weight_of(x, best);
                    if left < 0.0 {
                        break;
                    }
                }
            }
        }
    }
    if lane == 0u {
        tokens[0] = chosen;
        state[1] = state[0];
        state[0] += 1u;
    }
}
