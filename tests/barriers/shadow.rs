//! Records accesses to each word since the last barrier.

use core::fmt;

/// An access to a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// An atomic operation whose result is not used: operations of one kind give the same in any order.
    Atomic(Atomic),
    /// Any other atomic operation.
    Exchange,
    /// Several kinds of access by one accessor.
    Mixed,
}

/// Kinds of atomic operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Atomic {
    /// Additions and subtractions.
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
}

impl Access {
    /// Whether several may do it without an order between them. All other accesses, atomic or not, would make results depend on their
    /// order.
    fn commutes(self) -> bool {
        matches!(self, Self::Read | Self::Atomic(_))
    }
}

/// Accesses to a word since the last barrier that orders it.
#[derive(Clone, Copy)]
pub(crate) struct Word {
    /// The interval between two barriers, from 1 on; earlier intervals are forgotten.
    epoch: u32,
    access: Access,
    by: u32,
    line: u32,
}

/// Several accessors, all with the same commutative operation.
const MANY: u32 = u32::MAX;

/// Two accesses without an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) first: (Access, u32, u32),
    pub(crate) second: (Access, u32, u32),
}

impl Word {
    pub(crate) const NEW: Self = Self { epoch: 0, access: Access::Read, by: MANY, line: 0 };

    pub(crate) fn touch(&mut self, epoch: u32, access: Access, by: u32, line: u32) -> Result<(), Conflict> {
        if self.epoch != epoch {
            *self = Self { epoch, access, by, line };
        } else if self.access == access && access.commutes() {
            if self.by != by {
                self.by = MANY;
            }
        } else if self.by == by {
            if self.access != access {
                self.access = Access::Mixed;
            }
            self.line = line;
        } else {
            return Err(Conflict { first: (self.access, self.by, self.line), second: (access, by, line) });
        }
        Ok(())
    }
}

/// The cause that stopped a run.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Two invocations touch a word with no barrier between, and one of them writes.
    Race(String),
    /// A barrier, a subgroup operation or a product of matrices that not all invocations reach.
    NotUniform(String),
    /// An index past the end: shaders run without bounds checks.
    Bounds(String),
    /// A matrix, or a row of it, that does not lie at a multiple of 16 bytes of its array.
    Misaligned(String),
    /// Workgroup memory that nobody wrote: it is not zeroed.
    Unwritten(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, text) = match self {
            Self::Race(text) => ("a barrier is missing", text),
            Self::NotUniform(text) => ("not reached by all", text),
            Self::Bounds(text) => ("out of bounds", text),
            Self::Misaligned(text) => ("a matrix at no multiple of 16 bytes", text),
            Self::Unwritten(text) => ("read before it is written", text),
        };
        write!(f, "{what}: {text}")
    }
}
