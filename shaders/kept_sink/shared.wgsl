// Family `kept_sink`: totals of rows, from the lanes that know a row's reference to those that store its columns. Here through workgroup
// memory.
var<workgroup> row_sinks: array<f32, GROUPS * ROWS>;

fn keep_total(row: u32, head: u32, reference: f32) {
    row_sinks[row] = total_of(0.0, head, reference);
}

// `row` counts the rows of the workgroup.
fn kept_total(row: u32, sum: f32) -> f32 {
    return sum + row_sinks[row];
}
