//! A kernel of a caller's as a step of a selection.

use crate::shader::{BindingKind, Specialization};
use crate::{AttentionShape, Error, HostTensor, Result};

/// A kernel of one's own as a step of a [`Selector`](crate::Selector): a [`Kernel`](crate::Kernel) with its modules and constants, the
/// tensor that it writes, and the same on the CPU, which is what the oracle computes too.
///
/// Bindings are found by their names:
///
/// - `var<storage, read>`: `q` and `k` of the call, or the tensor of an earlier step;
/// - the one `var<storage, read_write>`: the tensor that it writes, f32 and contiguous, under the name by which later steps read it;
/// - `var<uniform>`: each field is a number of the step ([`with_u32`](Self::with_u32), [`with_f32`](Self::with_f32)), a size of the problem
///   (`batch_size`, `seq_len_q`, `seq_len_kv`, `num_q_heads`, `num_kv_heads`, `head_dim`), or says where q and k lie: `q_offset`, `q_batch`,
///   `q_seq`, `q_head`, and the same of `k`, in vectors of four elements.
///
/// The text is compared with these bindings before it is compiled, and runs with bounds checks. `tests/gpu_kernel_step.rs` has two.
#[derive(Clone, Debug)]
pub struct KernelStep {
    pub(crate) variant: Specialization,
    pub(crate) workgroups: [u32; 3],
    pub(crate) shape: [u32; 4],
    numbers: Vec<(&'static str, u32)>,
    on_cpu: fn(&KernelInputs<'_>) -> Result<HostTensor>,
}

impl KernelStep {
    /// A grid of workgroups of a kernel that writes a tensor of `shape`, and the function that computes the same on the CPU.
    #[must_use]
    pub const fn new(
        variant: Specialization,
        workgroups: [u32; 3],
        shape: [u32; 4],
        on_cpu: fn(&KernelInputs<'_>) -> Result<HostTensor>,
    ) -> Self {
        Self { variant, workgroups, shape, numbers: Vec::new(), on_cpu }
    }

    /// Gives a field of a uniform its number.
    #[must_use]
    pub fn with_u32(mut self, name: &'static str, number: u32) -> Self {
        self.numbers.push((name, number));
        self
    }

    /// The same for a field of type f32.
    #[must_use]
    pub fn with_f32(self, name: &'static str, number: f32) -> Self {
        self.with_u32(name, number.to_bits())
    }

    /// The names of the buffers that it reads.
    pub(crate) fn reads(&self) -> impl Iterator<Item = &'static str> {
        let read = |binding: crate::Binding| (binding.kind == BindingKind::Read).then_some(binding.name);
        self.variant.bindings().into_iter().filter_map(read)
    }

    /// The tensor that it writes.
    pub(crate) fn written(&self) -> Option<&'static str> {
        self.variant
            .bindings()
            .into_iter()
            .find(|binding| binding.kind == BindingKind::Write)
            .map(|written| written.name)
    }

    /// The numbers by name: the step's own, then those of the problem.
    pub(crate) fn number(&self, shape: &AttentionShape, name: &str) -> Option<u32> {
        let own = self.numbers.iter().find(|(own, _)| *own == name).map(|(_, number)| *number);
        own.or(match name {
            "batch_size" => Some(shape.batch_size),
            "seq_len_q" => Some(shape.seq_len_q),
            "seq_len_kv" => Some(shape.seq_len_kv),
            "num_q_heads" => Some(shape.num_q_heads),
            "num_kv_heads" => Some(shape.num_kv_heads),
            "head_dim" => Some(shape.head_dim),
            _ => None,
        })
    }

    /// Checks that every binding has a buffer or numbers, `earlier` being the tensors of earlier steps.
    pub(crate) fn check(&self, shape: &AttentionShape, earlier: &[&str]) -> Result<()> {
        let kernel = self.variant.kernel().name();
        let wrong = |binding, rule| Err(Error::Slot { kernel, binding, rule });
        let Some(written) = self.written() else { return wrong("", "a step writes a tensor: no binding does") };
        for binding in self.variant.bindings() {
            let name = binding.name;
            match binding.kind {
                BindingKind::Write if name != written => return wrong(name, "a step writes one tensor"),
                BindingKind::Write if ["q", "k"].contains(&name) => return wrong(name, "is an input of the selection"),
                BindingKind::Write => {}
                BindingKind::Read if ["q", "k"].contains(&name) || earlier.contains(&name) => {}
                BindingKind::Read => return wrong(name, "is neither q or k nor a tensor of an earlier step"),
                BindingKind::Uniform => {
                    let missing = |field: &&&'static str| !is_place(field) && self.number(shape, field).is_none();
                    if let Some(field) = binding.fields.iter().find(missing) {
                        return wrong(field, "a field of a uniform without a number");
                    }
                }
                BindingKind::Stretch => return wrong(name, "the grid of a step is not cut into stretches"),
            }
        }
        Ok(())
    }

    /// Its tensor, computed on the CPU.
    pub(crate) fn compute(&self, inputs: &KernelInputs<'_>) -> Result<HostTensor> {
        let tensor = (self.on_cpu)(inputs)?;
        if tensor.shape() == self.shape {
            return Ok(tensor);
        }
        Err(Error::Shape { tensor: self.written().unwrap_or(""), expected: self.shape, actual: tensor.shape() })
    }
}

/// Steps are equal where their kernels, numbers and shapes are: whether two functions are one is not to be told.
impl PartialEq for KernelStep {
    fn eq(&self, other: &Self) -> bool {
        let parts = |step: &Self| (step.workgroups, step.shape);
        self.variant == other.variant && parts(self) == parts(other) && self.numbers == other.numbers
    }
}

/// Whether a field says where q or k lies.
pub(crate) fn is_place(field: &str) -> bool {
    let end = field.strip_prefix("q_").or_else(|| field.strip_prefix("k_"));
    end.is_some_and(|end| ["offset", "batch", "seq", "head"].contains(&end))
}

/// What a [`KernelStep`] computes from on the CPU. Tensors of 16 bits are widened.
#[derive(Debug)]
pub struct KernelInputs<'a> {
    pub(crate) step: &'a KernelStep,
    pub(crate) shape: &'a AttentionShape,
    pub(crate) q: &'a HostTensor,
    pub(crate) k: &'a HostTensor,
    pub(crate) tensors: &'a [(&'static str, HostTensor)],
}

