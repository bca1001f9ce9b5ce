//! A device and its queue, what they can do, and the pipelines made for them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use futures::FutureExt as _;

use crate::pipeline::PipelineCache;
use crate::pipeline_store::{PipelineCacheState, PipelineStore};
use crate::{DeviceCaps, DispatchBudget, Error, Result, Specialization, Tuning};

/// Which adapter [`Context::request`] opens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextOptions {
    /// Part of the adapter's name, in any case; `None`: the best GPU.
    pub adapter_name: Option<String>,
    /// Whether a software device will do when there is no GPU. One that is named always will.
    pub software: SoftwareAdapters,
    /// Folder for compiled pipelines; `None`: nothing is kept.
    pub pipeline_cache: Option<PathBuf>,
}

/// What to do with adapters that compute on the CPU's cores (lavapipe, SwiftShader, WARP).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SoftwareAdapters {
    /// Passed over: the library's own CPU path is faster.
    #[default]
    Refuse,
    /// Taken when there is no GPU.
    Accept,
}

impl ContextOptions {
    /// Opens the adapter whose name contains `name`.
    #[must_use]
    pub fn adapter_name(mut self, name: impl Into<String>) -> Self {
        self.adapter_name = Some(name.into());
        self
    }

    /// Takes compiled pipelines from a file in this folder, where the back end hands them out (Vulkan).
    /// [`Context::save_pipelines`] writes it.
    #[must_use]
    pub fn pipeline_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.pipeline_cache = Some(folder.into());
        self
    }

    /// Says what to do with software adapters.
    #[must_use]
    pub const fn software(mut self, software: SoftwareAdapters) -> Self {
        self.software = software;
        self
    }
}

