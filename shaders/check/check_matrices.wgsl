// Products of small integers on the device's matrix units, through workgroup memory and laid out as in attention, with results known to
// the bit. One workgroup; each group is a subgroup with EDGE rows, and all groups have the same keys.
@group(0) @binding(OPERANDS_BINDING) var<storage, read>       operands: array<Elem4>;  // q, k, v, weights and first sums, see below
@group(0) @binding(FOUND_BINDING)    var<storage, read_write> found: array<vec4<f32>>; // scores, out, out by columns, invocations

// Rows of q, weights and sums are [ROWS]; of keys and values [TILE_KV].
const Q = 0u;                                    // [row, head_dim / 4]
const K = Q + ROWS * K_COLUMNS4;                 // [key, head_dim / 4]
const V = K + TILE_KV * K_COLUMNS4;              // [key, head_dim_v / 4]
const WEIGHTS = V + TILE_KV * V_COLUMNS4;        // [row, key / 4]
const FIRST_SUMS = WEIGHTS + ROWS * TILE_KV / 4u; // [row, head_dim_v / 4]

const OUT = ROWS * TILE_KV / 4u;                     // [row, head_dim_v / 4], after scores [row, key / 4]
const OUT_BY_COLUMNS = OUT + ROWS * V_COLUMNS4;      // [head_dim_v, row / 4]
const INVOCATIONS = OUT_BY_COLUMNS + V_COLUMNS4 * ROWS;

// Small, like the flags of attention, so that the other arrays do not begin at the start of workgroup memory.
var<workgroup> arrived: array<atomic<u32>, 4>;

// Index in sums of the e-th vec4 of a group's EDGE rows of matrices.
fn sums_at(first_sums: u32, e: u32) -> u32 {
    return first_sums + e / (EDGE / 4u) * SUMS_STRIDE4 + e % (EDGE / 4u);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn check_matrices(thread: Thread) {
    let lane = lane_of(thread);
    let first = group_of(thread) * EDGE;
    let first_sums = first * SUMS_STRIDE4;
    let first_a = first * A_STRIDE4;
    if thread.index < 4u {
        atomicStore(&arrived[thread.index], 0u);
    }

    // As sums that were kept between parts are loaded again.
    var acc: array<MatrixC, V_TILES>;
    for (var c = 0u; c < V_TILES; c++) { // unroll in registers
        for (var e = lane; e < EDGE * EDGE / 4u; e += LANES) {
            let column = c * EDGE / 4u + e % (EDGE / 4u);
            let at = FIRST_SUMS + (first + e / (EDGE / 4u)) * V_COLUMNS4 + column;
            put_sums4(sums_at(first_sums, e), widen(operands[at]));
        }
        workgroupBarrier(); // orders sums and arrived: the other lanes' have been written
        acc[c] = coopLoadT<MatrixC>(&sums[first_sums * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
        workgroupBarrier(); // orders sums: the matrix has been read
    }
    atomicAdd(&arrived[thread.index % 4u], 1u);

    // Queries come in through tile_a, which is as wide as they are. It is written again only after later barriers.
    var queries: array<MatrixA, K_TILES>;
    for (var e = lane; e < EDGE * K_COLUMNS4; e += LANES) {
        let row = e / K_COLUMNS4;
        let column = e % K_COLUMNS4;
        put_a4(first_a + row * A_STRIDE4 + column, operands[Q + (first + row) * K_COLUMNS4 + column]);
    }
    workgroupBarrier(); // orders tile_a: the other lanes' have been written
    for (var d = 0u; d < K_TILES; d++) { // unroll in registers
        let at = first_a + d * EDGE / 4u;
        queries[d] = coopLoadT<MatrixA>(&tile_a[at * PER_VEC4], A_STRIDE4 * PER_VEC4);
    }

    for (var e = thread.index; e < TILE_KV * K_COLUMNS4; e += WORKGROUP_SIZE) {
        put_k4(e / K_COLUMNS4 * K_STRIDE4 + e % K_COLUMNS4, operands[K + e]);
    }
    for (var e = thread.index; e < TILE_KV * V_COLUMNS4; e += WORKGROUP_SIZE) {
        put_v4(e / V_COLUMNS4 * V_STRIDE4 + e % V_COLUMNS4, operands[V + e]);
    }
    workgroupBarrier(); // orders tile_k, tile_v and arrived: the other invocations' have been written

    for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
        var products = MatrixC();
        for (var d = 0u; d < K_TILES; d++) { // unroll in registers
            let at = n * EDGE * K_STRIDE4 + d * EDGE / 4u;
            let keys = coopLoad<MatrixB>(&tile_k[at * PER_VEC4], K_STRIDE4 * PER_VEC4);
            products = coopMultiplyAdd(queries[d], keys, products);
        }
        let at = first_sums + n * EDGE / 4u;
        coopStoreT(products, &sums[at * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
    }
    workgroupBarrier(); // orders sums: the matrices have been written
    for (var e = lane; e < EDGE * TILE_KV / 4u; e += LANES) {
        let row = e / (TILE_KV / 4u);
        let key4 = e % (TILE_KV / 4u);
        found[(first + row) * TILE_KV / 4u + key4] = sums4(first_sums + row * SUMS_STRIDE4 + key4);
        put_a4(first_a + row * A_STRIDE4 + key4, operands[WEIGHTS + (first + row) * TILE_KV / 4u + key4]);
    }
    workgroupBarrier(); // orders tile_a and sums: weights have been written, and scores read

    for (var n = 0u; n < KEY_TILES; n++) { // unroll in registers
        let weights_at = first_a + n * EDGE / 4u;
        let weights = coopLoadT<MatrixA>(&tile_a[weights_at * PER_VEC4], A_STRIDE4 * PER_VEC4);
        for (var c = 0u; c < V_TILES; c++) { // unroll in registers
            let at = n * EDGE * V_STRIDE4 + c * EDGE / 4u;
            let values = coopLoadT<MatrixB>(&tile_v[at * PER_VEC4], V_STRIDE4 * PER_VEC4);
            acc[c] = coopMultiplyAdd(weights, values, acc[c]);
        }
    }
    for (var c = 0u; c < V_TILES; c++) { // unroll in registers
        coopStoreT(acc[c], &sums[first_sums * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
        workgroupBarrier(); // orders sums: the matrix has been written
        for (var e = lane; e < EDGE * EDGE / 4u; e += LANES) {
            let column = c * EDGE / 4u + e % (EDGE / 4u);
            found[OUT + (first + e / (EDGE / 4u)) * V_COLUMNS4 + column] = sums4(sums_at(first_sums, e));
        }
        workgroupBarrier(); // orders sums: they have been read
        // By columns: the numbers of a column lie side by side, like a key's scores in a search.
        coopStore(acc[c], &sums[first_sums * PER_VEC4], SUMS_STRIDE4 * PER_VEC4);
        workgroupBarrier(); // orders sums: the matrix has been written
        for (var e = lane; e < EDGE * EDGE / 4u; e += LANES) {
            let column = c * EDGE + e / (EDGE / 4u);
            found[OUT_BY_COLUMNS + (column * ROWS + first) / 4u + e % (EDGE / 4u)] = sums4(sums_at(first_sums, e));
        }
        workgroupBarrier(); // orders sums: they have been read
    }
    if thread.index == 0u {
        var invocations: vec4<f32>;
        for (var i = 0u; i < 4u; i++) { // unroll
            invocations[i] = f32(atomicLoad(&arrived[i]));
        }
        found[INVOCATIONS] = invocations;
    }
}
