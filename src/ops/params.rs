//! Grids of plans as steps with their uniforms.

use crate::kernels::stretch::StretchRecord;
use crate::plan::{Dispatch, Stretch};
use crate::{Context, Pipeline, Result, Slots, Step};

/// Uniforms: a name and the words of each.
pub(crate) type Uniforms = Vec<(&'static str, Vec<u32>)>;

/// The contents of a call's uniforms, by name.
pub(super) type Numbers = Vec<(&'static str, Vec<u8>)>;

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

/// The numbers of a call as words, for tests that run kernels without a device.
pub(super) fn numbers_in_words(numbers: &Numbers, stretches: &[Stretch]) -> Vec<Uniforms> {
    let words = |bytes: &[u8]| bytemuck::pod_collect_to_vec(bytes);
    let of = |stretch: &Stretch| {
        let call = numbers.iter().map(|(name, bytes)| (*name, words(bytes)));
        call.chain([("stretch", words(bytemuck::bytes_of(&StretchRecord::from(stretch))))]).collect()
    };
    stretches.iter().map(of).collect()
}
