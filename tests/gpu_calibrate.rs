//! Calibration and its purpose: no dispatch takes long. The tests have a file of their own, so that nothing else runs beside them.

mod common;

use common::gpu::{Buffers, bind, contexts, read_words, submit};
use common::{Case, shape};
use wattn::{AttentionPlan, AttentionProblem, AttentionShape, BoundAttention, Context, DType, DispatchBudget, Mask};

/// The tests run one after the other, since nothing else may run on the device.
#[test]
fn calibration_keeps_dispatches_short() {
    calibrations_stand_alone();
    speed_is_repeatable();
    no_dispatch_takes_long();
}

/// Long problems under the budget that calibration gives, many times the work of one dispatch. The device's timestamps give the time of
/// each dispatch.
fn no_dispatch_takes_long() {
    for ctx in contexts().iter().filter(|ctx| ctx.caps().timestamps) {
        let budget = ctx.calibrate_blocking().unwrap();
        let ctx = ctx.with_budget(budget);
        // The longest dispatch of the plans that are cut.
        let mut longest_of_all = 0.0f64;
        // Many rows, one row, and few rows of one head, whose walks are cut where devices are slow.
        for (seq_len_q, heads) in [(1024, [2, 1]), (1, [1, 8]), (40, [1, 1])] {
            let wide = |keys| AttentionShape { head_dim: 64, head_dim_v: 64, ..shape(1, [seq_len_q, keys], heads) };
            let plan_of = |keys| {
                let problem = AttentionProblem::new(wide(keys), DType::F32).with_mask(Mask::Causal);
                AttentionPlan::new(&problem, ctx.caps()).unwrap()
            };
            let lengths = (11..20).map(|log2| 1 << log2); // up to 128 MiB of keys
            let is_long = |keys: &u32| plan_of(*keys).dispatches()[0].stretches.len() >= 8;
            let keys = lengths.clone().find(is_long).unwrap_or(1 << 19);
            let plan = plan_of(keys);
            let case = Case::<f32>::painted(wide(keys), Mask::Causal);
            let buffers = Buffers::new(&ctx, &case, plan.problem());
            let bound = bind(&ctx, &plan, buffers.args().with_lse(None));
            // The shorter of two runs, since other programs may interrupt one.
            let runs = [timed(&ctx, &bound), timed(&ctx, &bound)];
            let seconds: Vec<f64> = runs[0].iter().zip(&runs[1]).map(|(a, b)| a.min(*b)).collect();
            let longest = seconds.iter().copied().fold(0.0, f64::max);
            if seconds.len() > 2 {
                longest_of_all = longest_of_all.max(longest);
            }
            println!("{seq_len_q} x {keys}: {} dispatches, longest {longest:.3} s; {budget:?}", seconds.len());
            assert!(longest < 0.2, "{}: {longest} s\n{plan}\n{seconds:?}", ctx.describe());
        }
        // The budget is the device's work in 100 ms at its slowest kind of work: dispatches far shorter than that are cut without need.
        assert!(longest_of_all == 0.0 || longest_of_all > 0.01, "{}: {longest_of_all} s; {budget:?}", ctx.describe());
    }
}

/// A calibration depends on the device alone, not on the context's budget and speed, and chooses no kernels.
fn calibrations_stand_alone() {
    for ctx in contexts() {
        // The first calibration compiles.
        ctx.calibrate_blocking().unwrap();
        // Under a budget of one tile a dispatch the same load would be a thousand dispatches, and take a thousand times as long. The test
        // takes the best of three runs each, in turns, since the machine does other things at the same time.
        let cut = ctx.with_budget(DispatchBudget::new(1, 1));
        let turns = [(); 3].map(|()| [ctx, &cut].map(|ctx| ctx.calibrate_blocking().unwrap()));
        let best = |which: usize| turns.iter().map(|turn| turn[which].dispatch_operations()).max().unwrap();
        let (first, ratio) = (turns[0][0], best(0) as f64 / best(1) as f64);
        println!("{}: {turns:?}", ctx.describe());
        assert!((0.25..4.0).contains(&ratio), "{turns:?}");
        assert!(first.dispatch_operations() >= first.workgroup_operations(), "{first:?}");
        assert!(first.whole_operations() == DispatchBudget::LEAST_WORKGROUP, "{first:?}");
    }
}

/// A second measurement gives about the same numbers, as far as other programs allow. Only crossovers depend on them, no other result.
fn speed_is_repeatable() {
    for ctx in contexts() {
        let [_, first, second] = [(); 3].map(|()| ctx.measure_speed_blocking().unwrap());
        println!("{}: {first:?} {second:?}", ctx.describe());
        for (first, second) in [
            (first.bytes_per_us, second.bytes_per_us),
            (first.multiply_adds_per_us, second.multiply_adds_per_us),
            (first.matrix_multiply_adds_per_us, second.matrix_multiply_adds_per_us),
            (first.trip_ns, second.trip_ns),
            (first.dispatch_ns, second.dispatch_ns),
            (first.cores, second.cores),
        ] {
            assert!(
                first > 0 && second > 0 && (0.01..100.0).contains(&(first as f64 / second as f64)),
                "{first} {second}"
            );
        }
        assert!(ctx.with_speed(first).caps().speed == Some(first) && ctx.caps().speed.is_none() == ctx.caps().software);
    }
}

/// Seconds of each dispatch, in a pass of its own.
fn timed(ctx: &Context, bound: &BoundAttention) -> Vec<f64> {
    let (device, count) = (ctx.device(), bound.num_stretches());
    // The first dispatch also loads the code, which is no part of its time.
    submit(ctx, |encoder| bound.encode_stretch_in(&mut encoder.begin_compute_pass(&Default::default()), 0));
    let mut seconds = Vec::new();
    for index in 0..count {
        let queries = device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("test"),
            ty: wgpu::QueryType::Timestamp,
            count: 2,
        });
        let resolved = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("test"),
            size: 16,
            usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        submit(ctx, |encoder| {
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &queries,
                beginning_of_pass_write_index: Some(0),
                end_of_pass_write_index: Some(1),
            });
            let descriptor = wgpu::ComputePassDescriptor { label: Some("test"), timestamp_writes };
            bound.encode_stretch_in(&mut encoder.begin_compute_pass(&descriptor), index);
            encoder.resolve_query_set(&queries, 0..2, &resolved, 0);
        });
        let words = read_words(ctx, &resolved);
        let ticks = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        seconds.push((ticks(2) - ticks(0)) as f64 * f64::from(ctx.queue().get_timestamp_period()) * 1e-9);
    }
    seconds
}
