//! Numbers of modifiers of scores: `shaders/modifier/`.

use super::params;

params! {
    /// A cap and its inverse.
    SoftcapNumbers {
        cap: f32,
        inverse: f32,
    }
}

params! {
    /// Where a bias lies, in elements; a stride of 0 along axes of size 1.
    BiasPlace {
        offset: u32,
        batch: u32,
        head: u32,
        query: u32,
        key: u32,
        batch_divisor: u32,
        batch_modulus: u32,
    }
}
