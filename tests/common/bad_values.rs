//! NaN and infinity stay in the rows that see them.

use wattn::{AttentionOutput, Element};

use super::{Case, rows};

/// Puts one bad number after another into a case of 37 queries and keys, two KV heads of two query heads. Rows that do not see
/// it keep the bits of a clean run; rows that average it do not hide it.
pub fn check_bad_values<T: Element>(clean: &Case<T>, run: impl Fn(&Case<T>) -> AttentionOutput, what: &str) {
    let expected = run(clean);
    for (tensor, bad) in
        [("q", f32::NAN), ("k", f32::NAN), ("k", f32::INFINITY), ("v", f32::NAN), ("v", f32::NEG_INFINITY)]
    {
        let mut case = clean.clone();
        let (at, head) = (20, 1);
        let into = match tensor {
            "q" => &mut case.q.data_mut()[(at * 4 + head) * 16..],
            "k" => &mut case.k.data_mut()[(at * 2 + head) * 16..],
            _ => &mut case.v.data_mut()[(at * 2 + head) * 16..],
        };
        into[5] = T::from_f32(bad);
        let got = run(&case);
        for row in rows(&case.shape) {
            let [b, q, h] = row.map(|n| n as usize);
            let hit = if tensor == "q" {
                q == at && h == head
            } else {
                case.kv_head(row) == head && case.sees(row, at as u32)
            };
            let what = format!("{what}, {bad} in {tensor}: {row:?}");
            let (out, lse) = (got.out.row(b, q, h), got.lse.row(b, q, h)[0]);
            if !hit {
                let same = out.iter().zip(expected.out.row(b, q, h)).all(|(x, y)| x.to_bits() == y.to_bits());
                assert!(same && lse.to_bits() == expected.lse.row(b, q, h)[0].to_bits(), "{what} changed");
            } else if tensor == "v" {
                // Through k and q it reaches exp2, and WGSL promises nothing about exp2(NaN): lavapipe's is 0.
                assert!(!out[5].is_finite(), "{what} hides it: {out:?}");
            }
        }
    }
}