/// A wgpu device and queue with the library's state for them. Cheap to clone; clones share everything.
///
/// ```no_run
/// # fn with_your_own(device: wgpu::Device, queue: wgpu::Queue) -> Result<(), wattn::Error> {
/// let ours = wattn::Context::request_blocking(&wattn::ContextOptions::default())?; // the best GPU
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
    pipelines: PipelineCache<Specialization>,
    #[cfg(feature = "lm")]
    lm_pipelines: PipelineCache<crate::lm::LmVariant>,
    /// Stand in for bindings that a problem does not use: one to read, one to write, since wgpu forbids both at once.
    unused_read: wgpu::Buffer,
    unused_write: wgpu::Buffer,
    lost: Arc<OnceLock<String>>,
    store: OnceLock<(Option<PipelineStore>, PipelineCacheState)>,
    /// Error scopes are a stack for each thread; the lock keeps the stacks of one device from interleaving on the web.
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
    /// [`Error::Limit`] when the device allows fewer storage buffers a kernel than ours bind,
    /// [`Error::OutOfMemory`] or [`Error::DeviceLost`].
    ///
    /// # Cost
    /// Allocates two small buffers. Compiles nothing.
    pub fn new(device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let caps = DeviceCaps::of(&device);
        Self::with_caps(device, queue, caps, ShaderChecks::Trusted)
    }

    /// The same device with pipelines of its own, whose shaders wgpu guards with bounds checks. For tests: both variants
    /// must give the same bits.
    #[doc(hidden)]
    pub fn with_checked_shaders(&self) -> Result<Self> {
        Self::with_caps(self.device().clone(), self.queue().clone(), self.caps().clone(), ShaderChecks::Checked)
    }

    /// [`Context::new`], with the adapter at hand: it alone knows the device's matrix products.
    ///
    /// # Errors
    /// Those of [`Context::new`].
    pub fn with_adapter(adapter: &wgpu::Adapter, device: wgpu::Device, queue: wgpu::Queue) -> Result<Self> {
        let caps = DeviceCaps::of(&device).with_adapter(adapter);
        Self::with_caps(device, queue, caps, ShaderChecks::Trusted)
    }

    fn with_caps(device: wgpu::Device, queue: wgpu::Queue, caps: DeviceCaps, checks: ShaderChecks) -> Result<Self> {
        // As many as WebGPU promises.
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
            #[cfg(feature = "lm")]
            lm_pipelines: PipelineCache::default(),
            unused_read,
            unused_write,
            lost,
            store: OnceLock::new(),
            scopes,
        };
        Ok(Self { inner: Arc::new(inner), caps: Arc::new(caps) })
    }

    /// Opens a device of our own: all limits and all stable features that the adapter has, and cooperative matrices, which
    /// wgpu counts as experimental.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] listing what there is, or [`Error::RequestDevice`].
    ///
    /// # Cost
    /// Loads the graphics drivers.
    pub async fn request(options: &ContextOptions) -> Result<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
        let adapters = adapters(&instance).await;
        let adapter = choose(&adapters, options)?;
        let info = adapter.get_info();
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
                // SAFETY: what wgpu cannot check of cooperative matrices our shaders keep to: shapes and types come from
                // the adapter's own list, every matrix lies within a workgroup's arrays, and every invocation of a
                // subgroup reaches every operation.
                unsafe { wgpu::ExperimentalFeatures::enabled() }
            },
            ..Default::default()
        };
        let (device, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| Error::RequestDevice { adapter: info.name, reason: error.to_string() })?;
        let context = Self::with_adapter(adapter, device, queue)?;
        if let Some(folder) = &options.pipeline_cache {
            let store =
                context.scoped("opening the pipeline cache", || PipelineStore::open(context.device(), folder))?;
            // Nobody else has the context yet.
            let _ = context.inner.store.set(store);
        }
        let lost = Arc::clone(&context.inner.lost);
        context.device().set_device_lost_callback(move |reason, message| {
            // The first loss is the one to report; the device never comes back.
            let _ = lost.set(format!("{reason:?}: {message}"));
        });
        Ok(context)
    }

    /// [`Context::request`], waiting on this thread.
    ///
    /// # Errors
    /// Those of [`Context::request`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn request_blocking(options: &ContextOptions) -> Result<Self> {
        pollster::block_on(Self::request(options))
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

    /// What the device can do.
    #[must_use]
    pub fn caps(&self) -> &DeviceCaps {
        &self.caps
    }

    /// The same device, pipelines and all, with plans cut for another budget: one that
    /// [`calibrate_blocking`](Self::calibrate_blocking) gave, or a number.
    #[must_use]
    pub fn with_budget(&self, budget: DispatchBudget) -> Self {
        self.planning_with(DeviceCaps { budget, ..self.caps().clone() })
    }

    /// The same device, pipelines and all, with plans that take what was measured on it; [`Tuning::new`] takes that away
    /// again.
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Self {
        self.planning_with(self.caps().clone().with_tuning(tuning))
    }

    fn planning_with(&self, caps: DeviceCaps) -> Self {
        Self { inner: Arc::clone(&self.inner), caps: Arc::new(caps) }
    }

    /// What became of [`ContextOptions::pipeline_cache`].
    #[must_use]
    pub fn pipeline_cache_state(&self) -> PipelineCacheState {
        self.inner.store.get().map_or(PipelineCacheState::Off, |(_, state)| state.clone())
    }

    /// Writes what was compiled into the file of [`ContextOptions::pipeline_cache`], whole or not at all; does nothing where
    /// there is none, or nothing new.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_pipelines(&self) -> Result<()> {
        self.pipeline_store().map_or(Ok(()), PipelineStore::save)
    }

    /// Adapter, kind of device, back end and driver on one line.
    #[must_use]
    pub fn describe(&self) -> String {
        describe_adapter(&self.device().adapter_info())
    }

    pub(crate) fn pipeline_store(&self) -> Option<&PipelineStore> {
        self.inner.store.get().and_then(|(store, _)| store.as_ref())
    }

    pub(crate) fn shader_checks(&self) -> ShaderChecks {
        self.inner.checks
    }

    pub(crate) fn pipelines(&self) -> &PipelineCache<Specialization> {
        &self.inner.pipelines
    }

    #[cfg(feature = "lm")]
    pub(crate) fn lm_pipelines(&self) -> &PipelineCache<crate::lm::LmVariant> {
        &self.inner.lm_pipelines
    }

    pub(crate) fn unused_read(&self) -> &wgpu::Buffer {
        &self.inner.unused_read
    }

    pub(crate) fn unused_write(&self) -> &wgpu::Buffer {
        &self.inner.unused_write
    }

    /// Fails when the device is known to be lost. A device of the caller's own tells only its owner.
    pub(crate) fn check_lost(&self) -> Result<()> {
        match self.inner.lost.get() {
            Some(message) => Err(Error::DeviceLost { message: message.clone() }),
            None => Ok(()),
        }
    }

    /// Runs `work` and turns what wgpu reports about it into our error: for the caller's own calls on the device, whose
    /// errors would otherwise go to the device's handler, by default a panic. (In a browser errors arrive later, and
    /// still go there.)
    ///
    /// # Errors
    /// [`Error::Validation`], [`Error::OutOfMemory`], [`Error::DeviceLost`]; `during` is repeated in the message.
    pub fn scoped<T>(&self, during: &'static str, work: impl FnOnce() -> T) -> Result<T> {
        self.check_lost()?;
        // The lock guards nothing that a panic could leave half done.
        let _one_at_a_time = self.inner.scopes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = scoped(self.device(), during, work);
        if result.is_err() {
            // Work on a lost device fails with an error about whatever it made; the loss itself is told when polled.
            let _ = self.device().poll(wgpu::PollType::Poll);
            self.check_lost()?;
        }
        result
    }

    /// A buffer that holds `contents` from the next submission on. (wgpu's own `create_buffer_init` panics on a lost
    /// device.)
    pub(crate) fn upload(&self, label: &str, contents: &[u8], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: contents.len() as u64,
            usage: usage | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.queue().write_buffer(&buffer, 0, contents);
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

/// One line about an adapter.
#[must_use]
pub fn describe_adapter(info: &wgpu::AdapterInfo) -> String {
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software device",
        wgpu::DeviceType::Other => "device of unknown kind",
    };
    format!("{} ({kind}, {}, {} {})", info.name, info.backend, info.driver, info.driver_info)
}

