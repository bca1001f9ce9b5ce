//! Measures a device's memory, arithmetic and latencies, with small attention calls and a small selection.

use std::time::Instant;

use super::wake::wake;
use crate::{
    AttentionPlan, AttentionProblem, AttentionShape, BlockListsView, Context, DType, DeviceSpeed, DispatchBudget, Hip,
    Layout, Result, Selection, SelectionArgs, SelectionPlan, SelectionProblem, TensorView, Tiling, Tuning, U32View,
};

/// Runs that take this long together give the time of one.
const ENOUGH_NS: f64 = 4e6;

/// Runs of one submission at the most.
const MOST_RUNS: u32 = 1024;

/// Head width.
const WIDTH: u32 = 64;

impl Context {
    /// Measures the device for [`Context::with_speed`], so that [`SelectionPlan::crossover`] and
    /// [`Engine::attend_sparse`](crate::Engine::attend_sparse) use the length from which selection pays there. Numbers have two digits.
    /// Another program on the device changes them, and so the crossover, and so which calls are dense: keep the measured numbers where
    /// results must be the same on every run.
    ///
    /// # Errors
    /// The errors of [`Attention::prepare`](crate::Attention::prepare), [`Attention::bind`](crate::Attention::bind),
    /// [`Selection::prepare`] and [`Selection::bind`].
    ///
    /// # Cost
    /// Compiles up to eight pipelines on a cache miss, allocates up to 260 MiB for a moment, submits, and waits: for some 100 ms when
    /// nothing is compiled, and before that, on hardware, until clocks have risen, at most 0.8 s.
    pub fn measure_speed_blocking(&self) -> Result<DeviceSpeed> {
        let ctx = &self.with_budget(DispatchBudget::UNLIMITED).with_tuning(Tuning::new());
        let most = ctx.caps().max_storage_binding_bytes.min(ctx.caps().max_buffer_bytes).min(128 << 20);
        // Eight heads, whose keys and values take this many bytes each. A software device is slow and has caches only.
        let most = if ctx.caps().software { most >> 5 } else { most };
        let long = (most / u64::from(8 * WIDTH * 4)) as u32; // at most 2^16
        let one_dispatch = |plan: &AttentionPlan, ns: f64| ns / plan.dispatches().len() as f64;

        let small = ctx.attention_of([1, 1, 64], DType::F32)?;
        let reading = ctx.attention_of([1, 8, long], DType::F32)?;
        let waking = ctx.bind_zeros(&reading)?;
        wake(ctx.caps(), || ctx.run_ns(16, |pass| waking.encode_in(pass)).map(|_| ()))?;
        drop(waking);
        let dispatch_ns = one_dispatch(&small, ctx.attention_ns(&small)?);
        let bytes_per_us = 1e3 * f64::from(2 * 8 * WIDTH * 4) * f64::from(long) / ctx.attention_ns(&reading)?;
        let rows = if ctx.caps().software { 64 } else { 2048 };
        let products = |dtype| -> Result<(bool, f64)> {
            let plan = ctx.attention_of([rows, 8, rows], dtype)?;
            let multiply_adds = f64::from(rows) * f64::from(rows) * f64::from(8 * 2 * WIDTH);
            Ok((plan.tier().matrix(), 1e3 * multiply_adds / ctx.attention_ns(&plan)?))
        };
        let (_, multiply_adds_per_us) = products(DType::F32)?;
        // One workgroup of the same kernel.
        let tiling = ctx.attention_of([rows, 8, rows], DType::F32)?.tiling();
        let one = AttentionProblem::new(shape_of([tiling.tile_q(), 1, rows]), DType::F32);
        let tier = ctx.caps().best_tier();
        let alone = AttentionPlan::with_tiling(&one, ctx.caps(), tier, Tiling { num_splits: 1, ..tiling })?;
        let multiply_adds = f64::from(tiling.tile_q()) * f64::from(rows) * f64::from(2 * WIDTH);
        let alone_ns = (ctx.attention_ns(&alone)? - dispatch_ns).max(1.0);
        let cores = multiply_adds_per_us * alone_ns / (1e3 * multiply_adds);
        let matrix_multiply_adds_per_us = match products(DType::F16)? {
            (true, matrices) => matrices,
            (false, _) => multiply_adds_per_us,
        };
        let shape = shape_of([1, 1, long.min(16384)]);
        let selection = SelectionPlan::new(&SelectionProblem::new(shape, DType::F32, Hip::default()), ctx.caps())?;
        let trips_only = DeviceSpeed {
            bytes_per_us: u64::MAX,
            multiply_adds_per_us: u64::MAX,
            matrix_multiply_adds_per_us: u64::MAX,
            trip_ns: 1000,
            dispatch_ns: 0,
            cores: 1,
        };
        let trips = selection.estimated_time(&trips_only).as_secs_f64() * 1e6;
        let dispatches = selection.dispatches().len() as f64 * dispatch_ns;
        // Most of a search's time is latency, even if the noise of the two measurements says otherwise.
        let searching = ctx.selection_ns(&selection)?;
        let trip_ns = (searching - dispatches).max(searching / 2.0) / trips;
        Ok(DeviceSpeed {
            bytes_per_us: two_digits(bytes_per_us),
            multiply_adds_per_us: two_digits(multiply_adds_per_us),
            matrix_multiply_adds_per_us: two_digits(matrix_multiply_adds_per_us),
            trip_ns: two_digits(trip_ns),
            dispatch_ns: two_digits(dispatch_ns),
            cores: two_digits(cores),
        })
    }

