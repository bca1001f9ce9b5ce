//! The vector code of the CPU path, compiled for several instruction sets and chosen at run time.

use pulp::{Simd, WithSimd};

/// Score of a masked key: its weight is exactly 0, whatever the maximum is.
pub(super) const HIDDEN: f32 = f32::NEG_INFINITY;

/// Running maximum before any key: finite, so that `HIDDEN - FLOOR` is not NaN.
pub(super) const FLOOR: f32 = f32::MIN;

/// Row counts of a tile are padded to this: a multiple of every vector width.
pub(super) const LANES: usize = 16;

/// `2^x` for `x <= 0`, within 2 ulp. Below `2^-126` it is 0; NaN stays NaN.
///
/// `x = n + f` with `n` the nearest integer; `2^f` is a minimax polynomial (relative error 2e-9 on [-1/2, 1/2], exactly
/// 1 at 0) and `2^n` is put together from its exponent bits.
#[inline(always)]
fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const C1: f32 = core::f32::consts::LN_2;
    const C2: f32 = 0.240_226_48;
    const C3: f32 = 0.055_503_324;
    const C4: f32 = 0.009_618_437;
    const C5: f32 = 0.001_339_887_5;
    const C6: f32 = 0.000_153_533_62;
    // Adding it leaves `n + 127`, the biased exponent, in the low bits of the mantissa.
    const TO_BITS: f32 = 12_582_912.0 + 127.0;

    // A comparison instead of `max`, which may drop a NaN. At -127 the exponent bits are 0, and so is the result.
    let lowest = simd.splat_f32s(-127.0);
    let x = simd.select_f32s(simd.less_than_f32s(x, lowest), lowest, x);
    let shifted = simd.add_f32s(x, simd.splat_f32s(TO_BITS));
    let scale = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let f = simd.sub_f32s(x, simd.sub_f32s(shifted, simd.splat_f32s(TO_BITS)));
    let mut p = simd.splat_f32s(C6);
    for c in [C5, C4, C3, C2, C1, 1.0] {
        p = simd.mul_add_e_f32s(p, f, simd.splat_f32s(c));
    }
    simd.mul_f32s(p, simd.transmute_f32s_u32s(scale))
}

/// One step of the online softmax over a tile of base-2 scores, `[keys, ld]` with the rows along the vector lanes.
///
/// Scores become weights `2^(score - max)`; `max` and `sum` `[ld]` are carried on; `rescale` `[ld]` is the factor on
/// earlier sums. Returns whether any factor differs from 1.
pub(super) struct SoftmaxRows<'a> {
    pub(super) scores: &'a mut [f32],
    pub(super) max: &'a mut [f32],
    pub(super) sum: &'a mut [f32],
    pub(super) rescale: &'a mut [f32],
}

impl WithSimd for SoftmaxRows<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        let (scores, _) = S::as_mut_simd_f32s(self.scores);
        let (max, _) = S::as_mut_simd_f32s(self.max);
        let (sum, _) = S::as_mut_simd_f32s(self.sum);
        let (rescale, _) = S::as_mut_simd_f32s(self.rescale);
        let mut rows = Rows { simd, scores, max, sum, rescale };
        let ld = rows.max.len();
        let mut at = 0;
        // Four vectors at a time hide the latency of the polynomial; the rest goes one by one.
        while at + 4 <= ld {
            rows.step::<4>(at);
            at += 4;
        }
        while at < ld {
            rows.step::<1>(at);
            at += 1;
        }
        self.rescale.iter().any(|&factor| factor != 1.0)
    }
}

struct Rows<'a, S: Simd> {
    simd: S,
    scores: &'a mut [S::f32s],
    max: &'a mut [S::f32s],
    sum: &'a mut [S::f32s],
    rescale: &'a mut [S::f32s],
}

