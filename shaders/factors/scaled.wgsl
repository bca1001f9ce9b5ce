// Family `factors`: elements of q, k and v as factors of matrix products. Here bf16, whose range f16 does not have: all elements of a head
// are multiplied by a power of two that takes the largest to [2^14, 2^15), and the products by its inverse.
//
// The exponents lie in the workspace from params.exponents_at on: [batch, num_q_heads + 2 * num_kv_heads, exponent_parts]. This dispatch
// does not write them.

// Exponents are those of f32, biased by 127. A smaller one would make the inverse of its power subnormal or infinite.
const LEAST_EXPONENT = 15u;

var<private> k_power: f32;
var<private> v_power: f32;
// Exponent of the head of q that was used last.
var<private> q_head: u32;
var<private> q_power: f32;
// Factors on the scores of each of the lane's rows.
var<private> row_scales: array<f32, ROWS_EACH>;

// The largest exponent of a head; heads are numbered as in find_exponents.
fn exponent_of(batch: u32, head: u32) -> u32 {
    let num_heads = params.num_q_heads + 2u * (params.num_q_heads / params.group_size);
    let first = (batch * num_heads + head) * params.exponent_parts;
    var exponent = LEAST_EXPONENT;
    for (var part = 0u; part < params.exponent_parts; part++) {
        let at = first + part;
        exponent = max(exponent, workspace[params.exponents_at + at / 4u][at % 4u]);
    }
    return exponent;
}

// 2^14 for the given exponent of 1.
fn power_for(exponent: u32) -> f32 {
    return bitcast<f32>((268u - exponent) << 23u);
}

fn inverse_of(power: f32) -> f32 {
    return bitcast<f32>(0x7f000000u - bitcast<u32>(power));
}

// value * 2^n by its bits, since 2^n need not be a number; a result out of range gets the smallest or largest exponent.
fn times_power(value: f32, n: i32) -> f32 {
    let bits = bitcast<u32>(value);
    let exponent = i32((bits >> 23u) & 0xffu);
    let moved = (bits & 0x807fffffu) | (u32(clamp(exponent + n, 1, 254)) << 23u);
    return select(bitcast<f32>(moved), 0.0, exponent == 0);
}

fn prepare_factors(tile: Tile, own_row: u32) {
    let num_kv_heads = params.num_q_heads / params.group_size;
    let k_exponent = exponent_of(tile.batch, params.num_q_heads + tile.heads);
    k_power = power_for(k_exponent);
    v_power = power_for(exponent_of(tile.batch, params.num_q_heads + num_kv_heads + tile.heads));
    q_head = params.num_q_heads;
    for (var i = 0u; i < ROWS_EACH; i++) { // unroll in registers
        let head = tile.heads * params.group_size + place_of(tile.first_row + own_row + i * LANES).head;
        // 2^(14 - e) for either factor; e is biased.
        row_scales[i] = times_power(params.scale, i32(exponent_of(tile.batch, head) + k_exponent) - 282);
    }
}

// `head` is an index into the tile's heads.
fn factor_q(elem: QElem4, tile: Tile, head: u32) -> vec4<f16> {
    if head != q_head {
        q_head = head;
        q_power = power_for(exponent_of(tile.batch, tile.heads * params.group_size + head));
    }
    return vec4<f16>(widen_q(elem) * q_power);
}

fn factor_k(elem: KElem4) -> vec4<f16> {
    return vec4<f16>(widen_k(elem) * k_power);
}

fn factor_v(elem: VElem4) -> vec4<f16> {
    return vec4<f16>(widen_v(elem) * v_power);
}

fn score_scale(i: u32) -> f32 {
    return row_scales[i];
}

fn unscaled4(mean: vec4<f32>, non_finite: bool) -> vec4<f32> {
    return nan_if4(non_finite, mean * inverse_of(v_power));
}
