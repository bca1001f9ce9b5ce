//! Which keys queries see, by their positions.

/// Which keys a query sees. Query `i` sits at position `p = i + seq_len_kv - seq_len_q` (the last query sits on the
/// last key: bottom-right alignment), with the actual key length of its sequence; [`Mask::CausalAt`] sets the first query's position instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mask {
    /// Every key.
    #[default]
    Full,
    /// Keys up to `p`.
    Causal,
    /// Keys from `p - left` to `p + right`; `None` leaves that side open. `right: Some(0)` is causal.
    Window {
        /// Keys before the query's own position.
        left: Option<u32>,
        /// Keys after it.
        right: Option<u32>,
    },
    /// Query `i` sees keys up to `first + i`, wherever the keys end. Key lengths must be those of the shape:
    /// with `seq_lens_kv`, which already determine where queries sit, this mask is
    /// [`Error::Argument`](crate::Error::Argument).
    CausalAt {
        /// The last key that the first query sees.
        first: u32,
    },
}

impl Mask {
    /// The last `keys` keys up to the query's own, included: the sliding-window attention of Mistral and others.
    ///
    /// ```
    /// use wattn::Mask;
    /// let mask = Mask::sliding(3);
    /// assert_eq!(mask.visible(4, 8, 8), 2..5);
    /// assert_eq!(mask.visible(1, 8, 8), 0..2); // the first queries have fewer
    /// assert_eq!(Mask::sliding(1).visible(4, 8, 8), 4..5); // itself alone
    /// ```
    ///
    /// # Panics
    /// Where `keys` is 0: a query that sees nothing is no sliding window.
    #[must_use]
    pub const fn sliding(keys: u32) -> Self {
        assert!(keys > 0, "a sliding window holds the query's own key, so that `keys` is at least 1");
        Self::Window { left: Some(keys - 1), right: Some(0) }
    }

    /// Keys up to `distance` before and after the query's own, that one included: local attention of encoders.
    ///
    /// ```
    /// use wattn::Mask;
    /// assert_eq!(Mask::around(2).visible(4, 8, 8), 2..7);
    /// assert_eq!(Mask::around(0).visible(4, 8, 8), 4..5);
    /// ```
    #[must_use]
    pub const fn around(distance: u32) -> Self {
        Self::Window { left: Some(distance), right: Some(distance) }
    }

    /// Keys up to the query's own, where the first query sits on key `first`: a piece of a prompt in a buffer that has room for more
    /// keys, or top-left alignment with `first` 0.
    ///
    /// ```
    /// use wattn::Mask;
    /// let mask = Mask::causal_at(10);
    /// assert_eq!(mask.visible(3, 4, 64), 0..14); // of 64 keys
    /// assert_eq!(mask.visible(3, 4, 12), 0..12); // of 12
    /// assert_eq!(mask.visible(2, 4, 14), Mask::Causal.visible(2, 4, 14)); // the same where the last query sits on the last key
    /// ```
    #[must_use]
    pub const fn causal_at(first: u32) -> Self {
        Self::CausalAt { first }
    }

    /// The largest numbers of keys before and after its position that a query sees, as in [`Mask::Window`]. The number after is negative
    /// where [`Mask::CausalAt`] puts queries before the last keys.
    #[must_use]
    pub fn bounds(self, seq_len_q: u32, seq_len_kv: u32) -> (Option<i64>, Option<i64>) {
        match self {
            Self::Full => (None, None),
            Self::Causal => (None, Some(0)),
            Self::Window { left, right } => (left.map(i64::from), right.map(i64::from)),
            Self::CausalAt { first } => (None, Some(i64::from(first) + i64::from(seq_len_q) - i64::from(seq_len_kv))),
        }
    }

    /// The half-open range of keys that query `q_index` sees.
    #[must_use]
    pub fn visible(self, q_index: u32, seq_len_q: u32, seq_len_kv: u32) -> core::ops::Range<u32> {
        let (left, right) = self.bounds(seq_len_q, seq_len_kv);
        let position = i64::from(q_index) + i64::from(seq_len_kv) - i64::from(seq_len_q);
        let clamp = |key: i64| key.clamp(0, i64::from(seq_len_kv)) as u32;
        let start = left.map_or(0, |left| clamp(position - left));
        let end = right.map_or(seq_len_kv, |right| clamp(position + right + 1));
        start..end.max(start)
    }
}

impl core::fmt::Display for Mask {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let side = |n: Option<u32>| n.map_or_else(|| "open".to_owned(), |n| n.to_string());
        match *self {
            Self::Full => f.write_str("full"),
            Self::Causal => f.write_str("causal"),
            Self::Window { left, right } => write!(f, "window(left {}, right {})", side(left), side(right)),
            Self::CausalAt { first } => write!(f, "causal from key {first}"),
        }
    }
}
