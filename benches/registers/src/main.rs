//! A Vulkan driver's report on the kernels that a plan takes on its device: registers, spills, bytes of machine code, seconds to compile.
//! Drivers that report nothing (`VK_KHR_pipeline_executable_properties`) are an error.
//!
//! ```sh
//! cargo run --release --manifest-path benches/registers/Cargo.toml -- NVIDIA 32x8192x8192x128-f16 32-8x1x16384x128-f16
//! ```
//!
//! Cases are those of `wattn bench`: query heads (and KV heads where these differ) x queries x keys x width, causal. With `--keep FOLDER` the
//! folder gets each kernel's WGSL and the driver's pipeline cache. NVIDIA's holds, in a zstd frame, a file that begins with `NVDANVVMNVuc`: the
//! 32-bit numbers at its bytes 76 and 80 are the size and, less 8, the place of the machine code, which `nvdisasm -b SM90` prints.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ash::vk;
use wattn::{AttentionPlan, AttentionProblem, AttentionShape, Context, ContextOptions, DType, Mask, SoftwareAdapters};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let mut keep = None;
    let mut words = Vec::new();
    while let Some(word) = arguments.next() {
        if word == "--keep" {
            keep = Some(PathBuf::from(arguments.next().ok_or("--keep needs a folder")?));
        } else {
            words.push(word);
        }
    }
    let [name, cases @ ..] = words.as_slice() else {
        return Err("usage: registers ADAPTER CASE... [--keep FOLDER]".into());
    };
    let options = ContextOptions::default().with_adapter_name(name).with_software(SoftwareAdapters::Accept);
    let context = Context::request(&options).wait()?;
    println!("{}", context.describe());
    let driver = Driver::open(&context.device().adapter_info().name)?;
    for case in cases {
        let plan = AttentionPlan::new(&problem_of(case)?, context.caps())?;
        println!("{case}: {}, {}", plan.tier(), plan.tiling());
        for dispatch in plan.dispatches() {
            let (kernel, text) = (dispatch.specialization.kernel().name(), dispatch.specialization.wgsl());
            let (said, cache) = driver.compile(&text).map_err(|error| format!("{kernel}: {error}"))?;
            println!("  {kernel}: {said}");
            if let Some(folder) = &keep {
                let file = |ending: &str| folder.join(format!("{case}.{kernel}.{ending}"));
                std::fs::create_dir_all(folder)?;
                write(&file("wgsl"), text.as_bytes())?;
                write(&file("cache"), &cache)?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    std::fs::write(path, bytes).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// A case's name, such as `32-8x1x16384x128-f16`.
fn problem_of(case: &str) -> Outcome<AttentionProblem> {
    let wrong = || format!("{case}: a case is such as 32-8x1x16384x128-f16");
    let (sizes, dtype) = match case.rsplit_once('-') {
        Some((sizes, "f16")) => (sizes, DType::F16),
        Some((sizes, "bf16")) => (sizes, DType::BF16),
        _ => (case, DType::F32),
    };
    let parts: Vec<&str> = sizes.split('x').collect();
    let [heads, queries, keys, width] = parts[..] else { return Err(wrong().into()) };
    let (q_heads, kv_heads) = heads.split_once('-').unwrap_or((heads, heads));
    let number = |text: &str| text.parse::<u32>().map_err(|_| wrong());
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: number(queries)?,
        seq_len_kv: number(keys)?,
        num_q_heads: number(q_heads)?,
        num_kv_heads: number(kv_heads)?,
        head_dim: number(width)?,
        head_dim_v: number(width)?,
    };
    Ok(AttentionProblem::new(shape, dtype).with_mask(Mask::Causal))
}

/// A device of Vulkan's own interface, beside wgpu's.
struct Driver {
    device: ash::Device,
    properties: ash::khr::pipeline_executable_properties::Device,
    // Functions of the others lie in it.
    _instance: ash::Instance,
    _entry: ash::Entry,
}

impl Driver {
    fn open(name: &str) -> Outcome<Self> {
        // SAFETY: the loader is Vulkan's own.
        let entry = unsafe { ash::Entry::load()? };
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let descriptor = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: the descriptor lives as long as the call, here and below.
        let instance = unsafe { entry.create_instance(&descriptor, None)? };
        // SAFETY: the instance lives, here and below.
        let devices = unsafe { instance.enumerate_physical_devices()? };
        let is_named = |device: &vk::PhysicalDevice| {
            // SAFETY: as above.
            let properties = unsafe { instance.get_physical_device_properties(*device) };
            properties.device_name_as_c_str().is_ok_and(|found| found.to_bytes() == name.as_bytes())
        };
        let physical = devices.into_iter().find(is_named).ok_or_else(|| format!("Vulkan lists no {name}"))?;
        // SAFETY: as above.
        let listed = unsafe { instance.enumerate_device_extension_properties(physical)? };
        let has = |name: &CStr| listed.iter().any(|found| found.extension_name_as_c_str() == Ok(name));
        let statistics = vk::KHR_PIPELINE_EXECUTABLE_PROPERTIES_NAME;
        if !has(statistics) {
            return Err("this driver reports nothing of its pipelines (VK_KHR_pipeline_executable_properties)".into());
        }
        let extensions: Vec<_> = [statistics, vk::KHR_COOPERATIVE_MATRIX_NAME]
            .into_iter()
            .filter(|name| has(name))
            .map(CStr::as_ptr)
            .collect();
        // Every feature of the device except bounds checks.
        let (mut v11, mut v12, mut v13) = Default::default();
        let mut executable = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
        let mut matrices = vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default();
        let mut features: vk::PhysicalDeviceFeatures2<'_> = vk::PhysicalDeviceFeatures2::default();
        features = features.push_next::<vk::PhysicalDeviceVulkan11Features<'_>>(&mut v11);
        features = features.push_next::<vk::PhysicalDeviceVulkan12Features<'_>>(&mut v12);
        features = features.push_next::<vk::PhysicalDeviceVulkan13Features<'_>>(&mut v13).push_next(&mut executable);
        if extensions.len() > 1 {
            features = features.push_next(&mut matrices);
        }
        // SAFETY: as above.
        unsafe { instance.get_physical_device_features2(physical, &mut features) };
        features.features.robust_buffer_access = vk::FALSE;
        // SAFETY: as above.
        let families = unsafe { instance.get_physical_device_queue_family_properties(physical) };
        let computes = |family: &vk::QueueFamilyProperties| family.queue_flags.contains(vk::QueueFlags::COMPUTE);
        let family = families.iter().position(computes).ok_or("no queue computes")? as u32; // only a few
        let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&[1.0])];
        let descriptor = vk::DeviceCreateInfo::default()
            .queue_create_infos(&queues)
            .enabled_extension_names(&extensions)
            .push_next(&mut features);
        // SAFETY: the features are those that the device reported.
        let device = unsafe { instance.create_device(physical, &descriptor, None)? };
        let properties = ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
        Ok(Self { device, properties, _instance: instance, _entry: entry })
    }

    /// The driver's report on a text, and its pipeline cache. Everything created lives until the program ends.
    fn compile(&self, text: &str) -> Outcome<(String, Vec<u8>)> {
        let (words, bindings, entry_point) = spirv(text)?;
        let device = &self.device;
        // SAFETY: all descriptors live as long as their calls, the handles as long as the program, and naga checked the text.
        unsafe {
            let layout = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let layouts = [device.create_descriptor_set_layout(&layout, None)?];
            let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&layouts);
            let layout = device.create_pipeline_layout(&layout, None)?;
            let module = device.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&words), None)?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(&entry_point);
            let wanted = vk::ComputePipelineCreateInfo::default()
                .flags(vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR)
                .stage(stage)
                .layout(layout);
            let cache = device.create_pipeline_cache(&vk::PipelineCacheCreateInfo::default(), None)?;
            let begin = Instant::now();
            let made = device.create_compute_pipelines(cache, &[wanted], None).map_err(|(_, error)| error)?;
            let mut said = format!("compiled in {:.2} s", begin.elapsed().as_secs_f64());
            let info = vk::PipelineInfoKHR::default().pipeline(made[0]);
            for index in 0..self.properties.get_pipeline_executable_properties(&info)?.len() as u32 {
                let info = vk::PipelineExecutableInfoKHR::default().pipeline(made[0]).executable_index(index);
                for found in self.properties.get_pipeline_executable_statistics(&info)? {
                    let name = found.name_as_c_str().map_err(|_| "a name without an end")?.to_string_lossy();
                    said += &format!(", {name} {}", number(&found));
                }
            }
            Ok((said, device.get_pipeline_cache_data(cache)?))
        }
    }
}

