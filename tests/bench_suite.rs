//! The suite as a library: checks, ceilings, resuming, and a device that is lost during a run.

#[path = "common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::rc::Rc;

use wattn::bench::{
    BenchError, CaseResult, CeilingKind, Options, Outcome, Part, Report, Runner, SCHEMA, Scope, Series, Suite, Target,
    TimingMethod, cases, compare,
};
use wattn::{Context, ContextOptions};

/// Ceilings that other work on the machine lowered make the suite skip no case.
fn quickly(filter: &str) -> Options {
    Options::new(Scope::Quick).filter([filter]).with_seconds_per_case(0.0).with_longest_call(10.0)
}

/// A device for this test alone, which may lose it.
fn open_again(ctx: &Context) -> Context {
    let name = ctx.device().adapter_info().name;
    Context::request(&ContextOptions::default().with_adapter_name(name)).wait().unwrap()
}

fn finish(mut suite: Suite) -> Report {
    while suite.run_next().unwrap().is_some() {}
    suite.finish().unwrap()
}

fn assert_measured(case: &CaseResult) {
    for part in &case.parts {
        assert_eq!(part.outcome, Outcome::Measured, "{}: {part:?}", case.id);
        let (samples, rate, check) =
            (part.samples.as_ref().unwrap(), part.rate.as_ref().unwrap(), part.check.as_ref().unwrap());
        assert!(samples.min > 0.0 && samples.min <= samples.median, "{part:?}");
        assert!(samples.seconds.len() >= 3 && samples.spread >= 0.0, "{part:?}");
        assert!(check.passed() && check.compared > 0, "{part:?}");
        assert!(rate.share.unwrap() > 0.0, "{part:?}");
        assert_eq!(rate.operations_per_second, part.operations as f64 / samples.median);
        assert!(part.bytes > 0 && part.operations > 0, "{part:?}");
    }
    let (clocks, rotation) = (case.clocks.unwrap(), case.rotation.unwrap());
    assert!(clocks.before > 0.0 && clocks.after > 0.0 && rotation.sets > 0, "{case:?}");
    assert!(rotation.bytes >= u64::from(rotation.sets) * u64::from(case.shape.seq_len_kv) * 4, "{case:?}");
}

/// No ceiling is below a measured or reached rate, and no share is above one.
fn assert_settled(report: &Report) {
    for ceiling in report.ceilings.iter().filter(|ceiling| ceiling.rate.is_some()) {
        let (rate, first, again) = (ceiling.rate.unwrap(), ceiling.first.unwrap(), ceiling.again.unwrap());
        assert!(rate >= first && rate >= again && (rate == first || rate == again || ceiling.reached_by.is_some()));
    }
    for part in report.cases.iter().flat_map(|case| &case.parts) {
        let (Some(rate), Some(samples)) = (&part.rate, &part.samples) else { continue };
        assert!(rate.share.unwrap() <= 1.0 + 1e-9, "{part:?}");
        let best = part.bytes as f64 / samples.min;
        assert!(report.ceiling(CeilingKind::Copy).unwrap() >= best * (1.0 - 1e-9), "{part:?}");
        assert!(report.ceiling(CeilingKind::F32).unwrap() >= part.operations as f64 / samples.min * (1.0 - 1e-9));
    }
}

