//! A selection by operators: the tensors that go from one to the next lie in its memory.

use super::operator::bind_one;
use super::select::{SelectionArgs, SelectionMemory};
use super::{BlockScoreArgs, PoolArgs, TopKArgs};
use crate::plan::Dispatch;
use crate::{Context, DType, Layout, Pipeline, Result, SelectionPlan, SelectorStep, Step, TensorView, TensorViewMut};

/// One operator with its arguments bound; nothing where there is nothing to compute.
pub(super) fn bind_operator(
    ctx: &Context,
    plan: &SelectionPlan,
    index: usize,
    kernel: (&Pipeline, &Dispatch),
    (args, memory): (&SelectionArgs<'_>, SelectionMemory<'_>),
) -> Result<Option<Step>> {
    let place = |name| {
        let region = plan.region(name);
        let [batch, seq, heads, dim] = region.shape;
        let layout = Layout::seq_major(batch, seq, heads, dim);
        Layout { offset: region.offset_bytes / 4, ..layout }
    };
    let [summaries_buffer, scores_buffer] = [&memory.samples.buffer, &memory.scratch.buffer];
    let steps = match plan.operators[index] {
        SelectorStep::Pool { problem, summaries } => {
            let to = TensorViewMut::new(summaries_buffer, DType::F32, place(summaries));
            bind_one(ctx, &problem, PoolArgs::new(args.k, to).with_seq_lens(args.seq_lens_kv), kernel)
        }
        SelectorStep::Score { problem, summaries, scores } => {
            let from = TensorView::new(summaries_buffer, DType::F32, place(summaries));
            let to = TensorViewMut::new(scores_buffer, DType::F32, place(scores));
            bind_one(ctx, &problem, BlockScoreArgs::new(args.q, from, to).with_seq_lens_kv(args.seq_lens_kv), kernel)
        }
        SelectorStep::TopK { problem, scores } => {
            let from = TensorView::new(scores_buffer, DType::F32, place(scores));
            bind_one(ctx, &problem, TopKArgs::new(from, args.blocks).with_marks(args.marks), kernel)
        }
    };
    Ok(steps?.pop())
}
