//! Estimated times of plans beside measurements on an H100, and the crossover between dense and sparse attention. No GPU.

#[path = "common/devices.rs"]
mod devices;

use std::time::Duration;

use devices::{FIRST_SEARCHES, matrix_gpu};
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, DeviceSpeed, Error, Granularity, Hip, Mask,
    Preset, SelectionPlan, SelectionProblem, Tier,
};

fn shape(seq: [u32; 2], heads: [u32; 2]) -> AttentionShape {
    AttentionShape {
        batch_size: 1,
        seq_len_q: seq[0],
        seq_len_kv: seq[1],
        num_q_heads: heads[0],
        num_kv_heads: heads[1],
        head_dim: 128,
        head_dim_v: 128,
    }
}

fn with_speed(speed: Option<DeviceSpeed>) -> DeviceCaps {
    let mut caps = matrix_gpu();
    caps.speed = speed;
    caps
}

fn h100() -> DeviceCaps {
    with_speed(Some(DeviceSpeed::H100))
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The searches of the first visit, with their tilings: 258 us, and 340 at best.
#[test]
fn searches_take_what_they_took() {
    for (keys, heads, took) in [(131_072, [2, 2], 258.0), (1 << 20, [1, 1], 340.0)] {
        let problem = SelectionProblem::new(shape([1, keys], heads), DType::F16, Hip::decode());
        let of = |tiling| SelectionPlan::with_tiling(&problem, &h100(), Tier::SubgroupF16, tiling).unwrap();
        let estimate = us(of(FIRST_SEARCHES).estimated_time(&DeviceSpeed::H100));
        assert!((estimate / took - 1.0).abs() < 0.05, "{keys} keys: {estimate} us, {took} were measured");
        // The gain of the present kernels.
        let now = us(SelectionPlan::new(&problem, &h100()).unwrap().estimated_time(&DeviceSpeed::H100));
        assert!(now < 60.0, "{keys} keys: {now} us");
    }
}

/// Decoding waits for memory, so its time follows from its bytes and its two dispatches.
#[test]
fn decoding_takes_what_its_bytes_take() {
    for (keys, heads, megabytes) in [(16384, [32, 32], 268.4), (131_072, [32, 8], 536.9), (65536, [1, 1], 33.6)] {
        let problem = AttentionProblem::new(shape([1, keys], heads), DType::F16).with_mask(Mask::Causal);
        let plan = AttentionPlan::new(&problem, &h100()).unwrap();
        assert_eq!(plan.dispatches().len(), 2);
        let time = us(plan.estimated_time(&DeviceSpeed::H100));
        let expected = 4.4 + megabytes / 3.0;
        assert!((time / expected - 1.0).abs() < 0.01, "{keys} keys: {time} us, {expected} expected");
    }
    let none = AttentionProblem::new(shape([0, 16], [1, 1]), DType::F16);
    assert_eq!(AttentionPlan::new(&none, &h100()).unwrap().estimated_time(&DeviceSpeed::H100), Duration::ZERO);
}

/// At the crossover dense attention takes no longer than sparse, and one step of length later it does.
#[test]
fn crossovers_are_where_the_estimates_meet() {
    for (queries, heads) in [(1, [32, 32]), (1, [2, 2]), (1, [32, 8]), (1024, [32, 8])] {
        for selection in [
            SelectionProblem::new(shape([queries, 1], heads), DType::F16, Hip::decode()),
            SelectionProblem::new(shape([queries, 1], heads), DType::F16, Preset::ThreeK),
            SelectionProblem::new(shape([queries, 1], heads), DType::F32, Hip::default())
                .with_granularity(Granularity::KvHead),
        ] {
            let crossover = SelectionPlan::crossover(&selection, &h100()).unwrap();
            let faster = |keys| {
                let shape = shape([queries, keys], heads);
                let dense = AttentionProblem::new(shape, selection.dtype()).with_mask(Mask::Causal);
                let of = |problem: &AttentionProblem| {
                    AttentionPlan::new(problem, &h100()).unwrap().estimated_time(&DeviceSpeed::H100)
                };
                let at = SelectionProblem::new(shape, selection.dtype(), selection.method().clone())
                    .with_granularity(selection.blocks().granularity);
                let sparse = of(&dense.clone().with_blocks(at.blocks()));
                SelectionPlan::new(&at, &h100()).unwrap().estimated_time(&DeviceSpeed::H100) + sparse < of(&dense)
            };
            assert!(crossover < AttentionProblem::MAX_SEQ_LEN && crossover.is_multiple_of(1024), "{crossover}");
            assert!(crossover == 0 || !faster(crossover), "{crossover}");
            assert!(faster(crossover + 1024), "{crossover}");
        }
    }
}

/// Few heads read little, so that the latency of a search weighs more; the same holds where memory is fast.
#[test]
fn crossovers_follow_heads_and_memory() {
    let of = |heads, speed| {
        let problem = SelectionProblem::new(shape([1, 1], heads), DType::F16, Hip::decode());
        SelectionPlan::crossover(&problem, &with_speed(Some(speed))).unwrap()
    };
    let (many, few) = (of([32, 32], DeviceSpeed::H100), of([2, 2], DeviceSpeed::H100));
    assert!(many <= 32768 && few > many, "{many} {few}");
    let slow = DeviceSpeed::H100.with_bytes_per_us(300_000);
    assert!(of([2, 2], slow) < few);
    // With endless latency no selection pays.
    assert_eq!(of([2, 2], DeviceSpeed::H100.with_trip_ns(1 << 40)), AttentionProblem::MAX_SEQ_LEN);
}

/// Software devices keep the measured crossover; a method that no device can run stays an error.
#[test]
fn software_devices_keep_measured_crossovers() {
    let software = with_speed(None);
    for queries in [1, 1024] {
        let problem = SelectionProblem::new(shape([queries, 1 << 20], [4, 2]), DType::F32, Preset::ThreeK);
        let expected = problem.method().crossover(queries);
        assert_eq!(SelectionPlan::crossover(&problem, &software).unwrap(), expected);
    }
    let wrong = SelectionProblem::new(shape([1, 1], [1, 1]), DType::F32, Hip::default().with_top_k(3));
    assert!(matches!(SelectionPlan::crossover(&wrong, &h100()), Err(Error::Invalid { field: "top_k", .. })));
}
