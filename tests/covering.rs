//! The covering arrays of other tests, checked by brute force.

#[path = "common/covering.rs"]
mod covering;

use covering::{Factors, Rule, check};

fn rule<'a>(factors: &'static [usize], broken: impl Fn(&[usize]) -> bool + 'a) -> Rule<'a> {
    Rule { factors, broken: Box::new(broken) }
}

#[test]
fn every_pair_occurs() {
    for levels in [&[1][..], &[3, 2], &[2, 2, 2, 2], &[3, 4, 2, 5], &[3, 3, 3, 3, 3, 3], &[5, 1, 4, 2, 2, 3, 2]] {
        check(&Factors { levels, rules: &[] });
    }
}

#[test]
fn forbidden_combinations_never_occur() {
    let levels = &[3, 4, 2, 2, 3];
    // Rules: a pair; three factors at once; a single level; a chain that excludes a pair which no rule names; a pair that requires one
    // level.
    let rules = [
        rule(&[0, 1], |at| at == [1, 2]),
        rule(&[1, 2, 4], |at| at == [0, 1, 1]),
        rule(&[4], |at| at == [2]),
        rule(&[0, 2], |at| at == [2, 0]),
        rule(&[2, 3], |at| at == [1, 0]),
        rule(&[3, 1], |at| at[0] == 1 && at[1] == 3),
    ];
    check(&Factors { levels, rules: &rules });
    for rule in &rules {
        check(&Factors { levels, rules: core::slice::from_ref(rule) });
    }
}

/// Rules that allow nothing give an empty array, and the search ends.
#[test]
fn contradictions_leave_nothing() {
    let rules = [rule(&[0], |_| true)];
    let factors = Factors { levels: &[2, 3], rules: &rules };
    assert!(factors.covering().is_empty());
    check(&factors);
}

/// The number of combinations is near the lower bound: the product of the two largest numbers of levels.
#[test]
fn combinations_are_few() {
    let (twelve, mixed) = ([3; 12], [5, 4, 4, 3, 3, 3, 2, 2, 2, 2, 2]);
    let num = |levels: &[usize]| Factors { levels, rules: &[] }.covering().len();
    println!("{} of 3^12, {} of the mixed ones", num(&twelve), num(&mixed));
    assert!(num(&twelve) <= 24 && num(&mixed) <= 30);
}
