//! Lists a machine's adapters and opens the first one that fits the options and works.

use std::path::PathBuf;

use crate::{Error, PassedOver, Result};

/// The options of [`Context::request`](crate::Context::request).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextOptions {
    /// Part of the adapter's name, in any case; `None`: the best GPU.
    pub adapter_name: Option<String>,
    /// The treatment of software devices. An adapter that is asked for by name is never passed over.
    pub software: SoftwareAdapters,
    /// Folder for compiled pipelines and for the result of trying the device's matrices; `None`: nothing is kept.
    pub pipeline_cache: Option<PathBuf>,
}

/// The treatment of adapters that compute on the CPU's cores (lavapipe, SwiftShader, WARP).
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
    pub fn with_adapter_name(mut self, name: impl Into<String>) -> Self {
        self.adapter_name = Some(name.into());
        self
    }

    /// Keeps compiled pipelines, where the back end hands them out (Vulkan), and the result of trying the device's matrices in files of
    /// this folder. [`Context::save_pipelines`](crate::Context::save_pipelines) writes them.
    #[must_use]
    pub fn with_pipeline_cache(mut self, folder: impl Into<PathBuf>) -> Self {
        self.pipeline_cache = Some(folder.into());
        self
    }

    /// Sets the treatment of software adapters.
    #[must_use]
    pub const fn with_software(mut self, software: SoftwareAdapters) -> Self {
        self.software = software;
        self
    }
}

/// One line about an adapter.
#[must_use]
pub fn describe_adapter(info: &wgpu::AdapterInfo) -> String {
    let kind = kind_of(info);
    format!("{} ({kind}, {}, {} {})", info.name, info.backend, info.driver, info.driver_info)
}

/// A short name of an adapter: its name, without the brackets that drivers append, and its kind.
#[must_use]
pub fn name_adapter(info: &wgpu::AdapterInfo) -> String {
    let name = info.name.split(" (").next().unwrap_or_default();
    format!("{name} ({})", kind_of(info))
}

const fn kind_of(info: &wgpu::AdapterInfo) -> &'static str {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete GPU",
        wgpu::DeviceType::IntegratedGpu => "integrated GPU",
        wgpu::DeviceType::VirtualGpu => "virtual GPU",
        wgpu::DeviceType::Cpu => "software device",
        wgpu::DeviceType::Other => "device of unknown kind",
    }
}

/// Short descriptions of adapters without duplicates: several back ends may list the same device.
fn list_adapters(infos: impl Iterator<Item = wgpu::AdapterInfo>) -> String {
    let mut names: Vec<String> = Vec::new();
    for name in infos.map(|info| name_adapter(&info)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Why there is no GPU, in a few words.
#[cfg(feature = "cpu")]
pub(crate) fn why_no_gpu(error: &Error) -> String {
    match error {
        Error::NoAdapter { wanted: None, found } if found == "none" => "no GPU".to_owned(),
        Error::NoAdapter { wanted: None, found } => format!("no GPU; passed over {found}"),
        other => other.to_string(),
    }
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
        // Several back ends may list the same GPU; OpenGL is the last resort.
        (kind, info.backend == wgpu::Backend::Gl)
    });
    adapters
}

/// The adapters that fit `options`, best first, at least one.
pub(crate) fn candidates<'a>(
    adapters: &'a [wgpu::Adapter],
    options: &ContextOptions,
) -> Result<Vec<&'a wgpu::Adapter>> {
    let wanted = options.adapter_name.as_ref().map(|name| name.to_lowercase());
    let is_wanted = |adapter: &&wgpu::Adapter| {
        let info = adapter.get_info();
        match &wanted {
            Some(name) => info.name.to_lowercase().contains(name),
            None => options.software == SoftwareAdapters::Accept || info.device_type != wgpu::DeviceType::Cpu,
        }
    };
    let found: Vec<_> = adapters.iter().filter(is_wanted).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let found = list_adapters(adapters.iter().map(wgpu::Adapter::get_info));
    Err(Error::NoAdapter { wanted: options.adapter_name.clone(), found })
}

/// Opens the first candidate that opens, and returns it with the candidates before it, which failed. A single candidate that fails
/// gives its own error; there is at least one.
pub(crate) async fn first_that_opens<A: Copy, T, F: Future<Output = Result<T>>>(
    candidates: &[A],
    wanted: Option<&str>,
    describe: impl Fn(A) -> String,
    open: impl Fn(A) -> F,
) -> Result<(T, Vec<PassedOver>)> {
    let mut passed_over = Vec::new();
    for &candidate in candidates {
        match open(candidate).await {
            Ok(opened) => return Ok((opened, passed_over)),
            Err(error) if candidates.len() == 1 => return Err(error),
            Err(error) => passed_over.push(PassedOver::new(describe(candidate), &error)),
        }
    }
    Err(Error::NoneOpens { wanted: wanted.map(str::to_owned), passed_over })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens every adapter but those named "lost".
    fn first(names: &[&'static str], wanted: Option<&str>) -> Result<(String, Vec<PassedOver>)> {
        let open = |name: &'static str| async move {
            match name {
                "lost" => {
                    Err(Error::RequestDevice { adapter: name.to_owned(), reason: "Parent device\nis lost".to_owned() })
                }
                "small" => Err(Error::Limit { limit: "max_buffer_size", needed: 2, available: 1 }),
                name => Ok(name.to_owned()),
            }
        };
        pollster::block_on(first_that_opens(names, wanted, |name| format!("{name} (GPU)"), open))
    }

    #[test]
    fn what_does_not_open_is_passed_over_and_told() {
        assert_eq!(first(&["good", "lost"], None).unwrap(), ("good".to_owned(), vec![]));
        let (opened, passed_over) = first(&["lost", "small", "good", "lost"], None).unwrap();
        assert_eq!(opened, "good");
        let told: Vec<String> = passed_over.iter().map(PassedOver::to_string).collect();
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        assert_eq!(
            told,
            ["lost (GPU): Parent device is lost", "small (GPU): max_buffer_size: 2 needed, the device allows 1"]
        );
    }

    #[test]
    fn the_only_one_asked_for_fails_with_its_own_error() {
        for wanted in [None, Some("lost")] {
            let error = first(&["lost"], wanted).unwrap_err();
            assert!(matches!(&error, Error::RequestDevice { adapter, .. } if adapter == "lost"), "{error}");
        }
    }

    #[test]
    fn where_none_opens_all_are_told() {
        let error = first(&["lost", "small"], Some("l")).unwrap_err();
        assert!(matches!(&error, Error::NoneOpens { passed_over, .. } if passed_over.len() == 2), "{error}");
        assert_eq!(
            error.to_string(),
            "no GPU adapter named like \"l\" opens: lost (GPU): Parent device is lost; small (GPU): max_buffer_size: 2 \
             needed, the device allows 1"
        );
        assert!(
            first(&["lost", "lost"], None).unwrap_err().to_string().starts_with("no GPU adapter opens: lost (GPU)")
        );
    }
}
