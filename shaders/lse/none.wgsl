// Family `lse`: the log-sum-exp of a row's scores. Here it is not stored.
fn put_lse(batch: u32, query: u32, head: u32, value: f32) {}
