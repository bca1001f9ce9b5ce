//! The best of many scores.

/// An integer that orders as the score does; -0 equals +0.
pub(in crate::cpu) fn order(score: f32) -> u32 {
    let bits = if score == 0.0 { 0 } else { score.to_bits() };
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// Scratch memory of [`top_k`].
#[derive(Debug, Default)]
pub(in crate::cpu) struct TopK {
    keys: Vec<u32>,
}

impl TopK {
    /// Indices of the `keep` largest scores, ascending; among equal scores the first ones are kept. All indices when there are at most
    /// `keep`. Linear in the number of scores.
    pub(super) fn indices<'a>(&mut self, scores: &'a [f32], keep: usize) -> impl Iterator<Item = usize> + use<'a> {
        self.indices_by(scores.len(), |index| order(scores[index]), keep)
    }

    /// The same for `count` integers that are compared directly.
    pub(in crate::cpu) fn indices_by<K: Fn(usize) -> u32>(
        &mut self,
        count: usize,
        key: K,
        keep: usize,
    ) -> impl Iterator<Item = usize> + use<K> {
        let (threshold, mut ties) = self.threshold(count, &key, keep);
        (0..count).filter(move |&index| {
            let key = key(index);
            let tie = key == threshold && ties > 0;
            ties -= usize::from(tie);
            key > threshold || tie
        })
    }

    /// The smallest kept key, and the number of kept candidates with this key.
    fn threshold(&mut self, count: usize, key: impl Fn(usize) -> u32, keep: usize) -> (u32, usize) {
        if keep == 0 || count == 0 {
            return (u32::MAX, 0);
        }
        if keep >= count {
            return (0, usize::MAX);
        }
        self.keys.clear();
        self.keys.extend((0..count).map(key));
        let (_, &mut threshold, above) = self.keys.select_nth_unstable(count - keep);
        (threshold, keep - above.iter().filter(|&&key| key > threshold).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LSE_EMPTY;

    fn by_sorting(scores: &[f32], keep: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap().then(a.cmp(&b)));
        order.truncate(keep);
        order.sort_unstable();
        order
    }

    #[test]
    fn agrees_with_a_sort_on_scores_full_of_ties() {
        let mut state = 7u32;
        for len in [0usize, 1, 2, 3, 64, 513] {
            for values in [1, 3, 40] {
                let scores: Vec<f32> = (0..len)
                    .map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        ((state >> 24) % values) as f32 - (values / 2) as f32
                    })
                    .collect();
                for keep in [0, 1, 2, len / 2, len.saturating_sub(1), len, len + 1] {
                    let got: Vec<usize> = TopK::default().indices(&scores, keep).collect();
                    assert_eq!(got, by_sorting(&scores, keep), "{len} scores of {values} values, {keep} kept");
                }
            }
        }
    }

    #[test]
    fn zeros_tie_whatever_their_sign_and_masked_comes_last() {
        let scores = [LSE_EMPTY, -0.0, 0.0, -0.0, 1.0, f32::MIN, -1e-30];
        let kept = |keep| TopK::default().indices(&scores, keep).collect::<Vec<_>>();
        assert_eq!(kept(2), [1, 4]);
        assert_eq!(kept(3), [1, 2, 4]);
        assert_eq!(kept(5), [1, 2, 3, 4, 6]);
        assert_eq!(kept(6), [0, 1, 2, 3, 4, 6]);
    }
}
