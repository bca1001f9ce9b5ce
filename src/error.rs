//! The one error type of the crate.

use crate::DType;

/// All errors, with the names and numbers of their causes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor does not have the shape that the problem gives it.
    #[error("`{tensor}` has shape {actual:?}, expected {expected:?}")]
    Shape {
        /// The offending tensor.
        tensor: &'static str,
        /// The shape that the problem asks for: `[batch, seq, head, dim]`.
        expected: [u32; 4],
        /// The given one.
        actual: [u32; 4],
    },
    /// A host slice has another length than its shape needs.
    #[error("`{tensor}` holds {actual} elements, its shape needs {expected}")]
    Length {
        /// The offending tensor.
        tensor: &'static str,
        /// Elements that the shape needs.
        expected: u64,
        /// Elements that were given.
        actual: u64,
    },
    /// A view reaches past the end of its buffer.
    #[error("`{tensor}` ends at byte {end}, its buffer has {len}")]
    OutOfBounds {
        /// The offending tensor.
        tensor: &'static str,
        /// One past the last byte that the view touches.
        end: u64,
        /// Bytes in the buffer.
        len: u64,
    },
    /// A view breaks a rule of alignment or of strides.
    #[error("`{tensor}`: {field} = {value}: {rule}")]
    Layout {
        /// The offending tensor.
        tensor: &'static str,
        /// The field of [`Layout`](crate::Layout).
        field: &'static str,
        /// Its value.
        value: u64,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// Two tensors share memory that one of them writes.
    #[error("`{written}` shares a buffer with `{other}`: a written tensor needs a buffer of its own")]
    Overlap {
        /// The tensor that is written.
        written: &'static str,
        /// The tensor that it collides with.
        other: &'static str,
    },
    /// A tensor has another element type than the plan.
    #[error("`{tensor}` is {actual}, the plan was made for {expected}")]
    DType {
        /// The offending tensor.
        tensor: &'static str,
        /// The plan's element type.
        expected: DType,
        /// The given one.
        actual: DType,
    },
    /// A buffer was created without a usage that the call needs.
    #[error("buffer of `{tensor}` lacks usage {missing:?}")]
    Usage {
        /// The offending tensor.
        tensor: &'static str,
        /// The usages to add when creating the buffer.
        missing: wgpu::BufferUsages,
    },
    /// The plan needs a device feature that the device was created without.
    #[error("{needed_for} needs the device feature {feature}; request it when creating the device")]
    MissingFeature {
        /// The part that needs it.
        needed_for: &'static str,
        /// The feature, by its name in wgpu.
        feature: &'static str,
    },
    /// The plan needs a device feature that the device has, but that was tried and does not work.
    #[error("{needed_for} needs the device feature {feature}, which does not work here: {reason}")]
    FaultyFeature {
        /// The part that needs it.
        needed_for: &'static str,
        /// The feature, by its name in wgpu.
        feature: &'static str,
        /// The fault that the trial found.
        reason: String,
    },
    /// The problem is larger than a limit of the device.
    #[error("{limit}: {needed} needed, the device allows {available}")]
    Limit {
        /// The limit, by its name in wgpu.
        limit: &'static str,
        /// The number that the problem needs.
        needed: u64,
        /// The number that the device allows.
        available: u64,
    },
    /// The problem is larger than kernels of any device, or any memory, can hold.
    #[error("{what}: {needed} needed, at most {available}")]
    TooLarge {
        /// The quantity that is too large.
        what: &'static str,
        /// The number that the problem needs.
        needed: u64,
        /// The largest number allowed.
        available: u64,
    },
    /// A field of a problem, a tiling or an option has a value that its rule forbids.
    #[error("{field} = {value}: {rule}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The rule.
        rule: &'static str,
    },
    /// A name that the problem does not have.
    #[error("the problem has no {what} `{name}`")]
    Unknown {
        /// The kind of thing that was named.
        what: &'static str,
        /// The name given.
        name: String,
    },
    /// A number of a problem breaks its rule.
    #[error("{argument} = {value}: {rule}")]
    Number {
        /// The argument.
        argument: &'static str,
        /// The value given.
        value: f64,
        /// The rule.
        rule: &'static str,
    },
    /// `softmax_scale` is NaN or infinite.
    #[error("softmax_scale = {value}: must be finite")]
    Scale {
        /// The value given.
        value: f32,
    },
    /// The scale of a selection is NaN or infinite.
    #[error("selection_scale = {value}: must be finite")]
    SelectionScale {
        /// The value given.
        value: f32,
    },
    /// The text of a kernel that is not the crate's own is not valid WGSL.
    #[error("the text of kernel `{kernel}` is no WGSL: {message}")]
    Wgsl {
        /// The kernel.
        kernel: &'static str,
        /// The parser's message, with the place in the text.
        message: String,
    },
    /// Two texts of a kernel declare the same name: one module is taken twice, or two of a family. A module that is taken for a
    /// [tensor](crate::Specialization::with_module_for) has names of its own.
    #[error("kernel `{kernel}`: `{name}` is declared by {first} and by {second}")]
    Name {
        /// The kernel.
        kernel: &'static str,
        /// The name.
        name: String,
        /// The module that declares it first.
        first: String,
        /// The module, or the kernel, that declares it again.
        second: String,
    },
    /// A kernel's text has no compute entry point of the kernel's name.
    #[error("kernel `{kernel}` has no compute entry point of that name; its text has: {found}")]
    EntryPoint {
        /// The kernel.
        kernel: &'static str,
        /// The entry points of the text, comma separated.
        found: String,
    },
    /// A binding that a kernel or one of its modules declares differs from the binding in the text.
    #[error("kernel `{kernel}`, binding {binding}: the descriptor declares {declared}, the text has {found}")]
    Binding {
        /// The kernel.
        kernel: &'static str,
        /// The number of the binding.
        binding: u32,
        /// The descriptor's declaration.
        declared: String,
        /// The text's declaration.
        found: String,
    },
    /// The fields that a kernel or one of its modules declares for a uniform differ from the struct in the text.
    #[error("kernel `{kernel}`, uniform `{binding}`: the descriptor declares {declared}, the text has {found}")]
    Uniform {
        /// The kernel.
        kernel: &'static str,
        /// The uniform.
        binding: &'static str,
        /// The descriptor's declaration.
        declared: String,
        /// The text's declaration.
        found: String,
    },
    /// The buffer or numbers given for a kernel's binding do not fit it, or the kernel has no such binding.
    #[error("kernel `{kernel}`, binding `{binding}`: {rule}")]
    Slot {
        /// The kernel.
        kernel: &'static str,
        /// The binding.
        binding: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// A list of blocks breaks a rule that block-sparse attention relies on.
    #[error("blocks of sequence {batch}, set {set}, query block {q_block}: entry {entry} = {value}: {rule}")]
    Blocks {
        /// The sequence.
        batch: u32,
        /// The query head, KV head or layer whose list it is.
        set: u32,
        /// The query block.
        q_block: u32,
        /// Index into the list; 0 for a count.
        entry: u32,
        /// The entry's or count's value.
        value: u32,
        /// The rule.
        rule: &'static str,
    },
    /// An argument that the problem requires is missing, or one that it does not take is given.
    #[error("`{argument}`: {rule}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// The rule.
        rule: &'static str,
    },
    /// There is no adapter, or none has the requested name.
    #[error("no GPU adapter{}; found: {found}", named(wanted))]
    NoAdapter {
        /// The name asked for, if any.
        wanted: Option<String>,
        /// The adapters that exist, comma separated.
        found: String,
    },
    /// Several adapters fit, and none of them opens.
    #[error("no GPU adapter{} opens: {}", named(wanted), PassedOver::list(passed_over))]
    NoneOpens {
        /// The name asked for, if any.
        wanted: Option<String>,
        /// The adapters, best first, each with its error.
        passed_over: Vec<PassedOver>,
    },
    /// The adapter refused to open a device.
    #[error("opening a device on \"{adapter}\": {reason}")]
    RequestDevice {
        /// The adapter.
        adapter: String,
        /// wgpu's message.
        reason: String,
    },
    /// wgpu rejected a call; the message is wgpu's own. Passing a buffer of another device ends here.
    #[error("wgpu rejected {during}: {message}")]
    Validation {
        /// The call or step that failed.
        during: &'static str,
        /// wgpu's message.
        message: String,
    },
    /// The device ran out of memory.
    #[error("the device is out of memory during {during}: {message}")]
    OutOfMemory {
        /// The call or step that failed.
        during: &'static str,
        /// wgpu's message.
        message: String,
    },
    /// The device is lost; every object made from it is unusable. Make a new [`Context`](crate::Context).
    #[error("the device was lost: {message}")]
    DeviceLost {
        /// wgpu's message.
        message: String,
    },
    /// Waiting for the device failed.
    #[error("waiting for the device: {0}")]
    Poll(#[from] wgpu::PollError),
    /// A file of the library's own could not be written.
    #[error("writing {}: {message}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// The system's message.
        message: String,
    },
    /// Mapping a staging buffer failed.
    #[error("reading results back: {0}")]
    Map(#[from] wgpu::BufferAsyncError),
}

fn named(wanted: &Option<String>) -> String {
    wanted.as_ref().map(|name| format!(" named like \"{name}\"")).unwrap_or_default()
}

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// An adapter that fits the options but did not open, so that another one was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassedOver {
    /// Its description, by [`describe_adapter`](crate::describe_adapter).
    pub adapter: String,
    /// Its error.
    pub reason: String,
}

impl PassedOver {
    /// An adapter and the error of opening it.
    #[must_use]
    pub fn new(adapter: impl Into<String>, error: &Error) -> Self {
        let reason = match error {
            // The adapter's name stands beside the message.
            Error::RequestDevice { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        Self { adapter: adapter.into(), reason: one_line(&reason) }
    }

    pub(crate) fn list(all: &[Self]) -> String {
        all.iter().map(Self::to_string).collect::<Vec<_>>().join("; ")
    }
}

impl core::fmt::Display for PassedOver {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.adapter, self.reason)
    }
}

/// Messages of drivers and wgpu span several lines.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
