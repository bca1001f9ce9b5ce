//! The length from which sparse attention is faster than dense.

use serde::{Deserialize, Serialize};

use super::case::size_name;
use super::{CaseResult, Part, Series};
use crate::AttentionShape;

/// The crossover of one method and number of queries, over the measured lengths.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crossover {
    /// [`Line::of`].
    pub of: String,
    /// Number of keys at which both take equally long, interpolated between two measured lengths; `None` where they do not cross.
    pub keys: Option<f64>,
    /// The longest context at which both were timed, and the time of dense attention over the time of sparse attention there.
    pub longest: Option<(u32, f64)>,
}

/// A line of points, which differ in the number of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Line<'a> {
    /// Method, heads and queries.
    pub of: String,
    /// The cases, from the fewest keys to the most.
    pub cases: Vec<&'a CaseResult>,
}

/// The cases with a selection, grouped by everything except the number of keys.
#[must_use]
pub fn lines(cases: &[CaseResult]) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for case in cases.iter().filter(|case| matches!(case.series, Series::SparsePrefill | Series::SparseDecode)) {
        let of = family(case);
        match lines.iter_mut().find(|line| line.of == of) {
            Some(line) => line.cases.push(case),
            None => lines.push(Line { of, cases: vec![case] }),
        }
    }
    for line in &mut lines {
        line.cases.sort_by_key(|case| case.shape.seq_len_kv);
    }
    lines
}

/// The part of a case's sizes that its line shares.
fn family(case: &CaseResult) -> String {
    let AttentionShape { seq_len_q, num_q_heads, num_kv_heads, head_dim, .. } = case.shape;
    let sizes = format!("-{}", size_name(&case.shape));
    let method = case.name.strip_suffix(&sizes).unwrap_or(&case.name);
    let heads =
        if num_q_heads == num_kv_heads { num_q_heads.to_string() } else { format!("{num_q_heads}/{num_kv_heads}") };
    let queries = if seq_len_q == 1 { "decoding".to_owned() } else { format!("{seq_len_q} queries") };
    format!("{method}, {heads} heads of {head_dim}, {queries}")
}

/// A crossover for each line of at least two lengths.
pub(super) fn crossovers(cases: &[CaseResult]) -> Vec<Crossover> {
    lines(cases).into_iter().filter(|line| line.cases.len() > 1).map(|line| crossover(&line)).collect()
}

fn crossover(line: &Line<'_>) -> Crossover {
    let ratio = |case: &&CaseResult| {
        let ratio = case.seconds(Part::Dense)? / case.sparse_seconds()?;
        Some((case.shape.seq_len_kv, ratio))
    };
    let points: Vec<(u32, f64)> = line.cases.iter().filter_map(ratio).collect();
    // The last pair of lengths between which sparse attention overtakes; interpolated in logarithms, since ratios follow powers.
    let pair = points.windows(2).rev().find(|pair| pair[0].1 < 1.0 && pair[1].1 >= 1.0);
    let keys = pair.map(|pair| {
        let [(from, below), (to, above)] = [pair[0], pair[1]];
        let (from, to) = (f64::from(from).ln(), f64::from(to).ln());
        let place = -below.ln() / (above.ln() - below.ln());
        (from + place * (to - from)).exp()
    });
    Crossover { of: line.of.clone(), keys, longest: points.last().copied() }
}

impl core::fmt::Display for Crossover {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match (self.keys, self.longest) {
            (_, None) => f.write_str("not timed side by side"),
            (Some(keys), Some((longest, ratio))) => {
                write!(f, "sparse is faster from {keys:.0} keys on, {ratio:.1} times at {longest}")
            }
            (None, Some((longest, ratio))) if ratio >= 1.0 => {
                write!(f, "sparse is faster at every length, {ratio:.1} times at {longest}")
            }
            (None, Some((longest, ratio))) => {
                write!(f, "dense is faster up to {longest} keys, where sparse takes {:.1} times as long", 1.0 / ratio)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hip;
    use crate::bench::{Case, Counts, Outcome, PartResult, Samples};

    fn case(keys: u32, dense: f64, sparse: f64) -> CaseResult {
        let case = Case::sparse(Series::SparseDecode, "hip", [2, 2, 1, keys], Hip::decode());
        let mut result = CaseResult::new(&case, &case);
        for (part, seconds) in [(Part::Dense, dense), (Part::Sparse, sparse)] {
            let mut timed = PartResult::without_result(part, Outcome::Measured, Counts::default());
            timed.samples = Some(Samples::new(vec![seconds], 1));
            result.parts.push(timed);
        }
        result
    }

    #[test]
    fn between_two_lengths_by_logarithms() {
        let cases = [case(4096, 1.0, 2.0), case(16_384, 4.0, 2.0), case(65_536, 16.0, 2.0)];
        let found = crossovers(&cases);
        assert_eq!(found.len(), 1);
        assert!((found[0].keys.unwrap() - 8192.0).abs() < 1e-6, "{found:?}");
        assert_eq!(found[0].longest, Some((65_536, 8.0)));
        assert_eq!(found[0].of, "hip, 2 heads of 128, decoding");
    }

    #[test]
    fn lines_that_do_not_meet_say_so() {
        let text = |cases: &[CaseResult]| crossovers(cases)[0].to_string();
        assert!(text(&[case(4096, 1.0, 2.0), case(8192, 1.0, 2.0)]).starts_with("dense is faster up to 8192"));
        assert!(text(&[case(4096, 3.0, 2.0), case(8192, 6.0, 2.0)]).starts_with("sparse is faster at every length"));
        let mut untimed = case(4096, 1.0, 1.0);
        untimed.parts.clear();
        assert!(text(&[untimed.clone(), untimed]).starts_with("not timed"));
        assert!(crossovers(&[case(4096, 1.0, 2.0)]).is_empty());
    }
}