impl<S: Simd> Rows<'_, S> {
    #[inline(always)]
    fn step<const N: usize>(&mut self, at: usize) {
        let simd = self.simd;
        let ld = self.max.len();
        let old: [S::f32s; N] = core::array::from_fn(|i| self.max[at + i]);
        let mut max = old;
        for scores in self.scores.chunks_exact(ld) {
            let scores = &scores[at..at + N];
            for i in 0..N {
                max[i] = simd.max_f32s(max[i], scores[i]);
            }
        }
        let mut sum = [simd.splat_f32s(0.0); N];
        for scores in self.scores.chunks_exact_mut(ld) {
            let scores = &mut scores[at..at + N];
            for i in 0..N {
                let weight = exp2(simd, simd.sub_f32s(scores[i], max[i]));
                scores[i] = weight;
                sum[i] = simd.add_f32s(sum[i], weight);
            }
        }
        for i in 0..N {
            let rescale = exp2(simd, simd.sub_f32s(old[i], max[i]));
            self.sum[at + i] = simd.mul_add_e_f32s(self.sum[at + i], rescale, sum[i]);
            self.max[at + i] = max[i];
            self.rescale[at + i] = rescale;
        }
    }
}

/// Multiplies every `[ld]` row of `values` by `factors` `[ld]`, lane by lane.
pub(super) struct ScaleRows<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) factors: &'a [f32],
}

impl WithSimd for ScaleRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (values, _) = S::as_mut_simd_f32s(self.values);
        let (factors, _) = S::as_simd_f32s(self.factors);
        for values in values.chunks_exact_mut(factors.len()) {
            for (value, &factor) in values.iter_mut().zip(factors) {
                *value = simd.mul_f32s(*value, factor);
            }
        }
    }
}

/// The same step for one row whose base-2 scores lie side by side. Returns the factor on earlier sums.
pub(super) struct SoftmaxRow<'a> {
    pub(super) scores: &'a mut [f32],
    pub(super) max: &'a mut f32,
    pub(super) sum: &'a mut f32,
}

impl WithSimd for SoftmaxRow<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let (body, tail) = S::as_mut_simd_f32s(self.scores);
        let mut maxes = simd.splat_f32s(FLOOR);
        for &scores in &*body {
            maxes = simd.max_f32s(maxes, scores);
        }
        let old = *self.max;
        let max = tail.iter().fold(old.max(simd.reduce_max_f32s(maxes)), |max, &score| max.max(score));
        let shift = simd.splat_f32s(max);
        let mut sums = simd.splat_f32s(0.0);
        for scores in &mut *body {
            *scores = exp2(simd, simd.sub_f32s(*scores, shift));
            sums = simd.add_f32s(sums, *scores);
        }
        let mut sum = simd.reduce_sum_f32s(sums);
        for score in tail {
            *score = exp2_lane(simd, *score - max);
            sum += *score;
        }
        let rescale = exp2_lane(simd, old - max);
        *self.sum = *self.sum * rescale + sum;
        *self.max = max;
        rescale
    }
}

/// [`exp2`] of one number: the first lane of a vector, so that body and tail of a row agree to the bit.
#[inline(always)]
fn exp2_lane<S: Simd>(simd: S, x: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (vectors, _) = S::as_mut_simd_f32s(&mut lanes);
    vectors[0] = exp2(simd, simd.splat_f32s(x));
    lanes[0]
}

/// `a · b` of two slices of one length.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_tail) = S::as_simd_f32s(a);
    let (b, b_tail) = S::as_simd_f32s(b);
    let mut sums = [simd.splat_f32s(0.0); 4];
    let (a, a_rest) = pulp::as_arrays::<4, _>(a);
    let (b, b_rest) = pulp::as_arrays::<4, _>(b);
    for (a, b) in a.iter().zip(b) {
        for i in 0..4 {
            sums[i] = simd.mul_add_e_f32s(a[i], b[i], sums[i]);
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        sums[i] = simd.mul_add_e_f32s(a, b, sums[i]);
    }
    let sum = simd.add_f32s(simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3]));
    let tail: f32 = a_tail.iter().zip(b_tail).map(|(a, b)| a * b).sum();
    simd.reduce_sum_f32s(sum) + tail
}

/// `to += factor * from`.
#[inline(always)]
pub(super) fn accumulate<S: Simd>(simd: S, to: &mut [f32], factor: f32, from: &[f32]) {
    let (to, to_tail) = S::as_mut_simd_f32s(to);
    let (from, from_tail) = S::as_simd_f32s(from);
    let factors = simd.splat_f32s(factor);
    for (to, &from) in to.iter_mut().zip(from) {
        *to = simd.mul_add_e_f32s(factors, from, *to);
    }
    for (to, from) in to_tail.iter_mut().zip(from_tail) {
        *to += factor * from;
    }
}

