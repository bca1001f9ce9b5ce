//! Where the tensors of optional bindings lie: `shaders/lse/stored.wgsl`, `shaders/lengths/listed.wgsl`.

use super::params;

params! {
    /// Where the lse lies, in elements.
    LsePlace {
        offset: u32,
        batch: u32,
        seq: u32,
        head: u32,
    }
}

params! {
    /// Where the lengths begin, in elements.
    SeqLensPlace {
        offset: u32,
    }
}

params! {
    /// Where the sinks begin, in elements.
    SinkPlace {
        offset: u32,
    }
}
