//! The report for people: a head, a row for each finished part, and a summary.

use core::fmt::Write as _;

use wattn::bench::{CaseResult, Ceiling, Outcome, Part, PartResult, Report, lines};

/// Machine, clock and ceilings.
pub(super) fn head(report: &Report) -> String {
    let machine = &report.machine;
    let mut text = format!("wattn {} on {} ({}, {})\n", report.version, machine.adapter, machine.kind, machine.backend);
    // Writing to a String cannot fail.
    if let Some(processor) = &machine.processor {
        let _ = writeln!(text, "processor {processor}, {} threads", machine.threads);
    }
    let _ = writeln!(text, "driver    {}", machine.driver);
    let _ = writeln!(text, "kernels   {}", machine.describe_tier());
    let _ = writeln!(text, "time      {}: {}", report.timing.method.name(), report.timing.note);
    for Ceiling { kind, rate, note, .. } in &report.ceilings {
        let rate = match rate {
            Some(rate) => format!("{:>10.1} {:<8}", rate * 1e-9, kind.unit()),
            None => format!("{:>10} {:<8}", "-", ""),
        };
        let _ = writeln!(text, "{:<9} {rate} {note}", kind.name());
    }
    text
}

/// Rows of the cases that are not printed yet.
#[derive(Default)]
pub(super) struct Cases {
    printed: usize,
    series: Option<&'static str>,
}

impl Cases {
    pub(super) fn rows(&mut self, cases: &[CaseResult]) -> String {
        let mut text = String::new();
        for case in &cases[self.printed..] {
            if self.series != Some(case.series.name()) {
                self.series = Some(case.series.name());
                let columns = ["median ms", "spread", "GFLOP/s", "GB/s", "of ceiling", "calls", "host us", "inputs"];
                let _ = write!(text, "\n{:<42}", format!("{} ({})", case.series.name(), case.mask));
                columns.iter().for_each(|column| {
                    let _ = write!(text, " {column:>10}");
                });
                text.push('\n');
            }
            for part in &case.parts {
                text += &row(case, part);
            }
        }
        self.printed = cases.len();
        text
    }
}

fn row(case: &CaseResult, part: &PartResult) -> String {
    // The name is printed once for several parts.
    let first = case.parts.first().is_some_and(|first| first.part == part.part);
    let name = if first { case.name.as_str() } else { "" };
    let what = if case.parts.len() > 1 { part.part.name() } else { "" };
    let mut text = format!("{name:<35} {what:<6}");
    let (Some(samples), Some(rate)) = (&part.samples, &part.rate) else {
        let _ = writeln!(text, " {}: {}", word(&part.outcome), part.outcome.reason().unwrap_or("no time"));
        return text;
    };
    let share = rate
        .share
        .zip(rate.ceiling)
        .map_or_else(|| "-".to_owned(), |(share, ceiling)| format!("{:.0} % {}", 100.0 * share, ceiling.name()));
    let calls = part.plan.as_ref().map_or(0.0, |plan| plan.dispatches);
    let host = part.host_encode_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1}", 1e6 * seconds));
    let inputs = case.rotation.map_or_else(|| "-".to_owned(), |rotation| rotation.to_string());
    let mark = case.unsteady(part.part).map_or_else(String::new, |reason| format!("  {reason}"));
    let _ = writeln!(
        text,
        " {:>10.4} {:>8.1} % {:>10.2} {:>10.2} {share:>10} {calls:>10.1} {host:>10} {inputs:>10}{mark}",
        1e3 * samples.median,
        100.0 * samples.spread,
        1e-9 * rate.operations_per_second,
        1e-9 * rate.bytes_per_second,
    );
    text
}

/// The outcome of a part, in a word.
pub(super) const fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Measured => "measured",
        Outcome::Checked(_) => "checked only",
        Outcome::Skipped(_) | Outcome::OutOfTime(_) => "skipped",
        Outcome::Wrong(_) => "WRONG",
        _ => "failed",
    }
}

/// Ceilings measured again, selection's share, crossovers, checks, noise.
pub(super) fn tail(report: &Report) -> String {
    let mut text = String::from("\n");
    for ceiling in report.ceilings.iter().filter(|ceiling| ceiling.rate.is_some()) {
        let _ = writeln!(text, "{:<9} {}", ceiling.kind.name(), measured_twice(ceiling));
    }
    if !lines(&report.cases).is_empty() {
        let _ = writeln!(
            text,
            "\n{:<50} {:>10} {:>12} {:>14} {:>14}",
            "sparse against dense", "keys", "selecting", "dense / sparse", "dense / step"
        );
    }
    for line in lines(&report.cases) {
        for case in &line.cases {
            let [selecting, sparse, step] = shares(case);
            let percent = selecting.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
            let times = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
            let keys = case.shape.seq_len_kv;
            let _ =
                writeln!(text, "{:<50} {keys:>10} {percent:>12} {:>14} {:>14}", line.of, times(sparse), times(step));
        }
    }
    for crossover in &report.crossovers {
        let _ = writeln!(text, "{}: {crossover}", crossover.of);
    }
    text += &checks(report);
    if report.lost_devices > 0 {
        let _ = writeln!(text, "the device was lost {} time(s) and opened again", report.lost_devices);
    }
    if let Some(noise) = &report.noise {
        let _ = writeln!(text, "noise     {noise}");
    }
    text
}

/// The rate of a ceiling before and after the cases, and the rate that counts.
pub(super) fn measured_twice(ceiling: &Ceiling) -> String {
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), |rate| format!("{:.1}", rate * 1e-9));
    let (used, unit) = (rate(ceiling.rate), ceiling.kind.unit());
    let (first, again) = (rate(ceiling.first), rate(ceiling.again));
    let from = ceiling.reached_by.as_ref().map_or_else(String::new, |by| format!(", reached by {by}"));
    format!("{used} {unit}{from}: {first} before the cases, {again} after them")
}

/// The number of results compared with the oracle's, and the outcome.
pub(super) fn checks(report: &Report) -> String {
    let parts = || report.cases.iter().flat_map(|case| &case.parts);
    let checked = parts().filter(|part| part.check.is_some()).count();
    let wrong = report.wrong().len();
    let left_out = parts().filter(|part| part.samples.is_none()).count();
    format!(
        "\nchecks    {checked} results against the f64 oracle, {wrong} wrong; {left_out} of {} parts not timed\n",
        parts().count()
    )
}

/// Selection's share of the time of selection and attention; dense attention's time over that time, and over the time of a mean step of
/// decoding.
pub(super) fn shares(case: &CaseResult) -> [Option<f64>; 3] {
    let [dense, select, attend, step] =
        [Part::Dense, Part::Select, Part::Attend, Part::Step].map(|part| case.seconds(part));
    let ratio = |over: Option<f64>| dense.zip(over).map(|(dense, over)| dense / over);
    let selecting = select.zip(attend).map(|(select, attend)| select / (select + attend));
    [selecting, ratio(case.sparse_seconds()), ratio(step)]
}
