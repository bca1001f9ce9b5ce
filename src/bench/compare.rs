//! Two reports side by side.

use super::report::Report;
use super::{Part, Samples};

/// The meaning of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Less than the spreads of both.
    Noise,
    /// The second is faster.
    Faster,
    /// The second is slower.
    Slower,
}

impl Verdict {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Noise => "within noise",
            Self::Faster => "faster",
            Self::Slower => "SLOWER",
        }
    }
}

/// A part that both reports timed.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The case.
    pub id: String,
    /// The part.
    pub part: Part,
    /// Median seconds, first and second.
    pub medians: [f64; 2],
    /// Their spreads.
    pub spreads: [f64; 2],
    /// The first time over the second: above 1 the second is faster.
    pub ratio: f64,
    /// The meaning of the ratio.
    pub verdict: Verdict,
}

/// Two reports side by side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Parts that both reports timed, in the order of the first.
    pub rows: Vec<Compared>,
    /// Parts that only one of them timed: `first` or `second`, with case and part.
    pub unmatched: Vec<(&'static str, String)>,
    /// Reasons why the numbers are hard to compare: another device, another clock, noise.
    pub warnings: Vec<String>,
}

/// Ratios below this mean nothing, however small the spreads are.
const LEAST: f64 = 0.02;

/// Puts the cases of two reports side by side.
#[must_use]
pub fn compare(first: &Report, second: &Report) -> Comparison {
    let mut comparison = Comparison { warnings: warnings(first, second), ..Comparison::default() };
    let timed = |report: &'_ Report| -> Vec<(String, String, Part, Samples)> {
        let of = |case: &super::CaseResult| {
            let timed = case.parts.iter().filter_map(|part| Some((part.part, part.samples.clone()?)));
            timed.map(|(part, samples)| (case.id.clone(), case.name.clone(), part, samples)).collect::<Vec<_>>()
        };
        report.cases.iter().flat_map(of).collect()
    };
    let (first, mut second) = (timed(first), timed(second));
    for (id, name, part, a) in first {
        // The name too: a device may have run a case with narrower heads.
        let found = second.iter().position(|other| (&other.0, &other.1, other.2) == (&id, &name, part));
        match found.map(|at| second.remove(at)) {
            Some((.., b)) => comparison.rows.push(Compared::new(id, part, [&a, &b])),
            None => comparison.unmatched.push(("first", format!("{id}: {}", part.name()))),
        }
    }
    comparison
        .unmatched
        .extend(second.into_iter().map(|(id, _, part, _)| ("second", format!("{id}: {}", part.name()))));
    comparison
}

impl Compared {
    fn new(id: String, part: Part, samples: [&Samples; 2]) -> Self {
        let [medians, spreads] = [samples.map(|samples| samples.median), samples.map(|samples| samples.spread)];
        let ratio = medians[0] / medians[1];
        let noise = samples.iter().map(|samples| samples.noise()).sum::<f64>().max(LEAST);
        let verdict = if ratio.ln().abs() <= noise {
            Verdict::Noise
        } else if ratio > 1.0 {
            Verdict::Faster
        } else {
            Verdict::Slower
        };
        Self { id, part, medians, spreads, ratio, verdict }
    }
}

fn warnings(first: &Report, second: &Report) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut differ = |what: &str, a: &str, b: &str| {
        if a != b {
            warnings.push(format!("the {what} differs: {a:?}, then {b:?}"));
        }
    };
    differ("adapter", &first.machine.adapter, &second.machine.adapter);
    if let (Some(first), Some(second)) = (&first.machine.processor, &second.machine.processor) {
        differ("processor", first, second);
    }
    differ("driver", &first.machine.driver, &second.machine.driver);
    differ("back end", &first.machine.backend, &second.machine.backend);
    differ("format", &first.schema.to_string(), &second.schema.to_string());
    differ("way of timing", first.timing.method.name(), second.timing.method.name());
    for (which, report) in [("first", first), ("second", second)] {
        match &report.noise {
            None => warnings.push(format!("the {which} report is not complete")),
            Some(noise) if !noise.quiet => warnings.push(format!("the {which} run was noisy: {noise}")),
            Some(_) => {}
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(first: &[f64], second: &[f64]) -> Compared {
        let [first, second] = [first, second].map(|seconds| Samples::new(seconds.to_vec(), 1));
        Compared::new("x".to_owned(), Part::Dense, [&first, &second])
    }

    #[test]
    fn ratios_within_both_spreads_say_nothing() {
        let row = compared(&[1.0, 1.0, 1.0], &[0.5, 0.5, 0.5]);
        assert_eq!((row.ratio, row.verdict), (2.0, Verdict::Faster));
        assert_eq!(compared(&[1.0], &[2.0]).verdict, Verdict::Slower);
        assert_eq!(compared(&[1.0], &[1.01]).verdict, Verdict::Noise);
        let wide = [0.6, 0.8, 1.0, 1.2, 1.4];
        assert_eq!(compared(&wide, &[1.3, 1.3, 1.3]).verdict, Verdict::Noise);
        assert_eq!(compared(&wide, &[2.0, 2.0, 2.0]).verdict, Verdict::Slower);
    }
}
