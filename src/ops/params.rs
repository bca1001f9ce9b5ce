//! The uniforms of the operators, one for each stretch of a grid.

use crate::plan::{Dispatch, Stretch};
use crate::{Context, Pipeline, Result, Slots, Step};

/// The uniform of a kernel.
pub(super) trait Params: bytemuck::Pod {
    /// The same for one stretch of the grid.
    fn of(self, stretch: &Stretch) -> Self;

    /// Those of some stretches, as words.
    fn in_words(self, stretches: &[Stretch]) -> Vec<Vec<u32>> {
        stretches.iter().map(|stretch| bytemuck::pod_collect_to_vec(bytemuck::bytes_of(&self.of(stretch)))).collect()
    }
}

/// A grid, with a uniform for each of its stretches.
pub(super) fn step<P: Params>(
    ctx: &Context,
    pipeline: &Pipeline,
    dispatch: &Dispatch,
    params: &P,
    slots: &Slots<'_>,
) -> Result<Step> {
    let records: Vec<_> =
        dispatch.stretches.iter().map(|stretch| bytemuck::bytes_of(&params.of(stretch)).to_vec()).collect();
    let stretches: Vec<_> = dispatch.stretches.iter().map(|stretch| stretch.workgroups).collect();
    Step::new(ctx, pipeline, slots, &stretches, &records)
}
