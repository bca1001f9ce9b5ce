//! Measures the speed of a device with small attention calls, well enough to bound the work of one dispatch.

use std::time::{Duration, Instant};

use super::wake::wake;
use crate::{
    Attention, AttentionArgs, AttentionPlan, AttentionProblem, AttentionShape, BoundAttention, Context, DType,
    DispatchBudget, Layout, Result, TensorView, TensorViewMut, Tiling, Tuning,
};

/// Target time of a dispatch: half the limit, since the estimate may be wrong by a factor of two.
const TARGET: Duration = Duration::from_millis(100);

/// Target time of a workgroup that has the device to itself. With as many others beside it as a core holds, it is up to about four
/// times as slow.
const WORKGROUP_TARGET: Duration = Duration::from_millis(25);

/// A measurement this long is precise: the cost of a submission is small beside it.
const ENOUGH: Duration = Duration::from_millis(6);

/// Each measurement stops growing its load after this long.
const AT_MOST: Duration = Duration::from_millis(15);

/// Head width: wide enough for whole loads, narrow enough to compile fast.
const WIDTH: u32 = 64;

impl Context {
    /// Measures what the device computes in 100 ms, for [`Context::with_budget`]. Another program on the device makes the budget smaller,
    /// which costs little; results never depend on it.
    ///
    /// # Errors
    /// The errors of [`Attention::prepare`] and [`Attention::bind`].
    ///
    /// # Cost
    /// Compiles three pipelines on a cache miss, allocates up to 64 MiB for a moment, submits, and waits: for some 50 ms when nothing is
    /// compiled, and before that, on hardware, until clocks have risen, at most 0.8 s.
    pub fn calibrate_blocking(&self) -> Result<DispatchBudget> {
        let ctx = &self.with_budget(DispatchBudget::UNLIMITED).with_tuning(Tuning::new());
        // Many rows against few keys: products. One row against many: memory. One workgroup: the speed of a core.
        let whole = |tiling| Tiling { num_splits: 1, ..tiling };
        let mut prefill = Load::new([64, 8], [64, 4096]);
        let rows = whole(ctx.tiling(&prefill)?);
        let waking = Load { batch_size: 8, seq_len_kv: prefill.most_keys, ..Load::new([64, 8], [64, 4096]) };
        wake(ctx.caps(), || ctx.run(&waking, rows).map(|_| ()))?;
        let prefill = ctx.rate(&mut prefill, rows)?;
        let mut decode = Load::new([1, 8], [512, 16384]);
        let splits = ctx.tiling(&decode)?;
        let decode = ctx.rate(&mut decode, splits)?;
        let alone = ctx.rate(&mut Load::new([rows.tile_q(), 1], [512, 16384]), rows)?;
        let dispatch = operations_in(prefill.min(decode), TARGET);
        Ok(DispatchBudget::measured(dispatch, operations_in(alone, WORKGROUP_TARGET)))
    }

    /// The tiling of the largest load. Every load uses it, so that all run the same pipelines.
    fn tiling(&self, load: &Load) -> Result<Tiling> {
        Ok(AttentionPlan::new(&load.problem_of(1, load.most_keys), self.caps())?.tiling())
    }

    /// Operations a second: the best rate of a load that grows until it takes long enough.
    fn rate(&self, load: &mut Load, tiling: Tiling) -> Result<f64> {
        // The first run loads code into the device, and on some devices compiles it.
        self.run(load, tiling)?;
        let begin = Instant::now();
        let mut rate = 0.0f64;
        loop {
            let (operations, seconds) = self.run(load, tiling)?;
            // Other work on the machine makes runs slower, never faster.
            rate = rate.max(operations / seconds);
            if seconds >= ENOUGH.as_secs_f64() || begin.elapsed() >= AT_MOST || !load.grow() {
                return Ok(rate);
            }
        }
    }

    /// Operations of one run, and the seconds it took.
    fn run(&self, load: &Load, tiling: Tiling) -> Result<(f64, f64)> {
        let problem = load.problem_of(load.batch_size, load.seq_len_kv);
        let plan = AttentionPlan::with_tiling(&problem, self.caps(), self.caps().best_tier(), tiling)?;
        let bound = self.bind_zeros(&plan)?;
        // Uploads and cleared buffers are finished first.
        self.queue().submit([]);
        self.device().poll(wgpu::PollType::wait_indefinitely())?;
        let begin = Instant::now();
        self.scoped("calibrating", || bound.submit(self))?;
        self.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok((plan.operations() as f64, begin.elapsed().as_secs_f64()))
    }

    /// Attention by this plan over buffers of zeros (wgpu clears new buffers). All sequences read the same tensors.
    pub(crate) fn bind_zeros(&self, plan: &AttentionPlan) -> Result<BoundAttention> {
        let (shape, dtype) = (plan.problem().shape(), plan.problem().dtype());
        let one = |[_, seq, heads, dim]: [u32; 4]| self.zeros([1, seq, heads, dim], dtype);
        let (q, k, v) = (one(shape.q())?, one(shape.k())?, one(shape.v())?);
        let out = self.zeros(shape.out(), dtype)?;
        let layout = |[batch, seq, heads, dim]: [u32; 4]| {
            let mut layout = Layout::seq_major(batch, seq, heads, dim);
            layout.strides[0] = 0;
            layout
        };
        let [batch, seq, heads, dim] = shape.out();
        Attention::prepare(self, plan)?.bind(AttentionArgs::new(
            TensorView::new(&q, dtype, layout(shape.q())),
            TensorView::new(&k, dtype, layout(shape.k())),
            TensorView::new(&v, dtype, layout(shape.v())),
            TensorViewMut::new(&out, dtype, Layout::seq_major(batch, seq, heads, dim)),
        ))
    }

    /// A tensor of zeros.
    pub(crate) fn zeros(&self, shape: [u32; 4], dtype: DType) -> Result<wgpu::Buffer> {
        let elements: u64 = shape.into_iter().map(u64::from).product();
        self.scoped("measuring", || {
            self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("wattn.measuring"),
                size: elements * dtype.size_bytes(),
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        })
    }
}

fn operations_in(rate: f64, time: Duration) -> u64 {
    // Saturates.
    (rate * time.as_secs_f64()) as u64
}

/// Queries of one head width against keys that all sequences share.
struct Load {
    seq_len_q: u32,
    num_heads: u32,
    seq_len_kv: u32,
    most_keys: u32,
    batch_size: u32,
}

impl Load {
    /// Limit on sequences: 16 MiB of out for 64 queries of 8 heads.
    const MOST_BATCHES: u32 = 128;

    fn new([seq_len_q, num_heads]: [u32; 2], [seq_len_kv, most_keys]: [u32; 2]) -> Self {
        Self { seq_len_q, num_heads, seq_len_kv, most_keys, batch_size: 1 }
    }

    fn problem_of(&self, batch_size: u32, seq_len_kv: u32) -> AttentionProblem {
        let shape = AttentionShape {
            batch_size,
            seq_len_q: self.seq_len_q,
            seq_len_kv,
            num_q_heads: self.num_heads,
            num_kv_heads: self.num_heads,
            head_dim: WIDTH,
            head_dim_v: WIDTH,
        };
        AttentionProblem::new(shape, DType::F32)
    }

    /// Doubles the keys, then the sequences. False when both are at their limits.
    fn grow(&mut self) -> bool {
        if self.seq_len_kv < self.most_keys {
            self.seq_len_kv *= 2;
        } else if self.batch_size < Self::MOST_BATCHES && self.num_heads > 1 {
            self.batch_size *= 2;
        } else {
            return false;
        }
        true
    }
}
