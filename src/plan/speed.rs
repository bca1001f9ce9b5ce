//! Estimated times of plans on a device, from the speed of its memory and arithmetic, and its latencies.

use core::time::Duration;

use super::attend::rows::RowSets;
use super::{AttentionPlan, Candidates, SelectStep, SelectionPlan, Sharing, StagePlan};
use crate::{Hip, SelectorStep};

/// A GPU in six numbers, measured by [`Context::measure_speed_blocking`](crate::Context::measure_speed_blocking). They decide which
/// of two ways is faster ([`SelectionPlan::crossover`]); no kernel and no tiling depends on them, so that bits never depend on a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "bench", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DeviceSpeed {
    /// Bytes that all cores together read from memory in a microsecond.
    pub bytes_per_us: u64,
    /// Multiply-adds of attention over many rows in a microsecond.
    pub multiply_adds_per_us: u64,
    /// The same where matrices are multiplied in hardware.
    pub matrix_multiply_adds_per_us: u64,
    /// Nanoseconds from a load to the next one that depends on it, with the arithmetic between them.
    pub trip_ns: u64,
    /// Nanoseconds of a small dispatch that depends on the dispatch before it.
    pub dispatch_ns: u64,
    /// Number of cores: large workgroups that run at the same time. Fewer workgroups leave cores idle, and one more takes as long as all.
    pub cores: u64,
}

crate::setters::setters!(DeviceSpeed {
    with_bytes_per_us(bytes_per_us: u64)
    with_multiply_adds_per_us(multiply_adds_per_us: u64)
    with_matrix_multiply_adds_per_us(matrix_multiply_adds_per_us: u64)
    with_trip_ns(trip_ns: u64)
    with_dispatch_ns(dispatch_ns: u64)
    with_cores(cores: u64)
});

impl DeviceSpeed {
    /// An H100, as measured: see [`docs::performance`](crate::docs::performance).
    pub const H100: Self = Self {
        bytes_per_us: 3_000_000,
        multiply_adds_per_us: 8_300_000,
        matrix_multiply_adds_per_us: 66_000_000,
        trip_ns: 650,
        dispatch_ns: 2200,
        cores: 132,
    };

    /// A GPU with memory of its own, between large ones and small ones.
    pub(crate) const DISCRETE: Self = Self {
        bytes_per_us: 500_000,
        multiply_adds_per_us: 4_000_000,
        matrix_multiply_adds_per_us: 16_000_000,
        trip_ns: 700,
        dispatch_ns: 4000,
        cores: 48,
    };

    /// A GPU that shares the memory of a processor.
    pub(crate) const INTEGRATED: Self = Self {
        bytes_per_us: 80_000,
        multiply_adds_per_us: 500_000,
        matrix_multiply_adds_per_us: 1_000_000,
        trip_ns: 800,
        dispatch_ns: 10_000,
        cores: 12,
    };

    /// The assumed speed of a device before it is measured; `None` for software devices, whose crossovers were measured.
    pub(crate) const fn of_kind(kind: wgpu::DeviceType) -> Option<Self> {
        match kind {
            wgpu::DeviceType::Cpu => None,
            wgpu::DeviceType::DiscreteGpu => Some(Self::DISCRETE),
            wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => {
                Some(Self::INTEGRATED)
            }
        }
    }

    /// Time of work without dependent steps, spread evenly over this many workgroups.
    fn work_ns(&self, work: Work, workgroups: u64, matrices: bool) -> f64 {
        let products = if matrices { self.matrix_multiply_adds_per_us } else { self.multiply_adds_per_us };
        let (workgroups, cores) = (workgroups.max(1), self.cores.max(1));
        // The last wave takes as long as a full one.
        let waves = (workgroups.div_ceil(cores) * cores) as f64 / workgroups as f64;
        // A quarter of the cores reads as fast as all of them.
        let idle = f64::max(cores.div_ceil(4) as f64 / workgroups as f64, 1.0);
        let of = |amount: f64, per_us: u64| 1000.0 * amount / per_us.max(1) as f64;
        f64::max(idle * of(work.bytes, self.bytes_per_us), waves * of(work.multiply_adds, products))
    }
}

