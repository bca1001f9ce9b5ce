//! Copies of a problem's tensors that calls take in turns, so that cached data of the last call does not count as the speed of memory.

use super::device::Uploaded;
use super::steady::Rotation;
use crate::{Context, DeviceCaps, Error, Result};

/// The largest last-level cache that a device is assumed to have.
const CACHE_BYTES: u64 = 128 << 20;

/// Limit on copies: each is bound separately.
const MOST_SETS: u64 = 64;

/// Number of copies of tensors of this many bytes. Together they are twice the size of a cache, since caches do not evict in strict order,
/// and at most four times. On a software device it is one: its numbers are compared with the CPU path and with other libraries on the CPU,
/// which use the same tensors each time, and most cases exceed the 32 MiB or so of a processor's cache anyway.
pub(crate) const fn num_sets(bytes: u64, caps: &DeviceCaps) -> u32 {
    if caps.software || bytes == 0 {
        return 1;
    }
    let wanted = (2 * CACHE_BYTES).div_ceil(bytes);
    (if wanted < MOST_SETS { wanted } else { MOST_SETS }) as u32 // at most 64
}

/// q, k and v, in several copies.
#[derive(Debug)]
pub(crate) struct Rotating {
    sets: Vec<Uploaded>,
}

impl Rotating {
    /// [`num_sets`] sets.
    pub(crate) fn new(ctx: &Context, first: Uploaded) -> Result<Self> {
        let wanted = num_sets(first.bytes(), ctx.caps());
        Self::with_sets(ctx, first, wanted)
    }

    /// [`num_sets`] sets, made from one.
    #[cfg(feature = "tune")]
    pub(crate) fn in_turns(mut self, ctx: &Context) -> Result<Self> {
        self.sets.truncate(1);
        match self.sets.pop() {
            Some(first) => Self::new(ctx, first),
            None => Ok(self),
        }
    }

    /// This many copies, or fewer if the device runs out of memory.
    pub(crate) fn with_sets(ctx: &Context, first: Uploaded, num_sets: u32) -> Result<Self> {
        let mut sets = vec![first];
        for _ in 1..num_sets {
            match sets[0].copied(ctx) {
                Ok(copy) => sets.push(copy),
                Err(Error::OutOfMemory { .. }) => {
                    // Leaves room for the buffers bound with them.
                    sets.truncate(sets.len().div_ceil(2));
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { sets })
    }

    pub(crate) fn sets(&self) -> &[Uploaded] {
        &self.sets
    }

    pub(crate) fn rotation(&self) -> Rotation {
        let sets = self.sets.len() as u32; // at most 64
        Rotation { sets, bytes: u64::from(sets) * self.sets[0].bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_pass_every_cache_and_no_memory() {
        let gpu = DeviceCaps { software: false, ..DeviceCaps::BASELINE };
        for (mib, sets) in [(1, 64), (4, 64), (8, 32), (33, 8), (100, 3), (128, 2), (255, 2), (256, 1), (4096, 1)] {
            assert_eq!(num_sets(mib << 20, &gpu), sets, "{mib} MiB");
            assert!(sets == 1 || u64::from(sets) * mib <= 512, "{mib} MiB");
        }
        assert_eq!((num_sets(0, &gpu), num_sets(1, &gpu)), (1, 64));
        assert_eq!(num_sets(1 << 20, &DeviceCaps { software: true, ..gpu }), 1);
    }
}