/// Every adapter that can run the kernels, best first.
pub async fn adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let mut adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    adapters.retain(|adapter| {
        let compute = wgpu::DownlevelFlags::COMPUTE_SHADERS;
        adapter.get_downlevel_capabilities().flags.contains(compute)
            && adapter.limits().max_storage_buffers_per_shader_stage
                >= wgpu::Limits::default().max_storage_buffers_per_shader_stage
    });
    adapters.sort_by_key(|adapter| {
        let info = adapter.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        // The same GPU may be there through several back ends; OpenGL is the last resort.
        (kind, info.backend == wgpu::Backend::Gl)
    });
    adapters
}

fn choose<'a>(adapters: &'a [wgpu::Adapter], options: &ContextOptions) -> Result<&'a wgpu::Adapter> {
    let is_software = |adapter: &wgpu::Adapter| adapter.get_info().device_type == wgpu::DeviceType::Cpu;
    let found = match &options.adapter_name {
        Some(name) => {
            let name = name.to_lowercase();
            adapters.iter().find(|adapter| adapter.get_info().name.to_lowercase().contains(&name))
        }
        None => adapters.iter().find(|adapter| options.software == SoftwareAdapters::Accept || !is_software(adapter)),
    };
    found.ok_or_else(|| {
        let names: Vec<String> = adapters.iter().map(|adapter| describe_adapter(&adapter.get_info())).collect();
        let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Error::NoAdapter { wanted: options.adapter_name.clone(), found }
    })
}
