//! The parts of a case on a device, with everything bound beforehand.

use super::clock::{Clock, Elapsed, Stamps, read_words};
use super::inputs::Tensors;
use super::run::{PartPlan, Run};
use super::samples::quantile;
use super::{Case, Part};
use crate::{
    Attention, AttentionArgs, AttentionOutput, AttentionPlan, AttentionProblem, BoundAttention, BoundSelection,
    Context, DType, Element, Error, HostBlocks, HostTensor, Layout, Result, SelectedBlocks, Selection, SelectionArgs,
    SelectionPlan, SelectionProblem, TensorView, TensorViewMut, Tier, Tiling, U32View,
};

/// Times that encoding is measured, of which the middle one is taken.
const ENCODINGS: usize = 15;

#[derive(Debug)]
pub(super) struct GpuRun {
    clock: Clock,
    cycle: u32,
    dense: Attending,
    sparse: Option<Sparse>,
}

#[derive(Debug)]
struct Sparse {
    plan: SelectionPlan,
    selection: BoundSelection,
    attending: Attending,
    lists_shape: [u32; 4],
    lists: [wgpu::Buffer; 2],
}

/// Attention bound to its output.
#[derive(Debug)]
struct Attending {
    plan: AttentionPlan,
    bound: BoundAttention,
    out: wgpu::Buffer,
    lse: wgpu::Buffer,
}

impl GpuRun {
    pub(super) fn new(
        ctx: &Context,
        tier: Option<Tier>,
        stamps: Stamps,
        case: &Case,
        tensors: &Tensors,
    ) -> Result<Self> {
        let shape = case.problem().shape();
        // Plans first: a problem that does not fit the device must not reach its memory.
        let plan = attention_plan(ctx, tier, case.problem())?;
        let inputs = tensors.inputs();
        let dtype = case.problem().dtype();
        let upload = |label, tensor: &HostTensor| {
            let bytes = stored(tensor, dtype);
            let available = ctx.caps().max_buffer_bytes;
            if bytes.len() as u64 > available {
                return Err(Error::Limit { limit: "max_buffer_size", needed: bytes.len() as u64, available });
            }
            ctx.scoped("uploading inputs", || ctx.upload(label, &bytes, wgpu::BufferUsages::STORAGE))
        };
        let q = upload("wattn.bench.q", inputs.q)?;
        let k = upload("wattn.bench.k", &heads_outermost(inputs.k)?)?;
        let v = upload("wattn.bench.v", &heads_outermost(inputs.v)?)?;
        let views = [
            TensorView::new(&q, dtype, seq_major(shape.q())),
            TensorView::new(&k, dtype, head_major(shape.k())),
            TensorView::new(&v, dtype, head_major(shape.v())),
        ];
        let sparse = case.selection().zip(case.sparse_problem()).map(|(selection, problem)| {
            let tier_of_selection = tier.unwrap_or_else(|| SelectionPlan::best_tier(selection, ctx.caps()));
            let selection = SelectionPlan::with_tier(selection, ctx.caps(), tier_of_selection)?;
            Sparse::new(ctx, selection, attention_plan(ctx, tier, &problem)?, views)
        });
        Ok(Self {
            clock: Clock::new(ctx, stamps)?,
            cycle: case.cycle(),
            dense: Attending::new(ctx, plan, views, None)?,
            sparse: sparse.transpose()?,
        })
    }

    fn sparse(&self) -> Result<&Sparse> {
        self.sparse.as_ref().ok_or(Error::Argument { argument: "part", rule: "the case has no selection" })
    }

    /// One call of a part.
    fn encode(&self, part: Part, pass: &mut wgpu::ComputePass<'_>) {
        let Some(sparse) = &self.sparse else { return self.dense.bound.encode_in(pass) };
        match part {
            Part::Dense => self.dense.bound.encode_in(pass),
            Part::Select => sparse.selection.encode_step_in(pass, 0),
            Part::Attend => sparse.attending.bound.encode_in(pass),
            Part::Sparse => sparse.encode_step(pass, 0),
            Part::Step => (0..self.cycle).for_each(|step| sparse.encode_step(pass, step.into())),
        }
    }
}

