//! The calls of [`Runs`] on a device, with everything in its buffers.

use std::rc::Rc;
use std::time::{Duration, Instant};

use wattn::{
    Attention, AttentionArgs, AttentionOutput, AttentionPlan, AttentionProblem, BoundAttention, BoundSelection,
    Context, DType, HostBlocks, HostInputs, HostTensor, SelectedBlocks, Selection, SelectionArgs, SelectionPlan,
    TensorView, TensorViewMut, U32View,
};
use wgpu::util::DeviceExt as _;

use super::sparse::{Runs, SparseCase};
use super::{device_name, seq_major};

impl<'a> Runs<'a> {
    /// The calls on a device; each is one submission. There is one KV head, so that k and v lie as caches hold them.
    pub fn on_gpu(ctx: &Context, case: &SparseCase, inputs: &HostInputs<'_>) -> Self {
        let device = Rc::new(OnDevice::new(ctx, case, inputs));
        device.submit(|encoder| device.selection.encode(encoder));
        device.submit(|encoder| device.sparse.bound.encode(encoder));
        let [dense, select, attend, both, results] = core::array::from_fn(|_| Rc::clone(&device));
        Self {
            device: device_name(ctx),
            case: case.clone(),
            dense: Box::new(move || dense.submit(|encoder| dense.dense.bound.encode(encoder))),
            select: Box::new(move |step| select.submit(|encoder| select.selection.encode_step(encoder, step))),
            attend: Box::new(move || attend.submit(|encoder| attend.sparse.bound.encode(encoder))),
            both: Box::new(move |step| {
                both.submit(|encoder| {
                    both.selection.encode_step(encoder, step);
                    both.sparse.bound.encode(encoder);
                })
            }),
            results: Box::new(move || {
                results.submit(|encoder| results.dense.bound.encode(encoder));
                (results.dense.read(&results.ctx), results.blocks(), results.sparse.read(&results.ctx))
            }),
        }
    }
}

/// Both kinds of attention and the selection, bound.
struct OnDevice {
    ctx: Context,
    dense: Attending,
    sparse: Attending,
    selection: BoundSelection,
    lists_shape: [u32; 4],
    lists: [wgpu::Buffer; 2],
}

impl OnDevice {
    fn new(ctx: &Context, case: &SparseCase, inputs: &HostInputs<'_>) -> Self {
        let shape = case.selection.shape();
        let upload = |tensor: &HostTensor| {
            let contents = bytemuck::cast_slice(tensor.data());
            let usage = wgpu::BufferUsages::STORAGE;
            ctx.device().create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
        };
        let [q, k, v] = [inputs.q, inputs.k, inputs.v].map(upload);
        let lists_shape = case.selection.blocks().indices_shape(shape);
        let lists = lens(lists_shape).map(|len| output(ctx, len));
        let blocks = SelectedBlocks {
            block_indices: U32View::new(&lists[0], 0, lens(lists_shape)[0]),
            block_counts: U32View::new(&lists[1], 0, lens(lists_shape)[1]),
        };
        let [q, k, v] = [(&q, shape.q()), (&k, shape.k()), (&v, shape.v())].map(|(buffer, shape)| view(buffer, shape));
        let plan = SelectionPlan::new(&case.selection, ctx.caps()).expect("the problem fits the device");
        let selection = Selection::prepare(ctx, &plan).expect("the plan was made for this device");
        let selection = selection.bind(SelectionArgs { q, k, seq_lens_kv: None, blocks }).expect("the buffers fit");
        Self {
            dense: Attending::new(ctx, &case.dense(), [q, k, v], None),
            sparse: Attending::new(ctx, &case.sparse(), [q, k, v], Some(blocks)),
            ctx: ctx.clone(),
            selection,
            lists_shape,
            lists,
        }
    }

    /// Runs once and waits.
    fn submit(&self, encode: impl FnOnce(&mut wgpu::CommandEncoder)) -> Duration {
        let begin = Instant::now();
        let mut encoder = self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(&mut encoder);
        self.ctx.queue().submit([encoder.finish()]);
        self.ctx.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
        begin.elapsed()
    }

    /// The lists, which travel as f32 of the same bits.
    fn blocks(&self) -> HostBlocks {
        let [indices, counts] = core::array::from_fn(|n| {
            let shape = [1, 1, 1, (self.lists[n].size() / 4) as u32];
            let words = self.ctx.read_blocking::<f32>(view(&self.lists[n], shape)).expect("the buffer can be read");
            words.into_data().into_iter().map(f32::to_bits).collect()
        });
        HostBlocks::new(self.lists_shape, indices, counts).expect("as many words as the shape says")
    }
}

/// Attention bound to its output.
struct Attending {
    bound: BoundAttention,
    problem: AttentionProblem,
    out: wgpu::Buffer,
    lse: wgpu::Buffer,
}

impl Attending {
    fn new(
        ctx: &Context,
        problem: &AttentionProblem,
        [q, k, v]: [TensorView<'_>; 3],
        blocks: Option<SelectedBlocks<'_>>,
    ) -> Self {
        let plan = AttentionPlan::new(problem, ctx.caps()).expect("the problem fits the device");
        let shape = problem.shape();
        let [out, lse] =
            [shape.out(), shape.lse()].map(|shape| output(ctx, shape.iter().map(|&n| u64::from(n)).product()));
        let attention = Attention::prepare(ctx, &plan).expect("the plan was made for this device");
        let args = AttentionArgs {
            q,
            k,
            v,
            seq_lens_kv: None,
            blocks,
            out: TensorViewMut::new(&out, DType::F32, seq_major(shape.out())),
            lse: Some(TensorViewMut::new(&lse, DType::F32, seq_major(shape.lse()))),
        };
        let bound = attention.bind(args).expect("the buffers fit the plan");
        Self { bound, problem: problem.clone(), out, lse }
    }

    fn read(&self, ctx: &Context) -> AttentionOutput {
        let shape = self.problem.shape();
        let read = |buffer, shape| ctx.read_blocking(view(buffer, shape)).expect("the buffer can be read");
        AttentionOutput { out: read(&self.out, shape.out()), lse: read(&self.lse, shape.lse()) }
    }
}

fn view(buffer: &wgpu::Buffer, shape: [u32; 4]) -> TensorView<'_> {
    TensorView::new(buffer, DType::F32, seq_major(shape))
}

fn output(ctx: &Context, words: u64) -> wgpu::Buffer {
    let (size, usage) = (words * 4, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
    ctx.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

/// Words of `block_indices` and `block_counts`.
fn lens([batch_size, sets, q_blocks, max_blocks]: [u32; 4]) -> [u64; 2] {
    let lists = u64::from(batch_size) * u64::from(sets) * u64::from(q_blocks);
    [lists * u64::from(max_blocks), lists]
}
