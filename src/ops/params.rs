//! Grids of plans as steps with their uniforms.

use crate::kernels::stretch::StretchRecord;
use crate::plan::{Dispatch, Stretch};
use crate::{Context, Pipeline, Result, Slots, Step};

/// Uniforms: a name and the words of each.
pub(crate) type Uniforms = Vec<(&'static str, Vec<u32>)>;

impl From<&Stretch> for StretchRecord {
    fn from(stretch: &Stretch) -> Self {
        Self { first_place: stretch.first, end_place: stretch.end, first_tile: stretch.first_tile }
    }
}

/// A grid as a step, with the numbers of the call and a small uniform for each stretch.
pub(super) fn step(
    ctx: &Context,
    pipeline: &Pipeline,
    dispatch: &Dispatch,
    params: &impl bytemuck::Pod,
    slots: &Slots<'_>,
) -> Result<Step> {
    let slots = slots.clone().uniform("params", bytemuck::bytes_of(params));
    step_of(ctx, pipeline, dispatch, &slots)
}

/// The same, where the numbers of the call are among the slots.
pub(super) fn step_of(ctx: &Context, pipeline: &Pipeline, dispatch: &Dispatch, slots: &Slots<'_>) -> Result<Step> {
    let records: Vec<_> = dispatch.stretches.iter().map(StretchRecord::from).collect();
    let records: Vec<&[u8]> = records.iter().map(bytemuck::bytes_of).collect();
    let stretches: Vec<_> = dispatch.stretches.iter().map(|stretch| stretch.workgroups).collect();
    Step::new(ctx, pipeline, slots, &stretches, &records)
}

/// The same uniforms as words, for tests that run kernels without a device.
pub(super) fn in_words(params: &impl bytemuck::Pod, stretches: &[Stretch]) -> Vec<Uniforms> {
    let words = |bytes: &[u8]| bytemuck::pod_collect_to_vec(bytes);
    let of = |stretch: &Stretch| {
        vec![
            ("params", words(bytemuck::bytes_of(params))),
            ("stretch", words(bytemuck::bytes_of(&StretchRecord::from(stretch)))),
        ]
    };
    stretches.iter().map(of).collect()
}
