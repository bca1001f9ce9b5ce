//! Check of lists of blocks that lie in GPU buffers.

use super::attend::{BlockListsView, check_blocks};
use super::bind::{BoundTensor, U32View, check_u32};
use super::params::step;
use crate::kernels::check_blocks::{COUNT_RULE, CheckParams, ORDER_RULE};
use crate::plan::check_dispatches;
use crate::{
    AttentionProblem, AttentionShape, BlockListSpec, Context, DType, Error, HostBlockLists, Layout, Pending, Pipeline,
    Result, Slots, TensorView,
};

/// A submitted check and the buffer of its report.
struct Check {
    report: wgpu::Buffer,
    selection: BlockListSpec,
    shape: AttentionShape,
}

impl Context {
    /// Verifies on the GPU the rules that block-sparse attention relies on: counts within bounds; first keys ascending, disjoint, and
    /// below the length of the sequence. For tests and debugging: attention itself does not check.
    ///
    /// # Errors
    /// [`Error::Blocks`] with the first list and entry that break a rule; an error that names the tensor, as from
    /// [`Attention::bind_with`](crate::Attention::bind_with); [`Error::Argument`] when the problem takes no lists.
    ///
    /// # Cost
    /// Compiles on a cache miss, allocates a small buffer, submits two dispatches, and reads three words back.
    pub fn check_blocks(
        &self,
        problem: &AttentionProblem,
        blocks: BlockListsView<'_>,
        seq_lens_kv: Option<U32View<'_>>,
    ) -> Pending<'static, Result<()>> {
        let started = self.start_check(problem, blocks, seq_lens_kv);
        let started = started.map(|check| check.map(|check| (self.read::<f32>(report_view(&check.report)), check)));
        Pending::new(async {
            let Some((read, check)) = started? else { return Ok(()) };
            let found = read.await?;
            check.verdict([0, 1, 2].map(|i| found.data()[i].to_bits()))
        })
    }

    /// Submits the check; `None` where there are no lists.
    fn start_check(
        &self,
        problem: &AttentionProblem,
        blocks: BlockListsView<'_>,
        seq_lens_kv: Option<U32View<'_>>,
    ) -> Result<Option<Check>> {
        problem.validate()?;
        let needed = Error::Argument { argument: "selected_blocks", rule: "is required by the problem" };
        let selection = *problem.blocks().ok_or(needed)?;
        let shape = *problem.shape();
        let lists: [BoundTensor<'_>; 2] = check_blocks(&blocks, &selection, &shape, self.caps())?;
        let lens = seq_lens_kv.map(|view| check_u32(view, "seq_lens_kv", shape.batch_size.into(), self.caps()));
        let lens = lens.transpose()?;
        let num_lists = selection.num_lists(&shape);
        if num_lists == 0 {
            return Ok(None);
        }
        let dispatches = check_dispatches(&selection, &shape, lens.is_some(), self.caps())?;
        let params = CheckParams {
            seq_len_kv: shape.seq_len_kv,
            max_blocks: selection.max_blocks,
            block_size: selection.block_size,
            // Fewer than the places of the grid, which the plan checked.
            lists_per_batch: (num_lists / u64::from(shape.batch_size)) as u32,
            num_places: (num_lists * (u64::from(selection.max_blocks) + 1)) as u32,
            indices_offset: lists[0].offset,
            counts_offset: lists[1].offset,
        };
        let seq_lens_place = lens.as_ref().map(BoundTensor::seq_lens_place);
        let pipelines = dispatches
            .iter()
            .map(|dispatch| Pipeline::of_operator(self, &dispatch.specialization))
            .collect::<Result<Vec<_>>>()?;
        let report = self.scoped("checking lists of blocks", || {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
            let report = self.upload("wattn.report", bytemuck::cast_slice(&[u32::MAX, 0, 0]), usage);
            let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            for (pipeline, dispatch) in pipelines.iter().zip(&dispatches) {
                let mut slots = Slots::new()
                    .with("block_indices", lists[0].slot())
                    .with("block_counts", lists[1].slot())
                    .range("report", &report, 0, 12);
                if let Some((lens, place)) = lens.as_ref().zip(seq_lens_place.as_ref()) {
                    slots = slots.with("seq_lens_kv", lens.slot()).uniform("seq_lens_place", bytemuck::bytes_of(place));
                }
                let step = step(self, pipeline, dispatch, &params, &slots)?;
                let descriptor =
                    wgpu::ComputePassDescriptor { label: Some("wattn.check_blocks"), timestamp_writes: None };
                step.encode_in(&mut encoder.begin_compute_pass(&descriptor));
            }
            self.queue().submit([encoder.finish()]);
            Ok::<_, Error>(report)
        })??;
        Ok(Some(Check { report, selection, shape }))
    }
}

fn report_view(report: &wgpu::Buffer) -> TensorView<'_> {
    // Three words, read back as f32 of the same bits.
    TensorView::new(report, DType::F32, Layout::seq_major(1, 1, 1, 3))
}

impl Check {
    fn verdict(&self, [place, value, rule]: [u32; 3]) -> Result<()> {
        let rule = match rule {
            0 => return Ok(()),
            COUNT_RULE => HostBlockLists::COUNT_RULE,
            ORDER_RULE => HostBlockLists::ORDER_RULE,
            _ => HostBlockLists::RANGE_RULE,
        };
        let [_, num_sets, num_q_blocks, max_blocks] = self.selection.indices_shape(&self.shape);
        let (list, entry) = (place / (max_blocks + 1), (place % (max_blocks + 1)).saturating_sub(1));
        let (q_block, row) = (list % num_q_blocks, list / num_q_blocks);
        Err(Error::Blocks { batch: row / num_sets, set: row % num_sets, q_block, entry, value, rule })
    }
}