impl Run for GpuRun {
    fn run(&mut self, part: Part, calls: u32) -> Result<Elapsed> {
        if part != Part::Dense {
            self.sparse()?;
        }
        self.clock.time(|pass| (0..calls).for_each(|_| self.encode(part, pass)))
    }

    fn output(&mut self, part: Part) -> Result<AttentionOutput> {
        let attending = if part == Part::Dense { &self.dense } else { &self.sparse()?.attending };
        attending.read(self.clock.context())
    }

    fn blocks(&mut self) -> Result<HostBlocks> {
        let sparse = self.sparse()?;
        let [indices, counts] = sparse.lists.each_ref().map(|list| read_words(self.clock.context(), list));
        HostBlocks::new(sparse.lists_shape, indices?, counts?)
    }

    fn plan(&self, part: Part) -> Result<PartPlan> {
        let attend = |plan: &AttentionPlan| PartPlan {
            tier: Some(plan.tier().to_string()),
            tiling: Some(tiling_name(plan.tiling())),
            dispatches: plan.dispatches().len() as f64,
            workspace_bytes: plan.workspace_bytes(),
        };
        let select = |sparse: &Sparse| PartPlan {
            tier: Some(sparse.plan.tier().to_string()),
            tiling: None,
            dispatches: sparse.plan.num_dispatches(0) as f64,
            workspace_bytes: sparse.plan.samples_bytes() + sparse.plan.scratch_bytes() + sparse.plan.cache_bytes(),
        };
        Ok(match part {
            Part::Dense => attend(&self.dense.plan),
            Part::Select => select(self.sparse()?),
            Part::Attend => attend(&self.sparse()?.attending.plan),
            Part::Sparse | Part::Step => {
                let sparse = self.sparse()?;
                let mut both = attend(&sparse.attending.plan);
                let steps = if part == Part::Step { self.cycle } else { 1 };
                let selecting: usize = (0..steps).map(|step| sparse.plan.num_dispatches(step.into())).sum();
                both.dispatches += selecting as f64 / f64::from(steps);
                both.workspace_bytes += select(sparse).workspace_bytes;
                both
            }
        })
    }

    fn encode_seconds(&mut self, part: Part) -> Result<Option<f64>> {
        let mut seconds = Vec::with_capacity(ENCODINGS);
        for _ in 0..ENCODINGS {
            seconds.push(self.clock.time_encoding(|pass| self.encode(part, pass))?);
        }
        seconds.sort_by(f64::total_cmp);
        let calls = if part == Part::Step { self.cycle } else { 1 };
        Ok(Some(quantile(&seconds, 0.5) / f64::from(calls)))
    }
}

