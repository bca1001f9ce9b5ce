//! `wattn info`: the adapters of this machine and the plan for a shape.

use core::fmt;
use std::collections::HashSet;

use serde::Serialize;
use wattn::{AttentionPlan, AttentionProblem, AttentionShape, DeviceCaps, Tier};

use crate::args::InfoArgs;
use crate::failure::Failure;
use crate::files;

/// What one adapter reports, before a device is opened on it.
#[derive(Serialize)]
struct AdapterRow {
    name: String,
    backend: String,
    kind: String,
    driver: String,
    best_tier: &'static str,
    shader_f16: bool,
    subgroup_size: Option<[u32; 2]>,
    matrix_edge: Option<u32>,
    timestamps: bool,
    workgroup_storage_bytes: u32,
    invocations_per_workgroup: u32,
    storage_binding_bytes: u64,
    buffer_bytes: u64,
}

#[derive(Serialize)]
struct Info<'a> {
    version: &'static str,
    adapters: Vec<&'a AdapterRow>,
    /// For `--shape`, one for each adapter; none where the device lacks what the plan needs.
    plans: Vec<Option<String>>,
}

pub(crate) fn run(args: &InfoArgs) -> Result<(), Failure> {
    let problem = args.shape.map(|shape| problem(args, shape)).transpose()?;
    if let Some(path) = &args.json {
        files::check_destination(path)?;
    }
    let found = adapters();
    let wanted = args.adapter.as_deref().unwrap_or_default().to_lowercase();
    let chosen: Vec<_> = found.iter().filter(|(row, _)| row.name.to_lowercase().contains(&wanted)).collect();
    if let (Some(name), true) = (&args.adapter, chosen.is_empty()) {
        let names: Vec<String> = found.iter().map(|(row, _)| format!("{} ({})", row.name, row.backend)).collect();
        let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(wattn::Error::NoAdapter { wanted: Some(name.clone()), found }.into());
    }
    let mut text = format!("wattn {}\n", env!("CARGO_PKG_VERSION"));
    let tier = args.tier.map(Tier::from);
    if chosen.is_empty() {
        text += "no adapter found: `--backend auto` computes on the CPU\n";
        if let Some(problem) = &problem {
            text += "\nplan for a device with WebGPU's default limits and no optional feature\n";
            text += &plan(problem, &DeviceCaps::BASELINE, tier)?;
        }
    }
    for (row, caps) in &chosen {
        text += &row.to_string();
        if let Some(problem) = &problem {
            // One device without the tier must not hide the plans of the others.
            text += &plan(problem, caps, tier).unwrap_or_else(|error| format!("  no plan: {error}\n"));
        }
    }
    files::print(&text)?;
    if let Some(path) = &args.json {
        let plan_of = |caps: &DeviceCaps| problem.as_ref().and_then(|problem| plan(problem, caps, tier).ok());
        let plans = chosen.iter().map(|(_, caps)| plan_of(caps)).collect();
        let adapters = chosen.into_iter().map(|(row, _)| row).collect();
        files::write_json(path, &Info { version: env!("CARGO_PKG_VERSION"), adapters, plans })?;
    }
    Ok(())
}

fn problem(args: &InfoArgs, shape: AttentionShape) -> Result<AttentionProblem, Failure> {
    let problem = AttentionProblem::new(shape, args.dtype.into()).mask(args.mask.mask()?);
    problem.validate()?;
    Ok(problem)
}

/// The plan's own table, indented.
fn plan(problem: &AttentionProblem, caps: &DeviceCaps, tier: Option<Tier>) -> wattn::Result<String> {
    let plan =
        AttentionPlan::with_tier(problem, caps, tier.unwrap_or_else(|| AttentionPlan::best_tier(problem, caps)))?;
    Ok(plan.to_string().lines().map(|line| format!("  {line}\n")).collect())
}

/// The adapters that can run the kernels, best first: `auto` takes the first that is no software device.
fn adapters() -> Vec<(AdapterRow, DeviceCaps)> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let mut rows: Vec<(AdapterRow, DeviceCaps)> = Vec::new();
    let mut seen = HashSet::new();
    for adapter in pollster::block_on(wattn::adapters(&instance)) {
        let info = adapter.get_info();
        // One device may be there through several back ends or drivers, the best first; `--adapter` reaches that one
        // only. Equal GPUs in one machine differ in their bus.
        if seen.insert((info.name.clone(), info.device_pci_bus_id.clone())) {
            let caps = DeviceCaps::of_adapter(&adapter);
            rows.push((row(&info, &caps), caps));
        }
    }
    rows
}

fn row(info: &wgpu::AdapterInfo, caps: &DeviceCaps) -> AdapterRow {
    AdapterRow {
        name: info.name.clone(),
        backend: info.backend.to_string(),
        kind: format!("{:?}", info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        best_tier: caps.best_tier().name(),
        shader_f16: caps.shader_f16,
        subgroup_size: caps.subgroup_size.as_ref().map(|size| [*size.start(), *size.end()]),
        matrix_edge: caps.matrix_edge(),
        timestamps: caps.timestamps,
        workgroup_storage_bytes: caps.max_workgroup_storage_bytes,
        invocations_per_workgroup: caps.max_invocations_per_workgroup,
        storage_binding_bytes: caps.max_storage_binding_bytes,
        buffer_bytes: caps.max_buffer_bytes,
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
        Ok(())
    }
}
