//! A selection with its tensors in buffers, and the results of its kernels' twins.

use wattn::cpu::twins;
use wattn::{
    BlockListsView, BoundSelection, Context, Element, HostBlockLists, Selection, SelectionArgs, SelectionMemory,
    SelectionMethod, SelectionPlan, TensorView, U32View, Workspace,
};

use super::gpu::{buffer, packed, read_words, submit};
use super::select::SelectCase;

/// A case with its tensors in buffers, bound once.
pub struct Bound {
    pub bound: BoundSelection,
    pub shape: [u32; 4],
    pub k: wgpu::Buffer,
    pub lens: Option<wgpu::Buffer>,
    pub indices: wgpu::Buffer,
    pub counts: wgpu::Buffer,
    pub samples: wgpu::Buffer,
    pub scratch: wgpu::Buffer,
    pub cache: wgpu::Buffer,
}

impl Bound {
    pub fn new<T: Element>(ctx: &Context, plan: &SelectionPlan, case: &SelectCase<T>) -> Self {
        let (problem, words) = (plan.problem(), |bytes: u64| vec![7u32; (bytes / 4).max(64) as usize]);
        let shape = problem.blocks().indices_shape(problem.shape());
        let lists: u32 = shape[..3].iter().product();
        let (q, k) = (buffer(ctx, case.q.data()), buffer(ctx, case.k.data()));
        let lens = case.seq_lens_kv.as_ref().map(|lens| buffer(ctx, lens));
        // Earlier contents of the memory must have no effect.
        let (indices, counts) =
            (buffer(ctx, &vec![7u32; (lists * shape[3]) as usize]), buffer(ctx, &vec![7u32; lists as usize]));
        let [samples, scratch, cache] =
            [plan.samples_bytes(), plan.scratch_bytes(), plan.cache_bytes()].map(|bytes| buffer(ctx, &words(bytes)));
        let workspace = |buffer: &wgpu::Buffer| Workspace::from_buffer(buffer.clone()).unwrap();
        let view = |buffer, shape| TensorView::new(buffer, T::DTYPE, packed(shape));
        let args = SelectionArgs::new(
            view(&q, problem.q_shape()),
            view(&k, problem.k_shape()),
            BlockListsView::new(
                U32View::new(&indices, 0, (lists * shape[3]).into()),
                U32View::new(&counts, 0, lists.into()),
            ),
        )
        .with_seq_lens_kv(lens.as_ref().map(|lens| U32View::new(lens, 0, problem.shape().batch_size.into())));
        let spaces = [&samples, &scratch, &cache].map(workspace);
        let memory = SelectionMemory::new(&spaces[0], &spaces[1], &spaces[2]);
        let bound = Selection::prepare(ctx, plan).unwrap().bind_with(args, memory).unwrap();
        Self { bound, shape, k, lens, indices, counts, samples, scratch, cache }
    }

    pub fn lists(&self, ctx: &Context) -> HostBlockLists {
        HostBlockLists::new(self.shape, read_words(ctx, &self.indices), read_words(ctx, &self.counts)).unwrap()
    }

    pub fn run(&self, ctx: &Context, step: u64) -> HostBlockLists {
        submit(ctx, |encoder| self.bound.encode_step(encoder, step));
        self.lists(ctx)
    }
}

/// The results of the twins of a plan's kernels.
pub fn run_twins<T: Element>(plan: &SelectionPlan, case: &SelectCase<T>) -> HostBlockLists {
    match plan.problem().method() {
        SelectionMethod::Hip(_) => twins::search_tree(plan, &case.inputs()).unwrap(),
        _ => twins::select_stages(plan, &case.inputs()).unwrap().0,
    }
}
