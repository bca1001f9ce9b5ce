//! `wattn info`: the adapters of this machine and the plan for a shape.

use core::fmt;

use serde::Serialize;
use wattn::{AttentionProblem, AttentionShape, DeviceCaps};

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
    cooperative_matrix: bool,
    timestamps: bool,
    workgroup_storage_bytes: u32,
    invocations_per_workgroup: u32,
    storage_binding_bytes: u64,
    buffer_bytes: u64,
}

#[derive(Serialize)]
struct Info {
    version: &'static str,
    adapters: Vec<AdapterRow>,
}

pub(crate) fn run(args: &InfoArgs) -> Result<(), Failure> {
    let problem = args.shape.map(|shape| problem(args, shape)).transpose()?;
    if let Some(path) = &args.json {
        files::check_destination(path)?;
    }
    let adapters = adapters(args.adapter.as_deref());
    if let (Some(name), true) = (&args.adapter, adapters.is_empty()) {
        return Err(Failure::Usage(format!("no adapter has \"{name}\" in its name")));
    }
    let mut text = format!("wattn {}\n", env!("CARGO_PKG_VERSION"));
    if adapters.is_empty() {
        text += "no adapter found: `--backend auto` computes on the CPU\n";
    }
    text.extend(adapters.iter().map(AdapterRow::to_string));
    text.extend(problem.iter().map(plan));
    files::print(&text)?;
    if let Some(path) = &args.json {
        files::write_json(path, &Info { version: env!("CARGO_PKG_VERSION"), adapters })?;
    }
    Ok(())
}

fn problem(args: &InfoArgs, shape: AttentionShape) -> Result<AttentionProblem, Failure> {
    let problem = AttentionProblem::new(shape, args.dtype.into()).mask(args.mask.mask()?);
    problem.validate()?;
    Ok(problem)
}

/// The plan belongs here: one for each adapter (or for `DeviceCaps::BASELINE` where there is none), with `args.tier`.
fn plan(problem: &AttentionProblem) -> String {
    format!("\n{:?}, {}\n", problem.shape(), problem.dtype())
}

fn adapters(name: Option<&str>) -> Vec<AdapterRow> {
    let wanted = name.map(str::to_lowercase);
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let rows = found.iter().map(row);
    rows.filter(|row| wanted.as_ref().is_none_or(|wanted| row.name.to_lowercase().contains(wanted))).collect()
}

fn row(adapter: &wgpu::Adapter) -> AdapterRow {
    let (info, features, limits) = (adapter.get_info(), adapter.features(), adapter.limits());
    let subgroup = features.contains(wgpu::Features::SUBGROUP);
    let mut caps = DeviceCaps::BASELINE;
    caps.shader_f16 = features.contains(wgpu::Features::SHADER_F16);
    caps.subgroup_size = subgroup.then_some(info.subgroup_min_size..=info.subgroup_max_size);
    AdapterRow {
        name: info.name,
        backend: info.backend.to_string(),
        kind: format!("{:?}", info.device_type),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        best_tier: caps.best_tier().name(),
        shader_f16: caps.shader_f16,
        subgroup_size: subgroup.then_some([info.subgroup_min_size, info.subgroup_max_size]),
        cooperative_matrix: features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        workgroup_storage_bytes: limits.max_compute_workgroup_storage_size,
        invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
        storage_binding_bytes: limits.max_storage_buffer_binding_size,
        buffer_bytes: limits.max_buffer_size,
    }
}

impl fmt::Display for AdapterRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes = |there: bool| if there { "yes" } else { "no" };
        let subgroup = self.subgroup_size.map_or_else(|| "no".to_owned(), |[min, max]| format!("{min} to {max}"));
        let pairs = [
            [("f16", yes(self.shader_f16).to_owned()), ("subgroups", subgroup)],
            [
                ("matrix units", yes(self.cooperative_matrix).to_owned()),
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
