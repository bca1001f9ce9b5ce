//! NaN and infinity show in the rows that see them, and in no other row.

use wattn::{AttentionOutput, Element, LSE_EMPTY};

use super::{Case, Exp, rows};

/// Every kind of number that is not finite, in each tensor.
const BAD: [(&str, f32); 9] = [
    ("q", f32::NAN),
    ("q", f32::INFINITY),
    ("q", f32::NEG_INFINITY),
    ("k", f32::NAN),
    ("k", f32::INFINITY),
    ("k", f32::NEG_INFINITY),
    ("v", f32::NAN),
    ("v", f32::INFINITY),
    ("v", f32::NEG_INFINITY),
];

/// The column of the bad number.
const COLUMN: usize = 5;

/// Puts one bad number after another into a case of 37 queries and keys, two KV heads of two query heads; `run` gives the result, `exp` the
/// exponential of its weights. Then the same with scores so far apart that most weights are 0.
pub fn check_bad_values<T: Element>(clean: &Case<T>, exp: Exp, run: impl Fn(&Case<T>) -> AttentionOutput, what: &str) {
    check_each(clean, exp, &run, what);
    let mut steep = clean.clone();
    steep.q.data_mut().iter_mut().for_each(|q| *q = T::from_f32(q.to_f32() * 200.0));
    check_each(&steep, exp, &run, &format!("{what}, steep"));
}

fn check_each<T: Element>(clean: &Case<T>, exp: Exp, run: &impl Fn(&Case<T>) -> AttentionOutput, what: &str) {
    let expected = run(clean);
    for (tensor, bad) in BAD {
        let mut case = clean.clone();
        let (at, head) = (20, 1);
        let into = match tensor {
            "q" => &mut case.q.data_mut()[(at * 4 + head) * 16..],
            "k" => &mut case.k.data_mut()[(at * 2 + head) * 16..],
            _ => &mut case.v.data_mut()[(at * 2 + head) * 16..],
        };
        into[COLUMN] = T::from_f32(bad);
        let (got, oracle) = (run(&case), case.oracle());
        for row in rows(&case.shape) {
            let [b, q, h] = row.map(|n| n as usize);
            let hit = if tensor == "q" {
                q == at && h == head
            } else {
                case.kv_head(row) == head && case.sees(row, at as u32)
            };
            let what = format!("{what}, {bad} in {tensor}: {row:?}");
            let (out, lse) = (got.out.row(b, q, h), got.lse.row(b, q, h)[0]);
            let (clean_out, clean_lse) = (expected.out.row(b, q, h), expected.lse.row(b, q, h)[0]);
            let same = |x: &f32, y: &f32| x.to_bits() == y.to_bits();
            if !hit {
                assert!(out.iter().zip(clean_out).all(|(x, y)| same(x, y)) && same(&lse, &clean_lse), "{what} changed");
            } else if tensor == "v" {
                assert!(same(&lse, &clean_lse), "{what}: lse {lse}, not {clean_lse}");
                for (column, (x, y)) in out.iter().zip(clean_out).enumerate() {
                    let found = if column != COLUMN {
                        same(x, y)
                    } else if bad.is_nan() {
                        x.is_nan()
                    } else {
                        !x.is_finite()
                    };
                    assert!(found, "{what}, column {column}: {out:?}");
                }
            } else {
                check_scores(out, lse, oracle.out.row(b, q, h), oracle.lse.row(b, q, h)[0], exp, &what);
            }
        }
    }
}

/// A row with a bad score: NaN in every column where the oracle has NaN, and the oracle's numbers where the score was -infinity.
fn check_scores(out: &[f32], lse: f32, oracle_out: &[f32], oracle_lse: f32, exp: Exp, what: &str) {
    if oracle_lse.is_nan() {
        assert!(lse.is_nan() && out.iter().all(|x| x.is_nan()), "{what} is hidden: {lse} {out:?}");
        return;
    }
    if oracle_lse == LSE_EMPTY {
        assert!(lse == LSE_EMPTY && out.iter().all(|&x| x == 0.0), "{what}: sees nothing, and gives {lse} {out:?}");
        return;
    }
    // A score of 16 products may be as large as 800, and off by 19 roundings of that, 1e-3; so is the exponent of its weight, and the
    // exponent of the largest weight. A weight in f16 is off by 2^-11 besides.
    let allowed = if matches!(exp, Exp::Matrix(_)) { 2.5e-3 } else { 2e-3 };
    for (x, y) in out.iter().zip(oracle_out) {
        assert!((x - y).abs() <= allowed, "{what}: {out:?}, not {oracle_out:?}");
    }
    assert!((lse - oracle_lse).abs() <= allowed * (1.0 + oracle_lse.abs()), "{what}: lse {lse}, not {oracle_lse}");
}
