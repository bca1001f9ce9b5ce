//! The next token from its logits.

use crate::lm::Sampling;

/// Invocations of the kernel: token `t` belongs to lane `t % LANES`.
const LANES: usize = 256;

/// Maps floats to integers of the same order; NaN, and nothing else, to 0.
fn ordered(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        0
    } else if bits >> 31 == 1 {
        !bits
    } else {
        bits | 1 << 31
    }
}

/// Uniform in [0, 1), from the seed and the position: PCG's output permutation (O'Neill 2014) of both.
fn uniform(seed: u32, position: u32) -> f32 {
    let mix = |x: u32| {
        let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
        (word >> 22) ^ word
    };
    (mix(seed ^ mix(position)) >> 8) as f32 / (1u32 << 24) as f32
}

/// The largest key for which `enough` holds, by bisection; it holds for all smaller keys too.
fn largest(enough: impl Fn(u32) -> bool) -> u32 {
    (0..32).rev().fold(0, |key, bit| if enough(key | 1 << bit) { key | 1 << bit } else { key })
}

/// Draws a token: divides the logits by the temperature, keeps the `top_k` best (and equals of the last kept one), then of these the best
/// that together have `top_p` of the remaining probability. At temperature 0 the largest logit wins, the first of equals. A NaN logit is
/// never drawn; if all are NaN, the token is 0.
pub fn sample_token(logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
    let best = (0..logits.len()).rev().max_by(|&a, &b| ordered(logits[a]).cmp(&ordered(logits[b]))).unwrap_or(0);
    if sampling.temperature == 0.0 {
        return best as u32; // vocabularies have fewer than 2^32 tokens
    }
    let keys: Vec<u32> = logits.iter().map(|&logit| ordered(logit)).collect();
    let weight = |&logit: &f32| {
        // Infinities have no difference, but are equal.
        let difference = if logit == logits[best] { 0.0 } else { logit - logits[best] };
        (difference / sampling.temperature).exp()
    };
    let weights: Vec<f32> = logits.iter().map(weight).collect();
    let kept = |lane: usize, key: u32| {
        let keys = &keys;
        (lane..keys.len()).step_by(LANES).filter(move |&token| keys[token] >= key)
    };
    let lane_mass = |lane: usize, key: u32| -> f32 { kept(lane, key).map(|token| weights[token]).sum() };
    let mass = |key: u32| -> f32 { (0..LANES).map(|lane| lane_mass(lane, key)).sum() };
    let mut key = 0;
    if sampling.top_k > 0 {
        let count = |key: u32| keys.iter().filter(|&&other| other >= key).count();
        key = largest(|key| count(key) >= sampling.top_k as usize);
    }
    key = key.max(1); // of a number
    if sampling.top_p < 1.0 {
        let wanted = sampling.top_p * mass(key);
        key = largest(|key| mass(key) >= wanted).max(key);
    }
    // Walk the lanes, then the tokens of the lane where the draw falls.
    let masses: Vec<f32> = (0..LANES).map(|lane| lane_mass(lane, key)).collect();
    let mut left = uniform(sampling.seed, position) * masses.iter().sum::<f32>();
    let mut at = 0;
    while at < LANES - 1 && left >= masses[at] {
        left -= masses[at];
        at += 1;
    }
    let mut chosen = best;
    for token in kept(at, key) {
        chosen = token;
        left -= weights[token];
        if left < 0.0 {
            break;
        }
    }
    chosen as u32
}
