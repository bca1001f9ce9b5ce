//! The candidates: the tilings of every tier, and those one step from a tiling. Pure, like plans.

use crate::{
    AttentionPlan, AttentionProblem, Candidates, DType, DeviceCaps, SelectionPlan, SelectionProblem, SelectionTiling,
    Sharing, Tier, Tiling,
};

/// A tier and a tiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Candidate<T> {
    /// The tier of the kernels.
    pub tier: Tier,
    /// The tile sizes.
    pub tiling: T,
}

impl<T: core::fmt::Display> core::fmt::Display for Candidate<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: {}", self.tier, self.tiling)
    }
}

/// The tiers of a device whose kernels differ for these types. Where there is no f16 to load, a tier with f16 equals the tier without; plans
/// take the former.
fn tiers(caps: &DeviceCaps, dtypes: &[DType]) -> impl Iterator<Item = Tier> {
    let (f16, shader_f16) = (dtypes.contains(&DType::F16), caps.shader_f16);
    let distinct = move |tier: &Tier| f16 || tier.shader_f16() == shader_f16;
    Tier::ALL.into_iter().filter(distinct).filter(|&tier| caps.require(tier).is_ok())
}

/// The default tiling of each tier, then the tilings of its other sharings; with matrices those with one and two rows of matrices in a group,
/// and with four and eight groups, each of which was the fastest on some device.
#[must_use]
pub fn attention_starts(problem: &AttentionProblem, caps: &DeviceCaps) -> Vec<Candidate<Tiling>> {
    let mut starts = Vec::new();
    for tier in tiers(caps, &[problem.dtype(), problem.out_dtype()]) {
        let Ok(plan) = AttentionPlan::with_tier(problem, caps, tier) else { continue };
        let own = plan.tiling();
        let others = if let (true, Some(edge)) = (tier.matrix(), caps.matrix_edge()) {
            let sizes = [1, 2].into_iter().flat_map(|rows| [4, 8].map(|groups| (rows * edge, groups)));
            distinct(own, sizes.map(|(rows, groups)| Tiling { rows, groups, ..own }).collect()).collect()
        } else {
            let mut shared = Tiling::of_each_sharing(problem, caps, tier);
            shared.retain(|tiling| tiling.sharing != own.sharing);
            shared
        };
        let others = others.into_iter().filter(|&tiling| fits(problem, caps, tier, tiling));
        starts.extend([own].into_iter().chain(others).map(|tiling| Candidate { tier, tiling }));
    }
    starts
}

fn fits(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier, tiling: Tiling) -> bool {
    AttentionPlan::with_tiling(problem, caps, tier, tiling).is_ok()
}

/// Tilings with one size doubled or halved, or one doubled and another halved, if the device takes them.
#[must_use]
pub fn attention_neighbours(
    problem: &AttentionProblem,
    caps: &DeviceCaps,
    Candidate { tier, tiling }: Candidate<Tiling>,
) -> Vec<Candidate<Tiling>> {
    // Sizes in halves.
    let (halved, same, doubled) = (1, 2, 4);
    let scaled = |[lanes, rows, keys, groups, num_splits]: [u32; 5]| Tiling {
        lanes: tiling.lanes * lanes / 2,
        rows: tiling.rows * rows / 2,
        keys: tiling.keys * keys / 2,
        groups: tiling.groups * groups / 2,
        num_splits: tiling.num_splits * num_splits / 2,
        sharing: tiling.sharing,
    };
    let mut factors = Vec::new();
    for size in 0..5 {
        for factor in [halved, doubled] {
            let mut of = [same; 5];
            of[size] = factor;
            factors.push(of);
        }
    }
    // More of one for less of another: the number of rows, keys or invocations of a workgroup stays.
    for (more, less) in [(1, 3), (3, 1), (0, 3), (3, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
        let mut of = [same; 5];
        (of[more], of[less]) = (doubled, halved);
        factors.push(of);
    }
    let mut tilings: Vec<Tiling> = factors.into_iter().map(scaled).collect();
    // Tiles need not be powers of two.
    tilings.extend([tiling.keys + 4, tiling.keys.saturating_sub(4)].map(|keys| Tiling { keys, ..tiling }));
    let fits = |&tiling: &Tiling| fits(problem, caps, tier, tiling);
    distinct(tiling, tilings).filter(fits).map(|tiling| Candidate { tier, tiling }).collect()
}

/// The default tiling of each tier.
#[must_use]
pub fn selection_starts(problem: &SelectionProblem, caps: &DeviceCaps) -> Vec<Candidate<SelectionTiling>> {
    let plan = |tier| SelectionPlan::with_tier(problem, caps, tier).ok();
    tiers(caps, &[problem.dtype()])
        .filter_map(plan)
        .map(|plan| Candidate { tier: plan.tier(), tiling: plan.tiling() })
        .collect()
}

/// Tilings with one size doubled or halved, if the device takes them.
#[must_use]
pub fn selection_neighbours(
    problem: &SelectionProblem,
    caps: &DeviceCaps,
    Candidate { tier, tiling }: Candidate<SelectionTiling>,
) -> Vec<Candidate<SelectionTiling>> {
    let sizes: [fn(&mut SelectionTiling) -> &mut u32; 6] = [
        |tiling| &mut tiling.lanes,
        |tiling| &mut tiling.rows,
        |tiling| &mut tiling.search_groups,
        |tiling| &mut tiling.score_groups,
        |tiling| &mut tiling.top_k_size,
        |tiling| &mut tiling.max_searches,
    ];
    let mut tilings = Vec::new();
    for size in sizes {
        let (mut less, mut more) = (tiling, tiling);
        *size(&mut less) /= 2;
        *size(&mut more) *= 2;
        tilings.extend([less, more]);
    }
    // The other members of the families.
    let sharing = match tiling.sharing {
        Sharing::Keys => SelectionTiling { sharing: Sharing::Columns, rows: 1, ..tiling },
        Sharing::Columns | Sharing::Rows | Sharing::Tiles => SelectionTiling { sharing: Sharing::Keys, ..tiling },
    };
    let candidates = match tiling.candidates {
        Candidates::Scratch => Candidates::Workgroup,
        Candidates::Workgroup => Candidates::Scratch,
    };
    tilings.extend([sharing, SelectionTiling { candidates, ..tiling }]);
    let fits = |tiling: &SelectionTiling| SelectionPlan::with_tiling(problem, caps, tier, *tiling).is_ok();
    distinct(tiling, tilings).filter(fits).map(|tiling| Candidate { tier, tiling }).collect()
}

/// Removes duplicates and the tiling that they come from.
fn distinct<T: Copy + PartialEq>(from: T, tilings: Vec<T>) -> impl Iterator<Item = T> {
    let mut seen = vec![from];
    tilings.into_iter().filter(move |tiling| {
        let new = !seen.contains(tiling);
        seen.push(*tiling);
        new
    })
}