impl KernelInputs<'_> {
    /// `[batch, seq_len_q, num_q_heads, head_dim]`.
    #[must_use]
    pub const fn q(&self) -> &HostTensor {
        self.q
    }

    /// `[batch, seq_len_kv, num_kv_heads, head_dim]`.
    #[must_use]
    pub const fn k(&self) -> &HostTensor {
        self.k
    }

    /// The shape of the tensor that the step writes.
    #[must_use]
    pub const fn shape(&self) -> [u32; 4] {
        self.step.shape
    }

    /// The tensor of an earlier step.
    ///
    /// # Errors
    /// [`Error::Argument`] where none has this name.
    pub fn tensor(&self, name: &str) -> Result<&HostTensor> {
        let found = self.tensors.iter().find(|(of, _)| *of == name).map(|(_, tensor)| tensor);
        found.ok_or(Error::Argument { argument: "tensor", rule: "no earlier step writes one of this name" })
    }

    /// A number of the step or of the problem.
    ///
    /// # Errors
    /// [`Error::Argument`] where none has this name.
    pub fn u32(&self, name: &str) -> Result<u32> {
        let found = self.step.number(self.shape, name);
        found.ok_or(Error::Argument { argument: "number", rule: "the step has none of this name" })
    }

    /// The same as f32.
    ///
    /// # Errors
    /// The errors of [`KernelInputs::u32`].
    pub fn f32(&self, name: &str) -> Result<f32> {
        self.u32(name).map(f32::from_bits)
    }
}