impl Sparse {
    fn new(ctx: &Context, plan: SelectionPlan, attention: AttentionPlan, views: [TensorView<'_>; 3]) -> Result<Self> {
        let selection: &SelectionProblem = plan.problem();
        let lists_shape = selection.blocks().indices_shape(selection.shape());
        let num_lists = selection.blocks().num_lists(selection.shape());
        let lens = [num_lists * u64::from(lists_shape[3]), num_lists];
        let [indices, counts] = lens.map(|len| output(ctx, "wattn.bench.lists", 4 * len));
        let lists = [indices?, counts?];
        let blocks = SelectedBlocks {
            block_indices: U32View::new(&lists[0], 0, lens[0]),
            block_counts: U32View::new(&lists[1], 0, lens[1]),
        };
        let [q, k, _] = views;
        let args = SelectionArgs { q, k, seq_lens_kv: None, blocks };
        let selection = Selection::prepare(ctx, &plan)?.bind(args)?;
        let attending = Attending::new(ctx, attention, views, Some(blocks))?;
        Ok(Self { plan, selection, attending, lists_shape, lists })
    }

    fn encode_step(&self, pass: &mut wgpu::ComputePass<'_>, step: u64) {
        self.selection.encode_step_in(pass, step);
        self.attending.bound.encode_in(pass);
    }
}

impl Attending {
    fn new(
        ctx: &Context,
        plan: AttentionPlan,
        [q, k, v]: [TensorView<'_>; 3],
        blocks: Option<SelectedBlocks<'_>>,
    ) -> Result<Self> {
        let (shape, out_dtype) = (*plan.problem().shape(), plan.problem().stored_out_dtype());
        let elements = |shape| seq_major(shape).num_elements();
        let out = output(ctx, "wattn.bench.out", elements(shape.out()) * out_dtype.size_bytes())?;
        let lse = output(ctx, "wattn.bench.lse", elements(shape.lse()) * 4)?;
        let args = AttentionArgs {
            q,
            k,
            v,
            seq_lens_kv: None,
            blocks,
            out: TensorViewMut::new(&out, out_dtype, seq_major(shape.out())),
            lse: Some(TensorViewMut::new(&lse, DType::F32, seq_major(shape.lse()))),
        };
        let bound = Attention::prepare(ctx, &plan)?.bind(args)?;
        Ok(Self { plan, bound, out, lse })
    }

    fn read(&self, ctx: &Context) -> Result<AttentionOutput> {
        let problem = self.plan.problem();
        let (shape, dtype) = (problem.shape(), problem.stored_out_dtype());
        let view = TensorView::new(&self.out, dtype, seq_major(shape.out()));
        let out = match dtype {
            DType::F32 => ctx.read_blocking::<f32>(view)?,
            DType::F16 => widened(&ctx.read_blocking::<half::f16>(view)?)?,
            DType::BF16 => widened(&ctx.read_blocking::<half::bf16>(view)?)?,
        };
        let lse = ctx.read_blocking::<f32>(TensorView::new(&self.lse, DType::F32, seq_major(shape.lse())))?;
        Ok(AttentionOutput { out, lse })
    }
}

fn attention_plan(ctx: &Context, tier: Option<Tier>, problem: &AttentionProblem) -> Result<AttentionPlan> {
    let tier = tier.unwrap_or_else(|| AttentionPlan::best_tier(problem, ctx.caps()));
    AttentionPlan::with_tier(problem, ctx.caps(), tier)
}

fn output(ctx: &Context, label: &'static str, bytes: u64) -> Result<wgpu::Buffer> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let size = bytes.next_multiple_of(4);
    let (label, mapped_at_creation) = (Some(label), false);
    ctx.scoped("creating outputs", || {
        ctx.device().create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
    })
}

fn widened<T: Element>(tensor: &HostTensor<T>) -> Result<HostTensor> {
    HostTensor::new(tensor.shape(), tensor.data().iter().map(|&x| x.to_f32()).collect())
}

/// The elements as bytes of a type, which holds them exactly.
fn stored(tensor: &HostTensor, dtype: DType) -> Vec<u8> {
    fn bytes<T: Element>(data: &[f32]) -> Vec<u8> {
        bytemuck::cast_slice(&data.iter().map(|&x| T::from_f32(x)).collect::<Vec<T>>()).to_vec()
    }
    match dtype {
        DType::F32 => bytemuck::cast_slice(tensor.data()).to_vec(),
        DType::F16 => bytes::<half::f16>(tensor.data()),
        DType::BF16 => bytes::<half::bf16>(tensor.data()),
    }
}

/// The same tensor as KV caches hold it, in ours and in ONNX Runtime: `[batch, head, seq, dim]` in memory.
fn heads_outermost(tensor: &HostTensor) -> Result<HostTensor> {
    let [batch, seq, heads, _] = tensor.shape();
    let rows = (0..batch as usize)
        .flat_map(|b| (0..heads as usize).flat_map(move |h| (0..seq as usize).flat_map(move |s| tensor.row(b, s, h))));
    HostTensor::new(tensor.shape(), rows.copied().collect())
}

fn head_major([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::head_major(batch, seq, heads, dim)
}

fn seq_major([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::seq_major(batch, seq, heads, dim)
}

fn tiling_name(tiling: Tiling) -> String {
    let Tiling { lanes, rows, keys, groups, num_splits, .. } = tiling;
    format!("{lanes} lanes x {rows} rows x {keys} keys x {groups} groups, {num_splits} splits")
}