/// `scale * tanh(value / scale)` of every number of a slice, for a positive scale.
pub(super) struct Tanh<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) scale: f32,
}

impl WithSimd for Tanh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (body, tail) = S::as_mut_simd_f32s(self.values);
        let (scale, inverse) = (simd.splat_f32s(self.scale), simd.splat_f32s(1.0 / self.scale));
        for value in body {
            *value = simd.mul_f32s(scale, tanh(simd, simd.mul_f32s(*value, inverse)));
        }
        for value in tail {
            let mut lanes = [0.0; LANES];
            let (vectors, _) = S::as_mut_simd_f32s(&mut lanes);
            vectors[0] = simd.mul_f32s(scale, tanh(simd, simd.splat_f32s(*value * (1.0 / self.scale))));
            *value = lanes[0];
        }
    }
}

/// `tanh(x)` within 4 ulp; NaN stays NaN.
///
/// Below 0.625 an odd minimax polynomial (relative error 9e-9), above it `(1 - e) / (1 + e)` with `e = exp(-2 |x|)`.
#[inline(always)]
fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    const C: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_086, -0.005_704_985_5];
    let square = simd.mul_f32s(x, x);
    let mut p = simd.splat_f32s(C[4]);
    for c in [C[3], C[2], C[1], C[0]] {
        p = simd.mul_add_e_f32s(p, square, simd.splat_f32s(c));
    }
    let small = simd.mul_add_e_f32s(simd.mul_f32s(p, square), x, x);
    let magnitude = simd.abs_f32s(x);
    let e = exp2(simd, simd.mul_f32s(magnitude, simd.splat_f32s(-2.0 * core::f32::consts::LOG2_E)));
    let one = simd.splat_f32s(1.0);
    let large = simd.div_f32s(simd.sub_f32s(one, e), simd.add_f32s(one, e));
    let large = simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(0.0)), simd.neg_f32s(large), large);
    simd.select_f32s(simd.less_than_f32s(magnitude, simd.splat_f32s(0.625)), small, large)
}

/// Whether every number of a slice is finite.
pub(super) struct AllFinite<'a>(pub(super) &'a [f32]);