impl core::fmt::Display for DeviceSpeed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // A multiply-add is two operations.
        let [read, plain, matrices] =
            [self.bytes_per_us, 2 * self.multiply_adds_per_us, 2 * self.matrix_multiply_adds_per_us]
                .map(|per_us| per_us as f64 / 1e3);
        let Self { trip_ns, dispatch_ns, cores, .. } = self;
        write!(
            f,
            "{read} GB/s of keys and values, {plain} GFLOP/s of f32 attention, {matrices} of f16, {trip_ns} ns from a load to the \
             next, {dispatch_ns} ns a dispatch, {cores} cores"
        )
    }
}

/// Bytes read and operations computed. Floating point: they are estimates, and cannot overflow.
#[derive(Clone, Copy, Default)]
struct Work {
    bytes: f64,
    multiply_adds: f64,
}

impl Work {
    fn times(self, n: f64) -> Self {
        Self { bytes: self.bytes * n, multiply_adds: self.multiply_adds * n }
    }
}

fn duration(ns: f64) -> Duration {
    // Saturates; never negative or NaN.
    Duration::from_nanos(ns as u64)
}

impl AttentionPlan {
    /// Estimated time of the dispatches on a device: keys and values are read once for the rows that share them, and each dispatch has a
    /// fixed cost. Lengths from a buffer count as the longest.
    #[must_use]
    pub fn estimated_time(&self, speed: &DeviceSpeed) -> Duration {
        let problem = &self.problem;
        let shape = problem.shape();
        let sets = RowSets::of(problem);
        let sequences = f64::from(shape.batch_size);
        let visible = |query: u32| {
            let range = problem.visible(query);
            f64::from(range.end - range.start)
        };
        if shape.seq_len_q == 0 {
            return Duration::ZERO;
        }
        // Neighbouring queries see one key more or less.
        let mean = f64::midpoint(visible(0), visible(shape.seq_len_q - 1));
        let (keys_of_row, walks) = match &problem.blocks {
            None => (mean, 1.0),
            Some(blocks) => {
                (mean.min(blocks.most_keys() as f64), f64::from(shape.seq_len_q.div_ceil(sets.block_size_q)))
            }
        };
        // Dense walks: all keys that some row sees.
        let keys_of_walk =
            if problem.blocks.is_none() { visible(0).max(visible(shape.seq_len_q - 1)) } else { keys_of_row };
        let columns = f64::from(shape.head_dim) + f64::from(shape.head_dim_v);
        // One more read for the exponents.
        let readings = if self.exponent_parts() > 0 { 2.0 } else { 1.0 };
        let work = Work {
            bytes: readings
                * f64::from(sets.num_sets)
                * walks
                * keys_of_walk
                * columns
                * problem.dtype.size_bytes() as f64,
            multiply_adds: f64::from(shape.seq_len_q) * f64::from(shape.num_q_heads) * keys_of_row * columns,
        };
        let workgroups = self.attending().workgroups.into_iter().map(u64::from).product();
        let dispatches = (self.dispatches.len() as u64 * speed.dispatch_ns) as f64;
        duration(dispatches + speed.work_ns(work.times(sequences), workgroups, self.tier.matrix()))
    }
}

/// Trips of a round to scratch memory, where groups and their scores lie there, and the time of ten barriers.
const SCRATCH_TRIPS: u64 = 12;
/// Time of ranking and compacting groups in workgroup memory, in trips.
const WORKGROUP_TRIPS: u64 = 2;

impl SelectionPlan {
    /// Estimated time of a step that computes every stage: dispatches, dependent trips to memory, and, where they take longer, bytes and
    /// operations. It gives 258 and 343 us for searches that took an H100 258 and 340, with the tilings of that time.
    #[must_use]
    pub fn estimated_time(&self, speed: &DeviceSpeed) -> Duration {
        let of = |step: SelectStep| match step {
            SelectStep::Search(hip) => self.search_ns(&hip, speed),
            SelectStep::Score(stage) => self.score_ns(&self.stages[stage], speed),
            SelectStep::Select(_) => (self.ranking_trips() * speed.trip_ns) as f64,
            SelectStep::Sample(_) => 0.0,
            SelectStep::Operator(index) => self.operator_ns(index, speed),
        };
        duration(self.steps.iter().map(|&step| of(step) + speed.dispatch_ns as f64).sum())
    }

