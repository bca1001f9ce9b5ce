//! A device and its queue, its caps, and the pipelines made for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::FutureExt as _;

use crate::device::adapters::{candidates, first_that_opens};
use crate::device::check_matrices::{Edit, unedited};
use crate::device::matrix_verdict::UnsavedVerdict;
use crate::device::pipeline::PipelineCache;
use crate::device::pipeline_store::{PipelineCacheState, PipelineStore};
use crate::{
    ContextOptions, DeviceCaps, DeviceSpeed, DispatchBudget, Error, PassedOver, Pending, Result, Tier, Tuning,
    adapters, describe_adapter,
};

/// A wgpu device and queue with the library's state for them. Cheap to clone; clones share everything.
///
/// ```no_run
/// # fn with_your_own(device: wgpu::Device, queue: wgpu::Queue) -> Result<(), wattn::Error> {
/// let ours = wattn::Context::request(&wattn::ContextOptions::default()).wait()?; // the best GPU
/// let yours = wattn::Context::new(device, queue)?; // the program's own device
/// println!("{} {:?}", ours.describe(), yours.caps());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    inner: Arc<Inner>,
    caps: Arc<DeviceCaps>,
}

#[derive(Debug)]
struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    checks: ShaderChecks,
    pipelines: PipelineCache,
    /// Stand-ins for bindings that a problem does not use: one to read, one to write, since wgpu forbids both at once.
    unused_read: wgpu::Buffer,
    unused_write: wgpu::Buffer,
    lost: Arc<OnceLock<String>>,
    store: OnceLock<(Option<PipelineStore>, PipelineCacheState)>,
    /// [`ContextOptions::with_pipeline_cache`].
    folder: OnceLock<PathBuf>,
    /// The verdict on matrices that [`Context::save_pipelines`] still has to write.
    verdict: Mutex<Option<UnsavedVerdict>>,
    passed_over: OnceLock<Vec<PassedOver>>,
    /// Each thread has its own stack of error scopes; the lock keeps calls on one device from interleaving on the web.
    scopes: Mutex<()>,
}

/// Whether wgpu adds bounds checks and loop bounds to the shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShaderChecks {
    Trusted,
    Checked,
}