impl WithSimd for AllFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        // 0 * x is NaN for an infinite or NaN x, and a sum never loses a NaN.
        let (body, tail) = S::as_simd_f32s(self.0);
        let zero = simd.splat_f32s(0.0);
        let sums = body.iter().fold(zero, |sums, &x| simd.mul_add_e_f32s(x, zero, sums));
        simd.reduce_sum_f32s(sums) == 0.0 && tail.iter().all(|x| x.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Exp2<'a>(&'a mut [f32]);

    impl WithSimd for Exp2<'_> {
        type Output = ();
        fn with_simd<S: Simd>(self, simd: S) {
            for x in self.0 {
                *x = exp2_lane(simd, *x);
            }
        }
    }

    fn exp2_of(x: f32) -> [f32; 2] {
        let mut scalar = [x];
        Exp2(&mut scalar).with_simd(pulp::Scalar);
        let mut native = [x];
        pulp::Arch::new().dispatch(Exp2(&mut native));
        [native[0], scalar[0]]
    }

    #[test]
    fn exp2_is_within_two_ulp() {
        let mut worst = 0.0f64;
        // Every 4099th bit pattern (a prime) from 2^-40 to 126: every binade, and both halves of every [n, n + 1].
        for bits in (0x2b80_0000_u32..0x42fc_0000).step_by(4099) {
            let x = -f32::from_bits(bits);
            let exact = f64::from(x).exp2();
            let ulp = 2f64.powi(exact.log2().floor() as i32 - 23);
            for got in exp2_of(x) {
                worst = worst.max((f64::from(got) - exact).abs() / ulp);
            }
        }
        assert!(worst <= 2.0, "{worst} ulp");
    }

    #[test]
    fn exp2_at_its_edges() {
        for n in 0..=126 {
            assert_eq!(exp2_of(-(n as f32)), [2f32.powi(-n); 2]);
        }
        for x in [-127.0, -128.0, -150.0, -1e30, f32::MIN, HIDDEN, HIDDEN - FLOOR] {
            assert_eq!(exp2_of(x), [0.0; 2], "2^{x}");
        }
        assert!(exp2_of(f32::NAN).iter().all(|y| y.is_nan()));
        assert!(exp2_of(-f32::NAN).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn rows_along_lanes_agree_with_rows_along_memory() {
        // Five keys, rows in a block of four vectors and rows in single ones, whatever the width of a vector is.
        const LD: usize = 80;
        let scores: Vec<f32> = (0..5 * LD).map(|i| (i * 37 % 251) as f32 / 8.0 - 15.0).collect();
        let run = |scalar: bool| {
            let (mut weights, mut max, mut sum) = (scores.clone(), vec![1.5; LD], vec![2.0; LD]);
            let mut rescale = vec![0.0; LD];
            let op = SoftmaxRows { scores: &mut weights, max: &mut max, sum: &mut sum, rescale: &mut rescale };
            let changed = if scalar { op.with_simd(pulp::Scalar) } else { pulp::Arch::new().dispatch(op) };
            assert!(changed);
            (weights, max, sum, rescale)
        };
        let near = |a: f32, b: f32| (a - b).abs() <= 4.0 * f32::EPSILON * b.abs();
        for (weights, max, sum, rescale) in [run(false), run(true)] {
            for lane in 0..LD {
                let mut row: Vec<f32> = scores.iter().skip(lane).step_by(LD).copied().collect();
                let (mut row_max, mut row_sum) = (1.5, 2.0);
                let op = SoftmaxRow { scores: &mut row, max: &mut row_max, sum: &mut row_sum };
                let row_rescale = pulp::Arch::new().dispatch(op);
                assert!(near(rescale[lane], row_rescale) && near(sum[lane], row_sum), "lane {lane}");
                assert_eq!(max[lane], row_max, "lane {lane}");
                assert!(row.iter().enumerate().all(|(key, &x)| near(weights[key * LD + lane], x)), "lane {lane}");
            }
        }
    }

    #[test]
    fn tanh_is_within_four_ulp() {
        let mut worst = 0.0f64;
        let tanh_of = |x: f32| {
            let (mut scalar, mut native) = ([x; 3], [x; 37]);
            Tanh { values: &mut scalar, scale: 1.0 }.with_simd(pulp::Scalar);
            pulp::Arch::new().dispatch(Tanh { values: &mut native, scale: 1.0 });
            assert!(native.iter().all(|y| y.to_bits() == native[0].to_bits()), "{x}: {native:?}");
            [native[0], scalar[0]]
        };
        // Every 4099th bit pattern from 2^-40 to 128.
        for bits in (0x2b80_0000_u32..0x4300_0000).step_by(4099) {
            for x in [f32::from_bits(bits), -f32::from_bits(bits)] {
                let exact = f64::from(x).tanh();
                let ulp = 2f64.powi(exact.abs().log2().floor() as i32 - 23);
                for got in tanh_of(x) {
                    worst = worst.max((f64::from(got) - exact).abs() / ulp);
                }
            }
        }
        assert!(worst <= 4.0, "{worst} ulp");
        for (x, y) in [(0.0, 0.0), (1e30, 1.0), (f32::INFINITY, 1.0), (f32::NEG_INFINITY, -1.0)] {
            assert_eq!(tanh_of(x), [y; 2], "tanh {x}");
        }
        assert!(tanh_of(f32::NAN).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn a_nan_score_reaches_the_sum() {
        for at in 0..37 {
            let mut scores = [1.0f32; 37];
            scores[at] = f32::NAN;
            let (mut max, mut sum) = (FLOOR, 0.0);
            pulp::Arch::new().dispatch(SoftmaxRow { scores: &mut scores, max: &mut max, sum: &mut sum });
            assert!(sum.is_nan(), "NaN at {at}");
        }
    }

    #[test]
    fn one_number_that_is_not_finite_is_found_anywhere() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..37 {
                let mut values = [f32::MAX; 37];
                assert!(pulp::Arch::new().dispatch(AllFinite(&values)));
                values[at] = bad;
                assert!(!pulp::Arch::new().dispatch(AllFinite(&values)), "{bad} at {at}");
            }
        }
    }
}
