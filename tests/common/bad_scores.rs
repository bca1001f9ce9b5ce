//! Selections with NaN and infinities in queries or keys, whose results are defined.

use wattn::Element;

use super::select::{SelectCase, integer_cases};

/// Kinds of cases that meet every kernel and rule, and are cheap.
const NAMES: [&str; 9] = [
    "HiP, prime length",
    "HiP, decode",
    "HiP, trailing block of one query",
    "HiP, strides",
    "HiP, several lengths, full mask",
    "InfiniteHiP, prime length",
    "InfiniteHiP, decode",
    "InfiniteHiP, First, Union for each KV head",
    "InfiniteHiP, uneven halves",
];

/// Sets one column of every `step`-th row, from the first on; rows are of the tensor's innermost axis.
fn spoil<T: Element>(data: &mut [T], dim: usize, step: usize, bad: impl Fn(usize) -> f32) {
    for (i, row) in data.chunks_mut(dim).enumerate().filter(|(i, _)| i % step == 0) {
        row[3] = T::from_f32(bad(i / step));
    }
}

/// NaN of either sign, by turns.
fn nan(i: usize) -> f32 {
    if i.is_multiple_of(2) { f32::NAN } else { -f32::NAN }
}

/// Cases with exactly one correct list: every score is NaN, infinite or exact.
pub fn spoiled_cases<T: Element>() -> Vec<SelectCase<T>> {
    let mut cases = Vec::new();
    for name in NAMES {
        let all = integer_cases::<T>();
        let case = all.into_iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case {name}"));
        let dim = case.problem.shape().head_dim as usize;
        let mut add = |what: &str, change: &dyn Fn(&mut [T], &mut [T])| {
            let mut case = SelectCase { name: format!("{name}, {what}"), ..case.clone() };
            change(case.q.data_mut(), case.k.data_mut());
            cases.push(case);
        };
        add("NaN in some keys", &|_, k| spoil(k, dim, 3, nan));
        add("NaN in some queries", &|q, _| spoil(q, dim, 3, nan));
        add("NaN in some of both", &|q, k| {
            spoil(q, dim, 5, nan);
            spoil(k, dim, 7, nan);
        });
        add("NaN in all keys", &|_, k| spoil(k, dim, 1, nan));
        add("NaN in all queries", &|q, _| spoil(q, dim, 1, nan));
        // Factors of an infinity are never zero, and infinities of one key or query have one sign.
        let signs = |i: usize| if i.is_multiple_of(2) { 2.0 } else { -1.0 };
        let infinity = |i: usize| if i.is_multiple_of(2) { f32::INFINITY } else { f32::NEG_INFINITY };
        add("infinities in some keys", &|q, k| {
            spoil(q, dim, 1, |_| 12.0);
            spoil(k, dim, 7, infinity);
        });
        add("infinity in some queries", &|q, k| {
            spoil(k, dim, 1, signs);
            spoil(q, dim, 5, |_| f32::INFINITY);
        });
        add("minus infinity in some queries", &|q, k| {
            spoil(k, dim, 1, signs);
            spoil(q, dim, 5, |_| f32::NEG_INFINITY);
        });
    }
    cases
}

/// Cases whose scores may or may not become infinite or NaN on a device: lists keep their rules.
pub fn undecided_cases<T: Element>() -> Vec<SelectCase<T>> {
    let mut cases = spoiled_cases();
    for (i, case) in cases.iter_mut().enumerate() {
        case.name = format!("{}, undecided", case.name);
        let dim = case.problem.shape().head_dim as usize;
        let huge = T::from_f32(if i.is_multiple_of(2) { 3.0e38 } else { f32::INFINITY });
        for (data, step) in [(case.q.data_mut(), 2), (case.k.data_mut(), 3)] {
            for (j, row) in data.chunks_mut(dim).enumerate().filter(|(j, _)| j % step == 0) {
                row[j % 3] = huge;
                row[4 + j % 3] = T::from_f32(-huge.to_f32());
                row[8] = T::from_f32(0.0);
            }
        }
    }
    cases
}
