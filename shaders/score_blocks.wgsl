// A group of LANES invocations scores one block of keys for one query block by the block's summary. Lanes share the channels, and sum up
// the score of each query of each head of the list; then every lane reduces the scores.
@group(0) @binding(PARAMS_BINDING)    var<uniform>             params: BlockScoreParams;
@group(0) @binding(Q_BINDING)         var<storage, read>       q: array<Elem4>;             // [batch, seq_len_q, num_q_heads, head_dim / 4]
@group(0) @binding(SUMMARIES_BINDING) var<storage, read>       summaries: array<vec4<f32>>; // [batch, num_blocks, num_kv_heads, NUM_VECTORS * head_dim / 4]
@group(0) @binding(SCORES_BINDING)    var<storage, read_write> scores: array<f32>;          // [batch, num_sets, num_q_blocks, num_blocks]

// Offsets and strides of q and of the summaries count vec4 elements, others elements.
struct BlockScoreParams {
    batch_size: u32,
    seq_len_q: u32,
    seq_len_kv: u32,
    group_size: u32,
    num_sets: u32,
    heads_per_set: u32,
    num_q_blocks: u32,
    block_size_q: u32,
    num_blocks: u32,
    block_size: u32,
    // Index in a block of the key that a query must see.
    needed_key: u32,
    q_offset: u32,
    q_batch: u32,
    q_seq: u32,
    q_head: u32,
    summaries_offset: u32,
    summaries_batch: u32,
    summaries_seq: u32,
    summaries_head: u32,
    scores_offset: u32,
    scores_batch: u32,
    scores_set: u32,
    scores_q_block: u32,
}

// A reduction of scores: the number of scores so far, and their largest or their sum.
struct Tally {
    value: f32,
    count: u32,
}

// Adds one more score to a reduction.
fn add_score(tally: Tally, score: f32, is_max: bool) -> Tally {
    let largest = select(max(tally.value, score), score, tally.count == 0u);
    return Tally(select(tally.value + score, largest, is_max), tally.count + 1u);
}

fn reduced_score(tally: Tally, is_mean: bool) -> f32 {
    return select(tally.value, tally.value / f32(max(tally.count, 1u)), is_mean);
}

@compute @workgroup_size(WORKGROUP_SIZE)
fn score_blocks(
    thread: Thread,
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
) {
    let item = (stretch.first_place + workgroup.y * num_workgroups.x + workgroup.x) * GROUPS + group_of(thread);
    let block = item % params.num_blocks;
    let list = item / params.num_blocks;
    let q_block = list % params.num_q_blocks;
    let set_index = list / params.num_q_blocks % params.num_sets;
    // Groups past the last list compute along, since all must reach the barriers, and store nothing.
    let is_there = list < params.batch_size * params.num_sets * params.num_q_blocks;
    let batch = min(list / params.num_q_blocks / params.num_sets, params.batch_size - 1u);
    let seq_len = seq_len_kv_of(batch);
    let lane = lane_of(thread);
    let needed = i32(block * params.block_size + params.needed_key);

    var of_heads = Tally(0.0, 0u);
    var is_seen = false;
    for (var h = 0u; h < params.heads_per_set; h++) {
        let head = set_index * params.heads_per_set + h;
        let summary_at = params.summaries_offset + batch * params.summaries_batch + block * params.summaries_seq
            + head / params.group_size * params.summaries_head;
        var low: array<vec4<f32>, COLS>;
        var high: array<vec4<f32>, COLS>;
        for (var c = 0u; c < COLS; c++) { // unroll in registers
            let column = min(c * LANES + lane, HEAD_DIM4 - 1u);
            low[c] = summaries[summary_at + column];
            if NUM_VECTORS == 2u {
                high[c] = summaries[summary_at + HEAD_DIM4 + column];
            }
        }
        var of_rows = Tally(0.0, 0u);
        for (var row = 0u; row < params.block_size_q; row++) {
            let query = min(q_block * params.block_size_q + row, params.seq_len_q - 1u);
            let q_at = params.q_offset + batch * params.q_batch + query * params.q_seq + head * params.q_head;
            var sums = vec4<f32>();
            for (var c = 0u; c < COLS; c++) { // unroll in registers
                let column = c * LANES + lane;
                let q4 = widen(q[q_at + min(column, HEAD_DIM4 - 1u)]);
                var products = q4 * low[c];
                if NUM_VECTORS == 2u {
                    products = larger_or_nan(products, q4 * high[c]);
                }
                // Columns past the row's end count as 0, whatever was loaded.
                sums += select(vec4<f32>(), products, column < HEAD_DIM4);
            }
            let given = give_sum(sums.x + sums.y + sums.z + sums.w, 0u, thread);
            join_sum(thread);
            let score = take(given, 0u, thread);
            // The last key that the query sees.
            let last = i32(seq_len) - 1 - select(0, i32(params.seq_len_q - 1u - query), CAUSAL_BLOCKS);
            let sees = q_block * params.block_size_q + row < params.seq_len_q && needed <= last;
            is_seen = is_seen || sees;
            if sees && !is_nan(score) {
                of_rows = add_score(of_rows, score, ROWS_MAX);
            }
        }
        if of_rows.count > 0u {
            of_heads = add_score(of_heads, reduced_score(of_rows, ROWS_MEAN), HEADS_MAX);
        }
    }
    if is_there && lane == 0u {
        let to = params.scores_offset + batch * params.scores_batch + set_index * params.scores_set
            + q_block * params.scores_q_block + block;
        let score = nan_if(of_heads.count == 0u, reduced_score(of_heads, HEADS_MEAN));
        scores[to] = select(bitcast<f32>(MASKED_BITS), score, is_seen);
    }
}

// A NaN need not survive a maximum, but it does survive a sum.
fn larger_or_nan(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let magnitude = max(bitcast<vec4<u32>>(a) & vec4<u32>(0x7fffffffu), bitcast<vec4<u32>>(b) & vec4<u32>(0x7fffffffu));
    let has_nan = magnitude > vec4<u32>(INFINITY_BITS);
    return bitcast<vec4<f32>>(select(bitcast<vec4<u32>>(max(a, b)), vec4<u32>(NAN_BITS), has_nan));
}
