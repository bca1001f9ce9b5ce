//! WGSL text assembly: constants, one module of each family, the kernel's own text. There is no preprocessor: every
//! text is WGSL, and variation is the choice of modules and the values of constants.

mod binding;
mod chain;
mod edits;
mod kernel;
mod names;
mod specialization;
mod taken;
mod unroll;

pub use binding::{Binding, BindingKind};
pub use kernel::{Constant, Kernel, Module, Need, Trust};
pub use specialization::Specialization;
pub(crate) use taken::Taken;
pub(crate) use unroll::Arrays;
