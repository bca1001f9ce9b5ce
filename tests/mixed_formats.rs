//! q, k and v in different formats: every form of attention is one text for all of them. Needs no GPU; `gpu_mixed.rs` runs some.

#[path = "common/mixed.rs"]
mod mixed;
#[path = "common/variants.rs"]
mod variants;

use std::collections::BTreeSet;

use mixed::{FORMATS, mixed, takes_any_format};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use variants::{devices_and_tiers, variants_of};
use wattn::Specialization;

fn validate(specialization: &Specialization) {
    let wgsl = specialization.wgsl_rolled();
    let module = naga::front::wgsl::parse_str(&wgsl)
        .unwrap_or_else(|error| panic!("{specialization}: {}", error.emit_to_string(&wgsl)));
    Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{specialization}: {}", error.emit_to_string(&wgsl)));
}

#[test]
fn every_form_of_attention_takes_mixed_formats() {
    let mut devices = devices_and_tiers();
    // One of each tier, of matrices each edge, and one with large subgroups.
    let mut seen = BTreeSet::new();
    devices.retain(|(caps, tier)| {
        let large = caps.subgroup_size.as_ref().is_some_and(|size| *size.end() > 64);
        seen.insert((*tier, caps.software, caps.matrix_edge(), large))
    });
    let mut forms = BTreeSet::new();
    for (at, variant) in variants_of(&devices).iter().enumerate() {
        let specialization = &variant.specialization;
        if !takes_any_format(specialization) {
            continue;
        }
        validate(&mixed(specialization, FORMATS[at % FORMATS.len()]));
        for module in specialization.modules() {
            if ["rows", "walk", "chunk", "factors", "q", "gather", "paging"].contains(&module.family()) {
                forms.insert((specialization.kernel().name(), module.name()));
            }
        }
    }
    let modules: BTreeSet<_> = forms.iter().map(|(_, module)| *module).collect();
    let expected = [
        "chunk_one",
        "chunk_pair",
        "factors_scaled",
        "gather_group",
        "gather_lane",
        "gather_workgroup",
        "paging_contiguous",
        "q_cached",
        "q_streamed",
        "rows_columns",
        "rows_keys",
        "rows_matrix",
        "rows_spread",
        "rows_staged",
        "walk_range",
        "walk_selected",
    ];
    assert!(modules.into_iter().eq(expected), "{forms:?}");
    let kernels: BTreeSet<_> = forms.iter().map(|(kernel, _)| *kernel).collect();
    assert!(kernels.into_iter().eq(["attend_decode", "attend_prefill", "find_exponents"]), "{forms:?}");
}
