//! Selection over tensors in host memory, in one call.

use super::{BlockListBuffers, Selection, SelectionArgs, U32View};
use crate::{
    Context, Element, HostBlockLists, HostTensor, Layout, Mark, Pending, Result, SelectionInputs, SelectionPlan,
    SelectionProblem, TensorView,
};

impl Context {
    /// Selects blocks over tensors in host memory.
    ///
    /// # Errors
    /// The errors of [`SelectionInputs::validate`], [`SelectionPlan::new`], [`Selection::bind`] and [`Context::read`].
    ///
    /// # Cost
    /// Compiles on a cache miss, allocates all buffers, submits, and reads back.
    pub fn select<T: Element>(
        &self,
        problem: &SelectionProblem,
        inputs: &SelectionInputs<'_, T>,
    ) -> Pending<'static, Result<HostBlockLists>> {
        Pending::begun(self.start_selection(problem, inputs).map(|lists| lists.read(self)))
    }

    /// Uploads, encodes and submits; the lists stay on the device.
    fn start_selection<T: Element>(
        &self,
        problem: &SelectionProblem,
        inputs: &SelectionInputs<'_, T>,
    ) -> Result<BlockListBuffers> {
        inputs.validate(problem)?;
        let tier = SelectionPlan::best_tier(problem, self.caps());
        let mut problem = problem.clone();
        if inputs.seq_lens_kv.is_some() {
            problem = problem.with_seq_lens_kv();
        }
        let plan = SelectionPlan::with_tier(&problem, self.caps(), tier)?;
        let selection = Selection::prepare(self, &plan)?;
        let lists = BlockListBuffers::new(self, &problem.blocks(), problem.shape())?;
        let upload = |label, tensor: &HostTensor<T>| self.upload_checked(label, bytemuck::cast_slice(tensor.data()));
        let (q, k) = (upload("wattn.q", inputs.q)?, upload("wattn.k", inputs.k)?);
        let lens = inputs.seq_lens_kv.map(|lens| self.upload_u32("wattn.seq_lens_kv", lens)).transpose()?;
        let marks = inputs.marks.map(|marks| upload_marks(self, marks)).transpose()?;
        let view = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            TensorView::new(buffer, problem.dtype(), Layout::seq_major(batch, seq, heads, dim))
        };
        let shape = problem.shape();
        let bound = selection.bind(
            SelectionArgs::new(view(&q, problem.q_shape()), view(&k, problem.k_shape()), lists.view())
                .with_seq_lens_kv(lens.as_ref().map(|buffer| U32View::new(buffer, 0, shape.batch_size.into())))
                .with_marks(marks.as_ref().map(|(buffer, len)| U32View::new(buffer, 0, *len))),
        )?;
        self.scoped("submitting a selection", || bound.submit(self))?;
        Ok(lists)
    }
}

/// The marks in a buffer, and how many they are. No buffer is empty.
fn upload_marks(ctx: &Context, marks: &[Mark]) -> Result<(wgpu::Buffer, u64)> {
    let mut words: Vec<u32> = marks.iter().map(|&mark| mark as u32).collect();
    words.resize(words.len().max(1), Mark::Free as u32);
    Ok((ctx.upload_u32("wattn.marks", &words)?, marks.len() as u64))
}
