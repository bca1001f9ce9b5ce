//! Merging of partial attention results as a problem.

use crate::{AttentionProblem, Error, Result};

/// Merge of `num_parts` partial results `(out, lse)` of the same rows over disjoint sets of keys.
///
/// With `m = max(lse_i)`: `lse = m + ln(sum exp(lse_i - m))`, `out = sum exp(lse_i - lse) out_i`. A part whose lse is
/// [`LSE_EMPTY`](crate::LSE_EMPTY) is left out. The merge is associative and commutative up to rounding, and its order is fixed, so the
/// bits do not change from run to run. (Flash-decoding; FlashInfer, section 3.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MergeProblem {
    /// Partial results.
    pub num_parts: u32,
    /// Rows of each result.
    pub num_rows: u32,
    /// Width of a row of out: a multiple of 4 up to 256.
    pub head_dim_v: u32,
}

impl MergeProblem {
    /// Checks the rules that need no device.
    ///
    /// # Errors
    /// [`Error::Invalid`], naming the field, its value and the rule.
    pub fn validate(&self) -> Result<()> {
        if self.num_parts == 0 {
            return Err(Error::Invalid { field: "num_parts", value: 0, rule: "must be at least 1" });
        }
        let dim = self.head_dim_v;
        if dim == 0 || !dim.is_multiple_of(4) || dim > AttentionProblem::MAX_HEAD_DIM {
            let rule = "must be a multiple of 4 from 4 to 256";
            return Err(Error::Invalid { field: "head_dim_v", value: dim.into(), rule });
        }
        Ok(())
    }
}