#[test]
fn a_run_on_every_adapter() {
    for ctx in common::gpu::contexts() {
        let context = ctx.clone();
        let open = move || Ok(Target::Gpu(context.clone()));
        let report = finish(Suite::new(open, &quickly("sparse-decode/hip-2x1x4096x128")).unwrap());
        assert_eq!((report.schema, report.cases.len(), report.lost_devices), (SCHEMA, 1, 0));
        assert!(report.is_complete() && report.wrong().is_empty());
        let case = &report.cases[0];
        assert_measured(case);
        assert_settled(&report);
        // Hardware has caches that hold a case of 8 MiB; on software devices calls take the same tensors each time.
        assert_eq!(case.rotation.unwrap().sets == 1, ctx.caps().software);
        let parts: Vec<Part> = case.parts.iter().map(|part| part.part).collect();
        assert_eq!(parts, [Part::Dense, Part::Select, Part::Attend, Part::Sparse, Part::Step]);
        let plan = |part: Part| case.part(part).unwrap().plan.clone().unwrap();
        assert_eq!(plan(Part::Sparse).dispatches, plan(Part::Select).dispatches + plan(Part::Attend).dispatches);
        // One step of eight selects.
        assert_eq!(plan(Part::Step).dispatches, plan(Part::Select).dispatches / 8.0 + plan(Part::Attend).dispatches);
        assert!(case.parts.iter().all(|part| part.host_encode_seconds.unwrap() > 0.0));
        for ceiling in &report.ceilings {
            let known = match ceiling.kind {
                CeilingKind::Copy | CeilingKind::F32 => true,
                CeilingKind::F16 => ctx.caps().shader_f16 && !ctx.caps().software,
                _ => ceiling.rate.is_some(),
            };
            assert_eq!(ceiling.rate.is_some(), known, "{ceiling:?}");
            assert!(!ceiling.note.is_empty(), "{ceiling:?}");
        }
        // The speed that plans use is measured on the same device: bytes, and operations, two for a multiply-add. That measurement is
        // shorter, and the machine does other things meanwhile. On software devices most of its time is the start of the work.
        let most = if ctx.caps().software { 100.0 } else { 10.0 };
        let speed = ctx.measure_speed_blocking().unwrap();
        for (kind, known) in
            [(CeilingKind::Copy, speed.bytes_per_us), (CeilingKind::F32, 2 * speed.multiply_adds_per_us)]
        {
            let (rate, known) = (report.ceiling(kind).unwrap(), known as f64 * 1e6);
            assert!((0.1..most).contains(&(rate / known)), "{kind:?}: {rate:e} a second, {known:e} by {speed:?}");
        }
        if report.timing.method == TimingMethod::Timestamps {
            assert!(ctx.caps().timestamps);
        }
        let text = serde_json::to_vec(&report).unwrap();
        assert_eq!(Report::from_json(&text).unwrap(), report);
    }
}

#[test]
fn every_part_is_right_on_the_cpu() {
    for case in cases(Scope::Full) {
        let shape = case.problem().shape();
        // One case for each method and granularity; the long ones are for benchmarks.
        let wanted = matches!(case.series(), Series::SparsePrefill | Series::SparseDecode | Series::Storage);
        if !wanted || shape.seq_len_kv > 4096 || shape.num_q_heads > 8 {
            continue;
        }
        let mut runner = Runner::new(&Target::Cpu, &case).unwrap();
        for &part in case.parts() {
            let check = runner.check(part).unwrap();
            assert!(check.passed(), "{}, {}: {check:?}", case.id(), part.name());
        }
        // On its own, a part of attention selects first.
        let mut runner = Runner::new(&Target::Cpu, &case).unwrap();
        match runner.check(Part::Attend) {
            Ok(check) => assert!(check.passed() && runner.run(Part::Step, 1).unwrap().seconds() > 0.0),
            Err(error) => assert!(case.selection().is_none() && error.to_string().contains("no selection"), "{error}"),
        }
    }
}

#[test]
fn a_lost_device_is_opened_again_and_the_case_tried_once_more() {
    for ctx in common::gpu::contexts() {
        let opened = Rc::new(RefCell::new(Vec::new()));
        let (all, ctx) = (Rc::clone(&opened), ctx.clone());
        let open = move || {
            let context = open_again(&ctx);
            all.borrow_mut().push(context.clone());
            Ok(Target::Gpu(context))
        };
        let mut suite = Suite::new(open, &quickly("decode/8x1x4096x128")).unwrap();
        opened.borrow().last().unwrap().device().destroy();
        let case = suite.run_next().unwrap().unwrap();
        assert_measured(case);
        assert_eq!((opened.borrow().len(), suite.report().lost_devices), (2, 1));
        assert!(finish(suite).is_complete());
    }
}