    fn attention_of(&self, sizes: [u32; 3], dtype: DType) -> Result<AttentionPlan> {
        AttentionPlan::new(&AttentionProblem::new(shape_of(sizes), dtype), self.caps())
    }

    fn attention_ns(&self, plan: &AttentionPlan) -> Result<f64> {
        let bound = self.bind_zeros(plan)?;
        self.ns_of(|pass| bound.encode_in(pass))
    }

    fn selection_ns(&self, plan: &SelectionPlan) -> Result<f64> {
        let (shape, dtype) = (plan.problem().shape(), plan.problem().dtype());
        let [batch, sets, q_blocks, entries] = plan.problem().blocks().indices_shape(shape);
        let lists = u64::from(batch) * u64::from(sets) * u64::from(q_blocks);
        let (q, k) = (self.zeros(shape.q(), dtype)?, self.zeros(shape.k(), dtype)?);
        // Words are as wide as f32.
        let words = |of_list| self.zeros([batch, sets, q_blocks, of_list], DType::F32);
        let (indices, counts) = (words(entries)?, words(1)?);
        let bound = Selection::prepare(self, plan)?.bind(SelectionArgs::new(
            TensorView::new(&q, dtype, layout(shape.q())),
            TensorView::new(&k, dtype, layout(shape.k())),
            BlockListsView {
                block_indices: U32View::new(&indices, 0, lists * u64::from(entries)),
                block_counts: U32View::new(&counts, 0, lists),
            },
        ))?;
        self.ns_of(|pass| bound.encode_step_in(pass, 0))
    }

    /// Nanoseconds of this many dependent runs, which are encoded before the clock starts.
    fn run_ns(&self, runs: u32, encode: impl Fn(&mut wgpu::ComputePass<'_>)) -> Result<f64> {
        let label = Some("wattn.measuring");
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label, timestamp_writes: None });
        (0..runs).for_each(|_| encode(&mut pass));
        drop(pass);
        let commands = self.scoped("measuring", || encoder.finish())?;
        let begin = Instant::now();
        self.scoped("measuring", || self.queue().submit([commands]))?;
        self.device().poll(wgpu::PollType::wait_indefinitely())?;
        Ok(begin.elapsed().as_secs_f64() * 1e9)
    }

    /// Nanoseconds of one run among dependent ones: from the difference in time between a number of runs that takes long enough and twice
    /// that number; the smallest of three.
    fn ns_of(&self, encode: impl Fn(&mut wgpu::ComputePass<'_>)) -> Result<f64> {
        let time = |runs: u32| self.run_ns(runs, &encode);
        time(1)?; // loads code into the device, clears buffers
        let mut runs = 1;
        while time(runs)? < ENOUGH_NS && runs < MOST_RUNS {
            runs *= 2;
        }
        let mut least = f64::INFINITY;
        for _ in 0..3 {
            let (once, twice) = (time(runs)?, time(2 * runs)?);
            // Other work on the machine makes runs slower, never faster; a negative difference says nothing.
            let one = (twice - once) / f64::from(runs);
            least = least.min(if one > 0.0 { one } else { twice / f64::from(2 * runs) });
        }
        Ok(least.max(1.0))
    }
}

/// Queries, heads and keys.
const fn shape_of([seq_len_q, num_heads, seq_len_kv]: [u32; 3]) -> AttentionShape {
    AttentionShape {
        batch_size: 1,
        seq_len_q,
        seq_len_kv,
        num_q_heads: num_heads,
        num_kv_heads: num_heads,
        head_dim: WIDTH,
        head_dim_v: WIDTH,
    }
}

const fn layout([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::seq_major(batch, seq, heads, dim)
}

/// A positive number rounded to two digits, which repeated measurements agree in.
fn two_digits(value: f64) -> u64 {
    let unit = 10f64.powf(value.max(1.0).log10().floor() - 1.0).max(1.0);
    // Saturates.
    ((value / unit).round() * unit).max(1.0) as u64
}