impl Context {
    /// Wraps the caller's own device and queue. Their error and loss callbacks stay the caller's.
    ///
    /// # Errors
    /// [`Error::Limit`] when the device allows fewer storage buffers per kernel than the crate's kernels bind,
    /// [`Error::OutOfMemory`] or [`Error::DeviceLost`].
    ///
    /// # Cost
    /// Allocates two small buffers. Compiles nothing.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let caps = DeviceCaps::of(&device);
        Self::with_caps(device, queue, caps, ShaderChecks::Trusted)
    }

    /// The same device with separate pipelines, compiled with wgpu's bounds checks. For tests: on a software device both variants give the
    /// same bits; elsewhere a compiler may fuse the sums of either text differently.
    #[doc(hidden)]
    pub fn with_checked_shaders(&self) -> Result<Self> {
        Self::with_caps(self.device().clone(), self.queue().clone(), self.caps().clone(), ShaderChecks::Checked)
    }

    /// [`Context::new`] with the adapter, which alone reports the device's matrix products. Runs nothing on the device, so the products
    /// are trusted until [`check_matrices`](Self::check_matrices) tries them.
    ///
    /// # Errors
    /// The errors of [`Context::new`].
    pub fn with_adapter(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let caps = DeviceCaps::of(&device).with_adapter(adapter);
        Self::with_caps(device, queue, caps, ShaderChecks::Trusted)
    }

    fn with_caps(device: wgpu::Device, queue: wgpu::Queue, caps: DeviceCaps, checks: ShaderChecks) -> Result<Self> {
        // WebGPU's guaranteed number.
        let needed = 8;
        if caps.max_storage_buffers < needed {
            return Err(Error::Limit {
                limit: "max_storage_buffers_per_shader_stage",
                needed: needed.into(),
                available: caps.max_storage_buffers.into(),
            });
        }
        let (unused_read, unused_write) = scoped(&device, "creating a context", || {
            let unused = |label| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some(label),
                    size: 256,
                    usage: wgpu::BufferUsages::STORAGE,
                    mapped_at_creation: false,
                })
            };
            (unused("wattn.unused_read"), unused("wattn.unused_write"))
        })?;
        let lost = Arc::new(OnceLock::new());
        let pipelines = PipelineCache::default();
        let scopes = Mutex::new(());
        let inner = Inner {
            device,
            queue,
            checks,
            pipelines,
            unused_read,
            unused_write,
            lost,
            store: OnceLock::new(),
            folder: OnceLock::new(),
            verdict: Mutex::new(None),
            passed_over: OnceLock::new(),
            scopes,
        };
        Ok(Self { inner: Arc::new(inner), caps: Arc::new(caps) })
    }

    /// Opens a device on the best adapter that fits `options` and that [opens](Self::open). Adapters that do not open are passed over;
    /// [`passed_over`](Self::passed_over) lists them.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] with the adapters that exist, [`Error::NoneOpens`] with the adapters that fit and their errors; where only one
    /// adapter fits, its own [`Error::RequestDevice`].
    ///
    /// # Cost
    /// Loads the graphics drivers, then the cost of [`Context::open`].
    pub fn request(options: &ContextOptions) -> Pending<'_, Result<Self>> {
        Pending::new(Self::request_edited(options, unedited))
    }

    /// [`Context::request`] with an edited text of the matrix check. For tests that make the product wrong.
    #[doc(hidden)]
    pub async fn request_edited(options: &ContextOptions, edit: Edit) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
        let adapters = adapters(&instance).await;
        let candidates = candidates(&adapters, options)?;
        let describe = |adapter: &wgpu::Adapter| describe_adapter(&adapter.get_info());
        let open = |adapter| Self::open_edited(adapter, options, edit);
        let (context, passed_over) =
            first_that_opens(&candidates, options.adapter_name.as_deref(), describe, open).await?;
        // Nobody else has the context yet.
        let _ = context.inner.passed_over.set(passed_over);
        Ok(context)
    }

    /// Opens a device on this adapter with all its limits and stable features, and with cooperative matrices, which wgpu counts as
    /// experimental. Tries the matrices before their first use, as [`check_matrices`](Self::check_matrices) does, unless the folder of
    /// [`ContextOptions::with_pipeline_cache`] holds the verdict for this device and driver. Nothing else of `options` is used.
    ///
    /// # Errors
    /// [`Error::RequestDevice`], and the errors of [`Context::new`].
    ///
    /// # Cost
    /// Opens the device. Where it reports matrices, the cost of [`check_matrices`](Self::check_matrices).
    pub fn open<'a>(adapter: &'a wgpu::Adapter, options: &'a ContextOptions) -> Pending<'a, Result<Self>> {
        Pending::new(Self::open_edited(adapter, options, unedited))
    }

    /// Opens a device and does no work on it.
    pub(crate) async fn open_untried(adapter: &wgpu::Adapter, options: &ContextOptions) -> Result<Self> {
        let matrices = adapter.features() & wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let stable = adapter.features() - wgpu::Features::all_experimental_mask();
        // Mappable primary buffers slow every buffer down on discrete GPUs.
        let features = (stable - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS) | matrices;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("wattn.device"),
            required_features: features,
            required_limits: adapter.limits(),
            experimental_features: if matrices.is_empty() {
                wgpu::ExperimentalFeatures::disabled()
            } else {
                // SAFETY: wgpu cannot check cooperative matrices. The crate's shaders take shapes and types from the adapter's own list, keep
                // every matrix within a workgroup's arrays, and reach every matrix operation with all invocations of a subgroup.
                unsafe { wgpu::ExperimentalFeatures::enabled() }
            },
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| Error::RequestDevice { adapter: adapter.get_info().name, reason: error.to_string() })?;
        let context = Self::with_adapter(adapter, device, queue)?;
        // Nobody else has the context yet, so `set` cannot fail.
        if let Some(folder) = &options.pipeline_cache {
            let store =
                context.scoped("opening the pipeline cache", || PipelineStore::open(context.device(), folder))?;
            let _ = context.inner.store.set(store);
            let _ = context.inner.folder.set(folder.clone());
        }
        let lost = Arc::clone(&context.inner.lost);
        context.device().set_device_lost_callback(move |reason, message| {
            // The first loss is reported; a lost device never comes back.
            let _ = lost.set(format!("{reason:?}: {message}"));
        });
        Ok(context)
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// The device's limits and features.
    #[must_use]
    pub fn caps(&self) -> &DeviceCaps {
        &self.caps
    }

    /// The same device and pipelines with another budget: one from [`calibrate_blocking`](Self::calibrate_blocking), or a known number.
    /// Plans cut their grids by it.
    #[must_use]
    pub fn with_budget(&self, budget: DispatchBudget) -> Self {
        self.planning_with(DeviceCaps { budget, ..self.caps().clone() })
    }

    /// The same device and pipelines with another speed, which [crossovers](crate::SelectionPlan::crossover) depend on: one from
    /// [`measure_speed_blocking`](Self::measure_speed_blocking), or a known one.
    #[must_use]
    pub fn with_speed(&self, speed: DeviceSpeed) -> Self {
        self.planning_with(DeviceCaps { speed: Some(speed), ..self.caps().clone() })
    }

    /// The same device and pipelines, with every plan held to this tier. A tier that the device or a problem lacks is an error of the
    /// plan.
    #[must_use]
    pub fn with_tier(&self, tier: Tier) -> Self {
        self.planning_with(self.caps().clone().with_tier(tier))
    }

    /// The same device and pipelines, with plans that take measured tilings; [`Tuning::new`] removes them again.
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Self {
        self.planning_with(self.caps().clone().with_tuning(tuning))
    }

    /// The same device with another verdict on its matrices.
    pub(crate) fn with_matrix_fault(&self, fault: Option<String>) -> Self {
        self.planning_with(DeviceCaps { matrix_fault: fault, ..self.caps().clone() })
    }

    fn planning_with(&self, caps: DeviceCaps) -> Self {
        Self { inner: Arc::clone(&self.inner), caps: Arc::new(caps) }
    }

    /// The state of the file that [`ContextOptions::with_pipeline_cache`] asks for.
    #[must_use]
    pub fn pipeline_cache_state(&self) -> PipelineCacheState {
        self.inner.store.get().map_or(PipelineCacheState::Off, |(_, state)| state.clone())
    }

    /// Writes compiled pipelines and the verdict of [`check_matrices`](Self::check_matrices) into files of the folder of
    /// [`ContextOptions::with_pipeline_cache`], each whole or not at all; does nothing without such a folder or without news.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_pipelines(&self) -> Result<()> {
        self.pipeline_store().map_or(Ok(()), PipelineStore::save)?;
        // The value is whole even if the lock is poisoned: one verdict or none.
        let verdict = self.inner.verdict.lock().unwrap_or_else(PoisonError::into_inner).clone();
        verdict.map_or(Ok(()), |verdict| verdict.save())
    }

    /// The adapters that fit the options of [`Context::request`] better than this one, but did not open.
    #[must_use]
    pub fn passed_over(&self) -> &[PassedOver] {
        self.inner.passed_over.get().map_or(&[], Vec::as_slice)
    }

    /// Adapter, kind of device, back end and driver on one line.
    #[must_use]
    pub fn describe(&self) -> String {
        describe_adapter(&self.device().adapter_info())
    }

    pub(crate) fn pipeline_store(&self) -> Option<&PipelineStore> {
        self.inner.store.get().and_then(|(store, _)| store.as_ref())
    }

    /// The folder of [`ContextOptions::with_pipeline_cache`].
    pub(crate) fn kept_folder(&self) -> Option<&Path> {
        self.inner.folder.get().map(PathBuf::as_path)
    }

    pub(crate) fn keep_verdict(&self, verdict: UnsavedVerdict) {
        *self.inner.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
    }

    pub(crate) fn shader_checks(&self) -> ShaderChecks {
        self.inner.checks
    }

    pub(crate) fn pipelines(&self) -> &PipelineCache {
        &self.inner.pipelines
    }

    pub(crate) fn unused_read(&self) -> &wgpu::Buffer {
        &self.inner.unused_read
    }

    pub(crate) fn unused_write(&self) -> &wgpu::Buffer {
        &self.inner.unused_write
    }

    /// Fails when the device is known to be lost. The loss of a caller's own device is reported to the caller only.
    pub(crate) fn check_lost(&self) -> Result<()> {
        match self.inner.lost.get() {
            Some(message) => Err(Error::DeviceLost { message: message.clone() }),
            None => Ok(()),
        }
    }

    /// Runs `work` and returns wgpu's reports about it as an error, for the caller's own calls on the device: wgpu would otherwise pass
    /// them to the device's handler, which panics by default. (In a browser errors arrive later, and still go to the handler.)
    ///
    /// # Errors
    /// [`Error::Validation`], [`Error::OutOfMemory`], [`Error::DeviceLost`]; `during` is repeated in the message.
    pub fn scoped<T>(&self, during: &'static str, work: impl FnOnce() -> T) -> Result<T> {
        self.check_lost()?;
        // The lock guards nothing that a panic could leave half done.
        let _one_at_a_time = self.inner.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let result = scoped(self.device(), during, work);
        if result.is_err() {
            // Work on a lost device fails with an error about the object it made; polling reports the loss itself.
            let _ = self.device().poll(wgpu::PollType::Poll);
            self.check_lost()?;
        }
        result
    }

    /// A buffer that holds `contents` from the next submission on. (wgpu's own `create_buffer_init` panics on a lost device.)
    pub(crate) fn upload(&self, label: &str, contents: &[u8], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: (contents.len() as u64).next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT),
            usage: usage | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        // wgpu copies whole words; the last may be half a pair of 16-bit numbers.
        let (words, rest) = contents.split_at(contents.len() / 4 * 4);
        self.queue().write_buffer(&buffer, 0, words);
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            self.queue().write_buffer(&buffer, words.len() as u64, &last);
        }
        buffer
    }
}

pub(crate) fn scoped<T>(device: &wgpu::Device, during: &'static str, work: impl FnOnce() -> T) -> Result<T> {
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let value = work();
    // Innermost first. Natively a scope answers at once; in a browser the answer comes later, and the error goes to the
    // device's own handler instead.
    let errors = [internal.pop().now_or_never(), memory.pop().now_or_never(), validation.pop().now_or_never()];
    match errors.into_iter().flatten().flatten().next() {
        None => Ok(value),
        Some(wgpu::Error::OutOfMemory { source }) => Err(Error::OutOfMemory { during, message: source.to_string() }),
        Some(wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. }) => {
            Err(if description.contains("Parent device is lost") {
                Error::DeviceLost { message: description }
            } else {
                Error::Validation { during, message: description }
            })
        }
    }
}
