//! All options of attention, pairwise, without a GPU: plans for devices of several kinds, the twins of their kernels and the CPU path
//! against the f64 oracle. Refusals have the right name. `gpu_combinations.rs` runs the kernels.

mod common;
#[path = "common/devices.rs"]
mod devices;

use common::Exp;
use common::combinations::{Combination, Stage, Visitor, check_refusal, combinations};
use devices::small_devices;
use wattn::cpu;
use wattn::{BindingKind, DType, DeviceCaps, Element};

/// The CPU path.
fn attend<T: Element>(combination: &Combination) -> wattn::Result<wattn::AttentionOutput> {
    cpu::attend(&combination.problem, &combination.inputs(&combination.case::<T>()))
}

struct OnCpu;

impl Visitor for OnCpu {
    fn visit<T: Element>(&mut self, combination: &Combination) {
        let got = attend::<T>(combination).unwrap();
        combination.check(&combination.case::<T>(), &got, (Exp::Cpu, DType::F32), &format!("{combination:?}"));
    }
}

#[test]
fn the_cpu_path_is_right() {
    for caps in small_devices() {
        for combination in combinations(&caps).0 {
            combination.visit(&mut OnCpu);
        }
    }
}

struct Planned(DeviceCaps);

impl Visitor for Planned {
    fn visit<T: Element>(&mut self, combination: &Combination) {
        let what = format!("{combination:?}");
        let plan = combination.plan(&self.0).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(plan.workgroup_storage_bytes() <= self.0.max_workgroup_storage_bytes.into(), "{what}");
        for dispatch in plan.dispatches() {
            let places: u64 = dispatch.workgroups.iter().map(|&n| u64::from(n)).product();
            assert!(!dispatch.specialization.wgsl().is_empty() && places < 1 << 20, "{what}: {places} places");
            let bindings = dispatch.specialization.bindings();
            let storage =
                bindings.iter().filter(|it| matches!(it.kind, BindingKind::Read | BindingKind::Write)).count();
            assert!(storage <= self.0.max_storage_buffers as usize, "{what}: {bindings:?}");
        }
        let case = combination.case::<T>();
        combination.check(&case, &combination.run_twins(&plan, &case), (Exp::of(&plan), DType::F32), &what);
    }
}

#[test]
fn plans_fit_and_their_twins_are_right() {
    for caps in small_devices() {
        let taken = combinations(&caps).0;
        println!("{} combinations, {:?} subgroups", taken.len(), caps.subgroup_size);
        for combination in taken {
            combination.visit(&mut Planned(caps.clone()));
        }
    }
}

struct RefusedOnCpu<'a>(&'a str);

impl Visitor for RefusedOnCpu<'_> {
    fn visit<T: Element>(&mut self, combination: &Combination) {
        let what = format!("{combination:?}");
        let Err(error) = attend::<T>(combination) else { panic!("{what}: taken by the CPU path") };
        check_refusal(&error, self.0, &what);
    }
}

/// A refusal of the problem holds on every path; a refusal of one device does not concern the CPU.
#[test]
fn refusals_name_what_is_wrong() {
    for caps in small_devices() {
        let refused = combinations(&caps).1;
        assert!(refused.len() > 20, "{}", refused.len());
        for refused in refused {
            let what = format!("{:?}", refused.combination);
            match (refused.stage, refused.combination.plan(&caps)) {
                (Stage::Bind, planned) => drop(planned.unwrap_or_else(|error| panic!("{what}: {error}"))),
                (_, Ok(plan)) => panic!("{what}: planned as\n{plan}"),
                (_, Err(error)) => check_refusal(&error, &refused.name, &what),
            }
            match refused.stage {
                Stage::Problem => refused.combination.visit(&mut RefusedOnCpu(&refused.name)),
                Stage::Plan | Stage::Bind => refused.combination.visit(&mut OnCpu),
            }
        }
    }
}
