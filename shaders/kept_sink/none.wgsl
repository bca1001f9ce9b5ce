// Family `kept_sink`: totals of rows, from the lanes that know a row's reference to those that store its columns. Here the rows have no
// sinks, and their totals are their sums.
fn keep_total(row: u32, head: u32, reference: f32) {}

// `row` counts the rows of the workgroup.
fn kept_total(row: u32, sum: f32) -> f32 {
    return sum;
}
