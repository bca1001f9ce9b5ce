//! `wattn info`: the adapters of this machine and the plan for a shape.

use core::fmt;
use std::collections::HashSet;
use std::hash::Hash;

use serde::Serialize;
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, Context, DeviceCaps, DeviceSpeed, DispatchBudget, Hip, PassedOver,
    Preset, SelectionMethod, SelectionPlan, SelectionProblem, Tier,
};

use crate::args::InfoArgs;
use crate::engine;
use crate::failure::Failure;
use crate::files;

/// The features and plans of one adapter, with a device opened on it.
#[derive(Serialize)]
struct AdapterRow {
    name: String,
    backend: String,
    kind: String,
    driver: String,
    best_tier: &'static str,
    /// Better tiers, each with the reason why it is missing.
    missed_tiers: Vec<String>,
    shader_f16: bool,
    subgroup_size: Option<[u32; 2]>,
    matrix_edge: Option<u32>,
    /// The reason why reported matrices are not used.
    matrix_fault: Option<String>,
    timestamps: bool,
    workgroup_storage_bytes: u32,
    invocations_per_workgroup: u32,
    storage_binding_bytes: u64,
    buffer_bytes: u64,
    /// The measured speed, with `--measure`.
    speed: Option<DeviceSpeed>,
}

#[derive(Serialize)]
struct Info<'a> {
    version: &'static str,
    adapters: Vec<&'a AdapterRow>,
    /// Adapters that do not open.
    passed_over: Vec<AdapterRefused<'a>>,
    /// Plans for `--shape`, one for each adapter; none where the device lacks a feature that the plan needs.
    plans: Vec<Option<String>>,
}

/// An adapter that does not open, and why.
#[derive(Serialize)]
struct AdapterRefused<'a> {
    adapter: &'a str,
    reason: &'a str,
}

impl<'a> AdapterRefused<'a> {
    fn of(PassedOver { adapter, reason, .. }: &'a PassedOver) -> Self {
        Self { adapter, reason }
    }
}

pub(crate) fn run(args: &InfoArgs) -> Result<(), Failure> {
    let problem = args.shape.map(|shape| problem(args, shape)).transpose()?;
    files::check_outputs(&[], &[("--json", args.json.as_deref())])?;
    let (opened, passed_over) = adapters(args.adapter.as_deref(), args.measure)?;
    let mut text = format!("wattn {}\n", env!("CARGO_PKG_VERSION"));
    let tier = args.tier.map(Tier::from);
    if opened.is_empty() {
        let found = if passed_over.is_empty() { "found" } else { "opens" };
        text += &format!("no adapter {found}: `--backend auto` computes on the CPU\n");
        if let Some(problem) = &problem {
            text += "\nplan for a device with WebGPU's default limits and no optional feature\n";
            text += &plan(problem, &DeviceCaps::BASELINE, tier)?;
        }
    }
    for (row, caps) in &opened {
        text += &row.to_string();
        if let Some(problem) = &problem {
            // One device without the tier must not hide the plans of the others.
            text += &plan(problem, caps, tier).unwrap_or_else(|error| format!("  no plan: {error}\n"));
        }
    }
    for PassedOver { adapter, reason, .. } in &passed_over {
        text += &format!("\n{adapter}\n  does not open: {reason}\n");
    }
    files::print(&text)?;
    if let Some(path) = &args.json {
        let plan_of = |caps: &DeviceCaps| problem.as_ref().and_then(|problem| plan(problem, caps, tier).ok());
        let plans = opened.iter().map(|(_, caps)| plan_of(caps)).collect();
        let adapters = opened.iter().map(|(row, _)| row).collect();
        let passed_over = passed_over.iter().map(AdapterRefused::of).collect();
        files::write_json(path, &Info { version: env!("CARGO_PKG_VERSION"), adapters, passed_over, plans })?;
    }
    Ok(())
}

fn problem(args: &InfoArgs, shape: AttentionShape) -> Result<AttentionProblem, Failure> {
    let mut problem = AttentionProblem::new(shape, args.dtype.into()).with_mask(args.mask.mask()?);
    if args.bf16_matrices {
        problem = problem.with_bf16_by_f16_matrices();
    }
    problem.validate()?;
    // A problem that no device can compute is refused before one is opened.
    let mut caps = DeviceCaps::BASELINE;
    caps.budget = DispatchBudget::UNLIMITED;
    match AttentionPlan::new(&problem, &caps) {
        Err(error @ wattn::Error::TooLarge { .. }) => Err(error.into()),
        _ => Ok(problem),
    }
}