#[test]
fn a_device_that_is_lost_twice_fails_the_case_and_not_the_run() {
    let ctx = common::gpu::contexts()[0].clone();
    let opened = Rc::new(RefCell::new(Vec::new()));
    let (all, again) = (Rc::clone(&opened), ctx.clone());
    let open = move || {
        let context = open_again(&again);
        // The first device works until the test ends it, the second is lost at once, the third works.
        if all.borrow().len() == 1 {
            context.device().destroy();
        }
        all.borrow_mut().push(context.clone());
        Ok(Target::Gpu(context))
    };
    let mut suite = Suite::new(open, &quickly("gqa/16-4x1x8192x128")).unwrap();
    opened.borrow()[0].device().destroy();
    let case = suite.run_next().unwrap().unwrap();
    let reason = case.parts[0].outcome.reason().unwrap().to_owned();
    assert!(case.unfinished() && reason.starts_with("twice: the device was lost"), "{reason}");
    let report = finish(suite);
    assert_eq!((report.lost_devices, report.cases.len()), (2, 1));

    // A run resumed from that report repeats the failed case.
    let again = ctx.clone();
    let open = move || Ok(Target::Gpu(again.clone()));
    let suite = Suite::resume(open, &quickly("gqa/16-4x1x8192x128"), report).unwrap();
    assert_eq!(suite.num_pending(), 1);
    let report = finish(suite);
    assert_measured(&report.cases[0]);
    assert_eq!(report.cases.len(), 1);
}

#[test]
fn a_run_goes_on_where_it_ended() {
    let filter = "gqa/";
    let open = || Ok(Target::Cpu);
    let mut suite = Suite::new(open, &quickly(filter)).unwrap();
    let first = suite.run_next().unwrap().unwrap().clone();
    let (partial, left) = (suite.report().clone(), suite.num_pending());
    assert!(!partial.is_complete() && left > 0);
    drop(suite);
    let text = serde_json::to_vec(&partial).unwrap();
    let suite = Suite::resume(open, &quickly(filter), Report::from_json(&text).unwrap()).unwrap();
    assert_eq!(suite.num_pending(), left);
    let report = finish(suite);
    // Its share of a ceiling changes when the ceiling is measured again.
    let without_rates = |mut case: CaseResult| {
        case.parts.iter_mut().for_each(|part| part.rate = None);
        case
    };
    assert_eq!(without_rates(report.cases[0].clone()), without_rates(first));
    assert_eq!(report.cases.len(), left + 1);
    assert_settled(&report);
    for (then, now) in partial.ceilings.iter().zip(&report.ceilings) {
        assert_eq!((then.kind, then.first), (now.kind, now.first));
    }

    let refused = |options: &Options, report: &Report| Suite::resume(open, options, report.clone()).unwrap_err();
    let error = refused(&quickly("decode/"), &report);
    assert!(matches!(error, BenchError::Resume { field: "filter", .. }), "{error}");
    let mut other = report.clone();
    other.machine.adapter = "Voodoo 2".to_owned();
    let error = refused(&quickly(filter), &other);
    assert!(matches!(error, BenchError::Resume { field: "machine", .. }), "{error}");
    other = report.clone();
    other.schema = 1;
    let error = refused(&quickly(filter), &other);
    assert!(matches!(error, BenchError::Resume { field: "schema", .. }), "{error}");
    other = report.clone();
    other.version = "0.0.1".to_owned();
    let error = refused(&quickly(filter), &other);
    assert!(matches!(error, BenchError::Resume { field: "version", .. }), "{error}");
}

