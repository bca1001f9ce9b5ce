// One workgroup finds the largest exponent in one part of a head of q, k or v, for factors/scaled. It skips non-finite numbers, and keys
// that no query sees: memory past a sequence's length may hold anything.
@group(0) @binding(Q_BINDING)         var<storage, read>       q: array<QElem4>;      // [batch, seq_len_q, num_q_heads, head_dim / 4]
@group(0) @binding(K_BINDING)         var<storage, read>       k: array<KElem4>;      // [batch, seq_len_kv, num_kv_heads, head_dim / 4]
@group(0) @binding(V_BINDING)         var<storage, read>       v: array<VElem4>;      // [batch, seq_len_kv, num_kv_heads, head_dim_v / 4]
@group(0) @binding(EXPONENTS_BINDING) var<storage, read_write> exponents: array<u32>; // [batch, num_q_heads + 2 * num_kv_heads, exponent_parts]

const OF_Q = 0u;
const OF_K = 1u;
const OF_V = 2u;

var<workgroup> largest: atomic<u32>; // the bits of the largest magnitude

// Rows `begin` to `end` of one head of a tensor: queries, or keys.
struct Slice {
    tensor: u32,
    head: u32,
    columns: u32,
    begin: u32,
    end: u32,
}

// Heads of q come first, then heads of k, then heads of v.
fn whole_head(batch: u32, head: u32) -> Slice {
    if head < params.num_q_heads {
        return Slice(OF_Q, head, HEAD_DIM4, 0u, params.seq_len_q);
    }
    // The last query sits on the last key. The keys seen by any query begin with the first query's and end with the last query's.
    let length = i32(seq_len_kv_of(batch));
    let begin = u32(clamp(length - i32(params.seq_len_q) - params.window_left, 0, length));
    let end = max(begin, u32(clamp(length + params.window_right, 0, length)));
    let num_kv_heads = params.num_q_heads / params.group_size;
    let kv_head = (head - params.num_q_heads) % num_kv_heads;
    if head - params.num_q_heads < num_kv_heads {
        return Slice(OF_K, kv_head, HEAD_DIM4, begin, end);
    }
    return Slice(OF_V, kv_head, HEAD_DIM_V4, begin, end);
}

// The bits of the largest finite magnitude of four numbers; 0 if there is none.
fn magnitude_bits(value: vec4<f32>) -> u32 {
    let bits = bitcast<vec4<u32>>(value) & vec4<u32>(0x7fffffffu);
    let finite = select(vec4<u32>(), bits, bits < vec4<u32>(0x7f800000u));
    return max(max(finite.x, finite.y), max(finite.z, finite.w));
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn find_exponents(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    let place = stretch.first_place + workgroup.y * num_workgroups.x + workgroup.x;
    let part = place % params.exponent_parts;
    let num_heads = params.num_q_heads + 2u * (params.num_q_heads / params.group_size);
    let head = place / params.exponent_parts % num_heads;
    let batch = place / params.exponent_parts / num_heads;
    if batch >= params.batch_size {
        return;
    }
    var slice = whole_head(batch, head);
    let rows_each = (slice.end - slice.begin + params.exponent_parts - 1u) / params.exponent_parts;
    slice.begin = min(slice.begin + part * rows_each, slice.end);
    slice.end = min(slice.begin + rows_each, slice.end);

    let first_q = params.q_offset + batch * params.q_batch + slice.head * params.q_head;
    let k_rows = rows_of_k(batch, slice.head);
    let v_rows = rows_of_v(batch, slice.head);

    // Neighbouring invocations take neighbouring columns.
    var row = slice.begin + index / slice.columns;
    var column = index % slice.columns;
    var found = 0u;
    while row < slice.end {
        var rows: array<u32, AT_ONCE>;
        var columns: array<u32, AT_ONCE>;
        for (var i = 0u; i < AT_ONCE; i++) { // unroll in registers
            // Past the end the last row is read again.
            rows[i] = min(row, slice.end - 1u);
            columns[i] = column;
            row += WORKGROUP_SIZE / slice.columns;
            column += WORKGROUP_SIZE % slice.columns;
            if column >= slice.columns {
                column -= slice.columns;
                row++;
            }
        }
        var values: array<vec4<f32>, AT_ONCE>;
        if slice.tensor == OF_Q {
            for (var i = 0u; i < AT_ONCE; i++) { // unroll in registers
                values[i] = widen_q(q[first_q + rows[i] * params.q_seq + columns[i]]);
            }
        } else if slice.tensor == OF_K {
            for (var i = 0u; i < AT_ONCE; i++) { // unroll in registers
                values[i] = widen_k(k[k_rows.begin + key_row(k_rows, rows[i]) + columns[i]]);
            }
        } else {
            for (var i = 0u; i < AT_ONCE; i++) { // unroll in registers
                values[i] = widen_v(v[v_rows.begin + key_row(v_rows, rows[i]) + columns[i]]);
            }
        }
        for (var i = 0u; i < AT_ONCE; i++) { // unroll in registers
            found = max(found, magnitude_bits(values[i]));
        }
    }

    if index == 0u {
        atomicStore(&largest, 0u);
    }
    workgroupBarrier(); // orders largest: it begins at 0
    atomicMax(&largest, found);
    workgroupBarrier(); // orders largest: all have given theirs
    if index == 0u {
        exponents[place] = atomicLoad(&largest) >> 23u;
    }
}