/// The plan's own table, indented.
fn plan(problem: &AttentionProblem, caps: &DeviceCaps, tier: Option<Tier>) -> wattn::Result<String> {
    let plan = match tier {
        Some(tier) => AttentionPlan::with_tier(problem, caps, tier)?,
        None => AttentionPlan::new(problem, caps)?,
    };
    let plan: String = plan.to_string().lines().map(|line| format!("  {line}\n")).collect();
    Ok(plan + &crossovers(problem, caps))
}

/// The length up to which dense attention is as fast as these methods, where mask and device allow them.
fn crossovers(problem: &AttentionProblem, caps: &DeviceCaps) -> String {
    let of = |(name, method): (&str, SelectionMethod)| {
        let selection = SelectionProblem::new(*problem.shape(), problem.dtype(), method).with_mask(problem.mask());
        let keys = SelectionPlan::crossover(&selection, caps).ok()?;
        Some(if keys < AttentionProblem::MAX_SEQ_LEN {
            format!("{keys} keys with {name}")
        } else {
            format!("any with {name}")
        })
    };
    let methods = [("HiP", SelectionMethod::from(Hip::default())), ("InfiniteHiP 3K", Preset::ThreeK.into())];
    let found: Vec<String> = methods.into_iter().filter_map(of).collect();
    if found.is_empty() { String::new() } else { format!("  crossover  dense is as fast up to {}\n", found.join(", ")) }
}

/// The details to report for an adapter, and the problems to plan.
type Opened = (AdapterRow, DeviceCaps);

/// The adapters that can run the kernels, best first, or only those whose name contains the given one: `auto` takes the first that opens
/// and is no software device. Then adapters that do not open.
fn adapters(wanted: Option<&str>, measured: bool) -> Result<(Vec<Opened>, Vec<PassedOver>), Failure> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let found = pollster::block_on(wattn::adapters(&instance));
    let part = wanted.unwrap_or_default().to_lowercase();
    let is_wanted = |adapter: &&wgpu::Adapter| adapter.get_info().name.to_lowercase().contains(&part);
    let chosen: Vec<&wgpu::Adapter> = found.iter().filter(is_wanted).collect();
    if let (Some(name), true) = (wanted, chosen.is_empty()) {
        let names: Vec<String> = found.iter().map(|adapter| wattn::describe_adapter(&adapter.get_info())).collect();
        let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(wattn::Error::NoAdapter { wanted: Some(name.to_owned()), found }.into());
    }
    // One device may be listed through several back ends or drivers, the best first; `--adapter` takes the first that opens. Equal GPUs in
    // one machine differ in their bus.
    let device_of = |adapter: &&wgpu::Adapter| {
        let info = adapter.get_info();
        (info.name, info.device_pci_bus_id)
    };
    let open = |adapter: &&wgpu::Adapter| -> wattn::Result<Opened> {
        let context = Context::open(adapter, &engine::options()).wait()?;
        engine::keep_later(&context);
        let (mut row, mut caps) = (row(&adapter.get_info(), context.caps()), context.caps().clone());
        if measured {
            let speed = context.measure_speed_blocking()?;
            row.speed = Some(speed);
            // Crossovers of software devices are measured constants.
            caps.speed = caps.speed.map(|_| speed);
        }
        Ok((row, caps))
    };
    let describe = |adapter: &&wgpu::Adapter| wattn::describe_adapter(&adapter.get_info());
    let (opened, passed_over) = first_of_each(&chosen, device_of, describe, open);
    match wanted {
        Some(name) if opened.is_empty() => {
            Err(wattn::Error::NoneOpens { wanted: Some(name.to_owned()), passed_over }.into())
        }
        _ => Ok((opened, passed_over)),
    }
}

