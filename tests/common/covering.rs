//! Pairwise covering arrays: few combinations of many factors in which every allowed pair of levels occurs. Most faults that need more than
//! one option need two.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

/// Whether the levels of some factors cannot go together.
pub type Broken<'a> = Box<dyn Fn(&[usize]) -> bool + 'a>;

/// A combination of levels that is not allowed.
pub struct Rule<'a> {
    /// The factors that it looks at.
    pub factors: &'static [usize],
    /// Whether these levels break it, in the order of `factors`.
    pub broken: Broken<'a>,
}

impl Rule<'_> {
    /// Whether the levels set so far break it; `false` while one of its factors is open.
    fn is_broken(&self, row: &[Option<usize>]) -> bool {
        let levels: Option<Vec<usize>> = self.factors.iter().map(|&factor| row[factor]).collect();
        levels.is_some_and(|levels| (self.broken)(&levels))
    }
}

/// Factors by their numbers of levels, and the rules between them.
pub struct Factors<'a> {
    pub levels: &'a [usize],
    pub rules: &'a [Rule<'a>],
}

/// Two levels: `(factor, level)` of each.
type Pair = [(usize, usize); 2];

impl Factors<'_> {
    /// Combinations, as a level of each factor, in which every pair of levels occurs that some combination may have. The same on every run.
    pub fn covering(&self) -> Vec<Vec<usize>> {
        let (mut open, mut rows) = (self.pairs(), Vec::new());
        while let Some(&first) = open.first() {
            // Among the rows that begin with an open pair, the row that covers most pairs.
            let begin = |pair: &Pair| self.complete(&self.with(pair), |_| false, &open, rows.len());
            let tried = open.iter().step_by(open.len().div_ceil(TRIED)).filter_map(begin);
            let Some(best) = begin(&first).into_iter().chain(tried).max_by_key(|row| num_covered(row, &open)) else {
                // No combination has this pair.
                open.remove(0);
                continue;
            };
            open.retain(|pair| !covers(&best, pair));
            rows.push(best);
        }
        rows
    }

    /// For each way to break a rule, by the levels of its factors, a combination that breaks it and no other.
    pub fn breaking(&self, rule: usize) -> Vec<Vec<usize>> {
        let Rule { factors, broken, .. } = &self.rules[rule];
        let counts: Vec<usize> = factors.iter().map(|&factor| self.levels[factor]).collect();
        let ways = all(&counts).into_iter().filter(|levels| broken(levels));
        let complete = |(at, levels): (usize, Vec<usize>)| {
            let mut row = vec![None; self.levels.len()];
            factors.iter().zip(levels).for_each(|(&factor, level)| row[factor] = Some(level));
            self.complete(&row, |other| other == rule, &[], at)
        };
        ways.enumerate().filter_map(complete).collect()
    }

    /// Every pair of levels.
    fn pairs(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (first, &levels) in self.levels.iter().enumerate() {
            for (second, &others) in self.levels.iter().enumerate().skip(first + 1) {
                pairs.extend(all(&[levels, others]).iter().map(|at| [(first, at[0]), (second, at[1])]));
            }
        }
        pairs
    }

    fn with(&self, pair: &Pair) -> Vec<Option<usize>> {
        let mut row = vec![None; self.levels.len()];
        pair.iter().for_each(|&(factor, level)| row[factor] = Some(level));
        row
    }

    /// Sets the open factors of a row, so that many of the open pairs are covered and no rule is broken but those `excused`. Levels that
    /// cover nothing take turns by `turn`.
    fn complete(
        &self,
        row: &[Option<usize>],
        excused: impl Fn(usize) -> bool + Copy,
        open: &[Pair],
        turn: usize,
    ) -> Option<Vec<usize>> {
        let breaks =
            |row: &[Option<usize>]| self.rules.iter().enumerate().any(|(at, rule)| !excused(at) && rule.is_broken(row));
        // A factor without an allowed level is noticed at once, and not after all levels of all other factors.
        let dead_end = |factor: usize| {
            row[factor].is_none() && (0..self.levels[factor]).all(|level| breaks(&set(row, factor, level)))
        };
        if breaks(row) || (0..row.len()).any(dead_end) {
            return None;
        }
        let Some(factor) = row.iter().position(Option::is_none) else {
            return row.iter().copied().collect();
        };
        let count = self.levels[factor];
        let gain = |level: usize| {
            let has =
                |&(at, wanted): &(usize, usize)| if at == factor { wanted == level } else { row[at] == Some(wanted) };
            let touches = |pair: &&Pair| pair.iter().any(|&(at, _)| at == factor);
            open.iter().filter(touches).filter(|pair| pair.iter().all(has)).count()
        };
        let mut levels: Vec<usize> = (0..count).map(|level| (level + turn) % count).collect();
        levels.sort_by_key(|&level| core::cmp::Reverse(gain(level)));
        levels.into_iter().find_map(|level| self.complete(&set(row, factor, level), excused, open, turn))
    }
}

/// Beginnings that are tried for each row.
const TRIED: usize = 12;

fn set(row: &[Option<usize>], factor: usize, level: usize) -> Vec<Option<usize>> {
    let mut row = row.to_vec();
    row[factor] = Some(level);
    row
}

fn covers(row: &[usize], pair: &Pair) -> bool {
    pair.iter().all(|&(factor, level)| row[factor] == level)
}

fn num_covered(row: &[usize], open: &[Pair]) -> usize {
    open.iter().filter(|pair| covers(row, pair)).count()
}

/// Every choice of a level of each factor.
fn all(levels: &[usize]) -> Vec<Vec<usize>> {
    levels.iter().fold(vec![Vec::new()], |rows, &count| {
        rows.iter().flat_map(|row| (0..count).map(move |level| [&row[..], &[level]].concat())).collect()
    })
}

/// The promises of [`Factors::covering`] and [`Factors::breaking`], checked by brute force over all combinations.
pub fn check(factors: &Factors<'_>) {
    let broken = |row: &[usize]| -> Vec<usize> {
        let row: Vec<_> = row.iter().copied().map(Some).collect();
        (0..factors.rules.len()).filter(|&rule| factors.rules[rule].is_broken(&row)).collect()
    };
    let every = all(factors.levels);
    let covering = factors.covering();
    assert_eq!(covering, factors.covering(), "another array on another run");
    assert!(covering.iter().all(|row| broken(row).is_empty()));
    let allowed: Vec<&Vec<usize>> = every.iter().filter(|row| broken(row).is_empty()).collect();
    for pair in factors.pairs() {
        let possible = allowed.iter().any(|row| covers(row, &pair));
        assert_eq!(covering.iter().any(|row| covers(row, &pair)), possible, "{pair:?}");
    }
    for rule in 0..factors.rules.len() {
        let breaking = factors.breaking(rule);
        assert!(breaking.iter().all(|row| broken(row) == [rule]), "rule {rule}: {breaking:?}");
        let levels = |row: &[usize]| factors.rules[rule].factors.iter().map(|&at| row[at]).collect::<Vec<_>>();
        for row in every.iter().filter(|row| broken(row) == [rule]) {
            assert!(breaking.iter().any(|found| levels(found) == levels(row)), "rule {rule}: {row:?} is left out");
        }
    }
}
