// Family `marks`: what a caller says of an entry. Here nothing.

fn mark_of(i: u32) -> u32 {
    return 0u;
}