/// Opens the first candidate of each device that opens, and names those that do not open.
fn first_of_each<A, D: Eq + Hash, T>(
    candidates: &[A],
    device_of: impl Fn(&A) -> D,
    describe: impl Fn(&A) -> String,
    open: impl Fn(&A) -> wattn::Result<T>,
) -> (Vec<T>, Vec<PassedOver>) {
    let (mut opened, mut passed_over, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for candidate in candidates {
        let device = device_of(candidate);
        if seen.contains(&device) {
            continue;
        }
        match open(candidate) {
            Ok(device_opened) => {
                opened.push(device_opened);
                seen.insert(device);
            }
            Err(error) => passed_over.push(PassedOver::new(describe(candidate), &error)),
        }
    }
    (opened, passed_over)
}

fn row(info: &wgpu::AdapterInfo, caps: &DeviceCaps) -> AdapterRow {
    AdapterRow {
        name: info.name.clone(),
        backend: info.backend.to_string(),
        kind: format!("{:?}", info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        best_tier: caps.best_tier().name(),
        missed_tiers: caps.missed_tiers().iter().map(ToString::to_string).collect(),
        shader_f16: caps.shader_f16,
        subgroup_size: caps.subgroup_size.as_ref().map(|size| [*size.start(), *size.end()]),
        matrix_edge: caps.matrix_edge(),
        matrix_fault: caps.matrix_fault.clone(),
        timestamps: caps.timestamps,
        workgroup_storage_bytes: caps.max_workgroup_storage_bytes,
        invocations_per_workgroup: caps.max_invocations_per_workgroup,
        storage_binding_bytes: caps.max_storage_binding_bytes,
        buffer_bytes: caps.max_buffer_bytes,
        speed: None,
    }
}

impl fmt::Display for AdapterRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |there: bool| if there { "yes" } else { "no" };
        let subgroup = self.subgroup_size.map_or_else(|| "no".to_owned(), |[min, max]| format!("{min} to {max}"));
        let pairs = [
            [("f16", yes(self.shader_f16).to_owned()), ("subgroups", subgroup)],
            [
                (
                    "matrix units",
                    self.matrix_edge.map_or_else(|| "no".to_owned(), |edge| format!("{edge} x {edge} f16")),
                ),
                ("timestamps", yes(self.timestamps).to_owned()),
            ],
            [
                ("workgroup memory", format!("{} KiB", self.workgroup_storage_bytes >> 10)),
                ("invocations", self.invocations_per_workgroup.to_string()),
            ],
            [
                ("storage binding", format!("{} MiB", self.storage_binding_bytes >> 20)),
                ("buffer", format!("{} MiB", self.buffer_bytes >> 20)),
            ],
        ];
        writeln!(f, "\n{} ({}, {})", self.name, self.backend, self.kind)?;
        writeln!(f, "  {:<17} {}", "driver", self.driver)?;
        writeln!(f, "  {:<17} {}", "best tier", self.best_tier)?;
        for [left, right] in pairs {
            writeln!(f, "  {:<17} {:<16}  {:<12} {}", left.0, left.1, right.0, right.1)?;
        }
        for missed in &self.missed_tiers {
            writeln!(f, "  {:<17} {missed}", "missed tier")?;
        }
        if let Some(reason) = &self.matrix_fault {
            writeln!(f, "  {:<17} {reason}", "matrices unused")?;
        }
        if let Some(speed) = &self.speed {
            writeln!(f, "  {:<17} {speed}", "measured")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A case seen on an H100: its OpenGL adapter, of another name, is listed and does not open.
    #[test]
    fn adapters_that_do_not_open_are_told_and_the_others_shown() {
        let candidates =
            [("Card", "vulkan"), ("Card", "gl"), ("Card/PCIe", "gl"), ("Other", "gl"), ("Other", "vulkan")];
        let open = |&(name, backend): &(&'static str, &'static str)| match (name, backend) {
            ("Card/PCIe", _) | ("Other", "gl") => Err(wattn::Error::RequestDevice {
                adapter: name.to_owned(),
                reason: "Parent device is lost".to_owned(),
            }),
            pair => Ok(pair),
        };
        let (opened, passed_over) =
            first_of_each(&candidates, |candidate| candidate.0, |(name, backend)| format!("{name} ({backend})"), open);
        assert_eq!(opened, [("Card", "vulkan"), ("Other", "vulkan")]);
        let told: Vec<String> = passed_over.iter().map(PassedOver::to_string).collect();
        assert_eq!(told, ["Card/PCIe (gl): Parent device is lost", "Other (gl): Parent device is lost"]);
    }

    #[test]
    fn matrices_that_are_wrong_are_told() {
        let mut caps = DeviceCaps::BASELINE;
        (caps.shader_f16, caps.subgroup_size) = (true, Some(32..=32));
        caps.max_workgroup_storage_bytes = 48 << 10;
        caps.matrix_tiles = vec![wattn::MatrixTile::square(16)];
        let info = wgpu::AdapterInfo::new(wgpu::DeviceType::DiscreteGpu, wgpu::Backend::Vulkan);
        assert!(row(&info, &caps).to_string().contains("16 x 16 f16"));
        assert!(!row(&info, &caps).to_string().contains("matrices unused"));
        caps.matrix_fault = Some("shifted by four columns".to_owned());
        let text = row(&info, &caps).to_string();
        assert!(text.contains("matrix units      no") && text.contains("matrices unused   shifted by four"), "{text}");
    }
}
