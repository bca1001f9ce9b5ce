//! The devices that the GPU tests run on: every adapter that the drivers offer, or those that `WATTN_TEST_ADAPTER`
//! names. None at all is a failure, never a skip.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::OnceLock;

use wattn::{AttentionPlan, AttentionProblem, Context, ContextOptions, DeviceCaps, Tier, Tiling};

/// A context for each adapter.
pub fn contexts() -> &'static [Context] {
    static CONTEXTS: OnceLock<Vec<Context>> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let wanted = std::env::var("WATTN_TEST_ADAPTER").unwrap_or_default().to_lowercase();
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
        let names: Vec<String> = pollster::block_on(wattn::adapters(&instance))
            .iter()
            .map(|adapter| adapter.get_info().name)
            .filter(|name| name.to_lowercase().contains(&wanted))
            .collect::<std::collections::BTreeSet<_>>() // a driver may be listed twice
            .into_iter()
            .collect();
        assert!(
            !names.is_empty(),
            "no GPU adapter. `bash tests/run` installs software Vulkan drivers on Debian; elsewhere install Mesa's \
             lavapipe (package mesa-vulkan-drivers) or a GPU driver."
        );
        let open = |name: &String| Context::request_blocking(&ContextOptions::default().adapter_name(name)).unwrap();
        let contexts: Vec<Context> = names.iter().map(open).collect();
        for context in &contexts {
            println!("testing on {}", context.describe());
        }
        contexts
    })
}

/// The tiers that a device offers.
pub fn tiers(caps: &DeviceCaps) -> impl Iterator<Item = Tier> {
    Tier::ALL.into_iter().filter(|&tier| caps.require(tier).is_ok())
}

/// The tiny tiling of a tier: two rows a group, one vec4 of keys a lane, so that edges are cheap to reach.
pub fn tiny_tiling(caps: &DeviceCaps, tier: Tier, num_splits: u32) -> Tiling {
    let (lanes, groups) = match (tier.subgroup(), &caps.subgroup_size) {
        (true, Some(size)) => (*size.start(), size.end() / size.start()),
        _ => (4, 2),
    };
    Tiling { lanes, rows: 2, keys: 4, groups, num_splits }
}

/// A segment of half a subgroup, where the device's subgroups are large enough: the tiling of devices whose subgroup
/// size varies.
pub fn segment_tiling(caps: &DeviceCaps, tier: Tier) -> Option<Tiling> {
    let size = caps.subgroup_size.as_ref().filter(|size| tier.subgroup() && *size.start() >= 8)?;
    let lanes = size.start() / 2;
    Some(Tiling { lanes, rows: 4, keys: 4, groups: 2 * size.end() / lanes, num_splits: 1 })
}

/// The tilings that a test goes through: the plan's own, tiny ones with and without splits, and a segment.
pub fn plans(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> Vec<AttentionPlan> {
    let forced = |tiling| AttentionPlan::with_tiling(problem, caps, tier, tiling).unwrap();
    let mut plans = vec![
        AttentionPlan::with_tier(problem, caps, tier).unwrap(),
        forced(tiny_tiling(caps, tier, 1)),
        forced(tiny_tiling(caps, tier, 3)),
    ];
    plans.extend(segment_tiling(caps, tier).map(forced));
    plans
}