fn number(found: &vk::PipelineExecutableStatisticKHR<'_>) -> String {
    // SAFETY: the format says which field of the union it is.
    unsafe {
        match found.format {
            vk::PipelineExecutableStatisticFormatKHR::BOOL32 => found.value.b32.to_string(),
            vk::PipelineExecutableStatisticFormatKHR::INT64 => found.value.i64.to_string(),
            vk::PipelineExecutableStatisticFormatKHR::FLOAT64 => found.value.f64.to_string(),
            _ => found.value.u64.to_string(),
        }
    }
}

/// Translates a text as wgpu does for the crate's own: without bounds checks, and without clearing workgroup memory.
fn spirv(text: &str) -> Outcome<(Vec<u32>, Vec<vk::DescriptorSetLayoutBinding<'static>>, CString)> {
    use naga::back::spv;
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module)?;
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::empty(),
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..Default::default()
    };
    let words = spv::write_vec(&module, &info, &options, None)?;
    let of = |(_, variable): (_, &naga::GlobalVariable)| {
        let kind = match variable.space {
            naga::AddressSpace::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
            _ => vk::DescriptorType::STORAGE_BUFFER,
        };
        let binding = vk::DescriptorSetLayoutBinding::default().descriptor_type(kind).descriptor_count(1);
        Some(binding.binding(variable.binding.as_ref()?.binding).stage_flags(vk::ShaderStageFlags::COMPUTE))
    };
    let bindings = module.global_variables.iter().filter_map(of).collect();
    Ok((words, bindings, CString::new(module.entry_points[0].name.as_str())?))
}