#[test]
fn what_takes_too_long_is_skipped_and_says_so() {
    let options = quickly("prefill/32x4096x4096x128").with_longest_call(1e-6);
    let report = finish(Suite::new(|| Ok(Target::Cpu), &options).unwrap());
    let part = &report.cases[0].parts[0];
    assert!(matches!(&part.outcome, Outcome::Skipped(reason) if reason.contains("a call would take")), "{part:?}");
    assert!(part.samples.is_none() && part.operations > 0);
}

#[test]
fn a_run_that_takes_too_long_ends_and_goes_on_later() {
    let report = finish(Suite::new(|| Ok(Target::Cpu), &quickly("gqa/").with_longest_run(0.0)).unwrap());
    assert!(report.is_complete() && report.cases.len() == 2);
    assert!(report.cases.iter().all(|case| matches!(case.parts[0].outcome, Outcome::OutOfTime(_))));
    let suite = Suite::resume(|| Ok(Target::Cpu), &quickly("gqa/"), report).unwrap();
    assert_eq!(suite.num_pending(), 2);
    finish(suite).cases.iter().for_each(assert_measured);
}

#[test]
fn bad_requests_and_bad_reports_are_told_apart() {
    let error = Suite::new(|| Ok(Target::Cpu), &quickly("no such case")).unwrap_err();
    assert!(matches!(&error, BenchError::NoCase { filter } if filter == "no such case"), "{error}");
    let error = Report::from_json(br#"{"schema": 77, "more": 1}"#).unwrap_err();
    assert!(matches!(error, BenchError::Schema { found: 77, expected: SCHEMA }), "{error}");
    for text in ["", "{}", "[1]", r#"{"schema": 1}"#, r#"{"schema": "1"}"#] {
        let error = Report::from_json(text.as_bytes()).unwrap_err();
        assert!(matches!(error, BenchError::Json(_)), "{text}: {error}");
    }
}

#[test]
fn reports_of_the_first_format_are_read() {
    let report = finish(Suite::new(|| Ok(Target::Cpu), &quickly("gqa/16-4x1x")).unwrap());
    let mut old = serde_json::to_value(&report).unwrap();
    old["schema"] = 1.into();
    let without = |value: &mut serde_json::Value, names: &[&str]| {
        names.iter().for_each(|name| assert!(value.as_object_mut().unwrap().remove(*name).is_some(), "{name}"));
    };
    old["ceilings"].as_array_mut().unwrap().iter_mut().for_each(|of| without(of, &["first", "again", "reached_by"]));
    old["cases"].as_array_mut().unwrap().iter_mut().for_each(|of| without(of, &["clocks", "rotation"]));
    without(&mut old["noise"], &["clocks"]);
    let read = Report::from_json(&serde_json::to_vec(&old).unwrap()).unwrap();
    assert_eq!((read.schema, read.cases[0].clocks, read.ceilings[0].first), (1, None, None));
    let comparison = compare(&read, &report);
    assert!(comparison.rows.len() == 1 && comparison.warnings[0].contains("format differs"), "{comparison:?}");
}

#[test]
fn reports_are_compared_case_by_case() {
    let first = finish(Suite::new(|| Ok(Target::Cpu), &quickly("gqa/")).unwrap());
    let same = compare(&first, &first);
    assert_eq!((same.rows.len(), same.unmatched.len()), (2, 0));
    assert!(same.rows.iter().all(|row| row.ratio == 1.0));
    let mut second = first.clone();
    let removed = second.cases.remove(0);
    second.machine.adapter = "another".to_owned();
    second.noise = None;
    let comparison = compare(&first, &second);
    assert_eq!(comparison.rows.len(), 1);
    assert_eq!(comparison.unmatched, [("first", format!("{}: dense", removed.id))]);
    second.schema = 1;
    let warnings = compare(&first, &second).warnings.join("\n");
    assert!(warnings.contains("format differs"), "{warnings}");
    let warnings = comparison.warnings.join("\n");
    assert!(warnings.contains("adapter") && warnings.contains("not complete"), "{warnings}");
}
