// The end of a walk whose keys were shared out among groups: what JOINED of them found for SUMMED_ROWS rows, added up through workgroup
// memory. The kernel's own file stores the result: store_out(tile, place, column, value) and store_lse(tile, place, lse).
var<workgroup> group_out: array<vec4<f32>, SUMMED_ROWS * JOINED * HEAD_DIM_V4>;
var<workgroup> group_max: array<f32, SUMMED_ROWS * JOINED>;
var<workgroup> group_sum: array<f32, SUMMED_ROWS * JOINED>;

// Adds up the sums of rows from `first_row` on, group by group, and stores them; `index` numbers the invocations of the workgroup.
fn store_rows(tile: Tile, first_row: u32, index: u32) {
    for (var item = index; item < SUMMED_ROWS * HEAD_DIM_V4; item += WORKGROUP_SIZE) {
        let row = item / HEAD_DIM_V4;
        if first_row + row < tile.end_row {
            store_columns(tile, place_of(first_row + row), row * JOINED, item % HEAD_DIM_V4);
        }
    }
}

fn store_columns(tile: Tile, place: Place, first: u32, column: u32) {
    var all_max = MASKED;
    for (var g = 0u; g < JOINED; g++) {
        all_max = max(all_max, group_max[first + g]);
    }
    var non_finite = false;
    var sum = 0.0;
    var value = vec4<f32>();
    for (var g = 0u; g < JOINED; g++) {
        non_finite = non_finite || is_non_finite_sum(group_sum[first + g]);
        // The sums of a group that saw no key are 0.
        let share = max(exp2(group_max[first + g] - all_max), LEAST_WEIGHT);
        sum += group_sum[first + g] * share;
        value = fma(vec4<f32>(share), group_out[(first + g) * HEAD_DIM_V4 + column], value);
    }
    store_out(tile, place, column, mean4(value, sum, total_of(sum, head_of(tile, place), all_max), non_finite));
    if column == 0u {
        store_lse(tile, place, lse_of(all_max, sum, non_finite));
    }
}