    /// The time of an operator's reads, at the speed of memory.
    fn operator_ns(&self, index: usize, speed: &DeviceSpeed) -> f64 {
        let bytes = |shape: [u32; 4], size: u64| shape.iter().map(|&axis| u64::from(axis)).product::<u64>() * size;
        let read = match &self.operators[index] {
            SelectorStep::Pool { problem, .. } => bytes(problem.shape(), problem.dtype().size_bytes()),
            SelectorStep::Score { problem, .. } => bytes(problem.summaries_shape(), 4),
            SelectorStep::Kernel(step) => bytes(step.shape, 4),
            SelectorStep::TopK { problem, .. } => bytes(problem.shape(), if problem.takes_marks() { 8 } else { 4 }),
        };
        read as f64 * 1000.0 / speed.bytes_per_us.max(1) as f64
    }

    fn ranking_trips(&self) -> u64 {
        if self.tiling.candidates == Candidates::Workgroup { WORKGROUP_TRIPS } else { SCRATCH_TRIPS }
    }

    /// Dependent trips to memory for `keys` rows of keys in a workgroup of `invocations`.
    fn key_trips(&self, rows: u64, invocations: u32) -> u64 {
        let under_way = |bytes: u64| (rows * self.row_bytes()).div_ceil(bytes.max(1)).max(1);
        let loads = self.loads();
        match self.tiling.sharing {
            Sharing::Columns => under_way(u64::from(invocations * loads.bytes * loads.in_flight)),
            // Lanes go along the rows of their keys, four vec4 each.
            Sharing::Keys | Sharing::Rows | Sharing::Tiles => {
                rows.div_ceil(u64::from(invocations * 4)) * u64::from(self.problem.shape.head_dim / 4)
            }
        }
    }

    fn row_bytes(&self) -> u64 {
        u64::from(self.problem.shape.head_dim) * self.problem.dtype.size_bytes()
    }

    /// Bytes and operations of `keys` rows of keys that are scored with `samples` samples each.
    fn scored(&self, rows: u64, samples: u64) -> Work {
        let multiply_adds = rows as f64 * samples as f64 * f64::from(self.problem.shape.head_dim);
        Work { bytes: rows as f64 * self.row_bytes() as f64, multiply_adds }
    }

    fn search_ns(&self, hip: &Hip, speed: &DeviceSpeed) -> f64 {
        let shape = &self.problem.shape;
        let heads = self.problem.granularity.heads_per_set(shape);
        let kv_heads = u64::from(heads.div_ceil(shape.group_size()));
        let blocks_per_group = shape.seq_len_kv / hip.block_size_k / hip.max_blocks().max(1);
        // The alignment of the first groups adds a round.
        let rounds = u64::from(blocks_per_group.max(1).next_power_of_two().ilog2() + 1);
        let rows = 2 * u64::from(hip.max_blocks()) * u64::from(hip.keys_per_block()) * kv_heads;
        let samples = u64::from(heads) / kv_heads * u64::from(self.samples[0].num_samples);
        let trips = self.key_trips(rows, self.tiling.search_size()) + self.ranking_trips();
        let waves = self.num_lists().div_ceil(self.num_searches.max(1).into());
        let waiting = (rounds * trips * speed.trip_ns) as f64 * waves as f64;
        let work = self.scored(rows, samples).times(rounds as f64 * self.num_lists() as f64);
        waiting.max(speed.work_ns(work, self.num_searches.into(), self.matrix.is_some()))
    }

    fn score_ns(&self, stage: &StagePlan, speed: &DeviceSpeed) -> f64 {
        let (heads, rounds) = (u64::from(self.heads_of_list()), u64::from(stage.rounds()));
        let owners = u64::from(self.tiling.owners(self.tiling.score_groups));
        // Two probes for each of the owner's chunks, for one head after the other.
        let trips = heads * self.key_trips(4 * owners, self.tiling.lanes * self.tiling.score_groups);
        let chunks = f64::from(stage.max_chunks) * self.num_lists() as f64 * f64::from(self.lists_per_set());
        let samples = u64::from(self.samples[stage.samples].num_samples);
        let work = self.scored(2 * rounds * heads, samples).times(chunks);
        let workgroups = (chunks / (2 * owners) as f64) as u64;
        ((rounds * trips * speed.trip_ns) as f64).max(speed.work_ns(work, workgroups, false))
    }
}
