//! The one list of problems, for the program and for the criterion benches.

use crate::{
    AttentionProblem, AttentionShape, DType, DeviceCaps, Granularity, Hip, Mask, Preset, SelectionMethod,
    SelectionProblem,
};

/// The quantity that varies in a group of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Series {
    /// Many query rows against equally many keys.
    Prefill,
    /// One query row against many keys.
    Decode,
    /// Query heads that share a KV head, from none to 16.
    Gqa,
    /// Widths of heads.
    Width,
    /// f16 and bf16 storage.
    Storage,
    /// Selection alone, a block of queries or one, up to a million keys.
    Selection,
    /// A prompt's queries: dense attention, selection, attention to the selected blocks.
    SparsePrefill,
    /// The same parts for decoding.
    SparseDecode,
}

impl Series {
    /// Every series, in the order of the list.
    pub const ALL: [Self; 8] = [
        Self::Prefill,
        Self::Decode,
        Self::Gqa,
        Self::Width,
        Self::Storage,
        Self::Selection,
        Self::SparsePrefill,
        Self::SparseDecode,
    ];

    /// The name, as in [`Case::id`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Gqa => "gqa",
            Self::Width => "width",
            Self::Storage => "storage",
            Self::Selection => "selection",
            Self::SparsePrefill => "sparse-prefill",
            Self::SparseDecode => "sparse-decode",
        }
    }
}

/// A timed part of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Part {
    /// Dense attention.
    Dense,
    /// A selection, all stages.
    Select,
    /// Attention to the selected blocks.
    Attend,
    /// Selection and attention to it.
    Sparse,
    /// A mean step of decoding over a cycle of refreshes.
    Step,
}

impl Part {
    /// The name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Select => "select",
            Self::Attend => "attend",
            Self::Sparse => "sparse",
            Self::Step => "step",
        }
    }

    /// Whether it needs lists before it runs.
    pub(super) const fn reads_lists(self) -> bool {
        matches!(self, Self::Attend)
    }

    /// Steps of a call, of which the time is the mean.
    pub(super) const fn steps(self, cycle: u32) -> u32 {
        if matches!(self, Self::Step) { cycle } else { 1 }
    }
}

/// The number of cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Few, in under three minutes on a software driver with two cores.
    Quick,
    /// All.
    Full,
}

/// One of these problems: causal, one sequence, with lse.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    series: Series,
    name: String,
    problem: AttentionProblem,
    selection: Option<SelectionProblem>,
}

/// Query heads, KV heads, queries, keys.
type Sizes = [u32; 4];

impl Case {
    /// Dense attention over contiguous tensors: widths are multiples of 8, and so are all strides.
    #[must_use]
    pub fn dense(series: Series, sizes: Sizes, width: u32, dtype: DType) -> Self {
        let shape = shape(sizes, width);
        let storage = if dtype == DType::F32 { String::new() } else { format!("-{dtype}") };
        let problem = AttentionProblem::new(shape, dtype).with_mask(Mask::Causal).with_lse().with_aligned_rows();
        Self { series, name: format!("{}{storage}", size_name(&shape)), problem, selection: None }
    }

    /// A selection, and attention to it beside dense attention, in f32 with heads 128 wide.
    #[must_use]
    pub fn sparse(series: Series, method_name: &str, sizes: Sizes, method: impl Into<SelectionMethod>) -> Self {
        Self::sparse_of(series, method_name, sizes, method, DType::F32)
    }

    /// The same case in another type.
    fn sparse_of(
        series: Series,
        method_name: &str,
        sizes: Sizes,
        method: impl Into<SelectionMethod>,
        dtype: DType,
    ) -> Self {
        let shape = shape(sizes, 128);
        let dense = Self::dense(series, sizes, 128, dtype);
        let selection = SelectionProblem::new(shape, dtype, method);
        Self { name: format!("{method_name}-{}", dense.name), selection: Some(scaled(selection)), ..dense }
    }

    /// The same case with lists shared by the query heads of a KV head.
    #[must_use]
    fn shared(mut self) -> Self {
        self.selection = self.selection.map(|selection| selection.with_granularity(Granularity::KvHead));
        self
    }

    /// The series it belongs to.
    #[must_use]
    pub const fn series(&self) -> Series {
        self.series
    }

    /// The sizes: `heads x queries x keys x width`, heads as `query heads - KV heads` where these differ.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `series/name`: unique in the list.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}/{}", self.series.name(), self.name)
    }

    /// Dense attention.
    #[must_use]
    pub const fn problem(&self) -> &AttentionProblem {
        &self.problem
    }

    /// The selection, if there is one.
    #[must_use]
    pub const fn selection(&self) -> Option<&SelectionProblem> {
        self.selection.as_ref()
    }

    /// Attention to the selected blocks.
    #[must_use]
    pub fn sparse_problem(&self) -> Option<AttentionProblem> {
        self.selection.as_ref().map(|selection| self.problem.clone().with_blocks(selection.blocks()))
    }

    /// The timed parts, in order.
    #[must_use]
    pub fn parts(&self) -> &'static [Part] {
        match (self.series, &self.selection) {
            (_, None) => &[Part::Dense],
            (Series::Selection, _) => &[Part::Select],
            // Lists live for more than one step only where single queries are decoded.
            (Series::SparseDecode, _) => &[Part::Dense, Part::Select, Part::Attend, Part::Sparse, Part::Step],
            _ => &[Part::Dense, Part::Select, Part::Attend, Part::Sparse],
        }
    }

    /// Steps of a cycle of refreshes.
    #[must_use]
    pub fn cycle(&self) -> u32 {
        self.selection.as_ref().map_or(1, SelectionProblem::refresh_interval).max(1)
    }

    /// The same case with narrower heads, named accordingly, where k or v would exceed the device's binding limit.
    #[must_use]
    pub fn fitted(&self, caps: &DeviceCaps) -> Self {
        let shape = *self.problem.shape();
        let available = caps.max_storage_binding_bytes.min(caps.max_buffer_bytes);
        let keys = u64::from(shape.num_kv_heads) * u64::from(shape.seq_len_kv) * self.problem.dtype().size_bytes();
        let mut width = shape.head_dim;
        while width > 16 && keys * u64::from(width) > available {
            width /= 2;
        }
        if width == shape.head_dim {
            return self.clone();
        }
        let narrow = AttentionShape { head_dim: width, head_dim_v: width, ..shape };
        let problem =
            AttentionProblem::new(narrow, self.problem.dtype()).with_mask(Mask::Causal).with_lse().with_aligned_rows();
        let selection = self.selection.as_ref().map(|selection| {
            scaled(SelectionProblem::new(narrow, selection.dtype(), selection.method().clone()))
                .with_granularity(selection.blocks().granularity)
        });
        let name = self.name.replace(&size_name(&shape), &size_name(&narrow));
        Self { series: self.series, name, problem, selection }
    }
}

/// A power of two as scale ranks candidates like any other scale, and keeps scores exact, so that every device must give exactly the
/// oracle's lists.
fn scaled(selection: SelectionProblem) -> SelectionProblem {
    selection.with_selection_scale(0.125)
}

const fn shape([num_q_heads, num_kv_heads, seq_len_q, seq_len_kv]: Sizes, width: u32) -> AttentionShape {
    let (head_dim, head_dim_v) = (width, width);
    AttentionShape { batch_size: 1, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim, head_dim_v }
}

/// The sizes, as part of a name.
pub(super) fn size_name(shape: &AttentionShape) -> String {
    let AttentionShape { num_q_heads, num_kv_heads, seq_len_q, seq_len_kv, head_dim, .. } = *shape;
    let heads =
        if num_q_heads == num_kv_heads { num_q_heads.to_string() } else { format!("{num_q_heads}-{num_kv_heads}") };
    format!("{heads}x{seq_len_q}x{seq_len_kv}x{head_dim}")
}

/// The cases of a scope, series by series, in each from the least work to the most.
#[must_use]
pub fn cases(scope: Scope) -> Vec<Case> {
    let mut cases = dense_cases(scope);
    if scope == Scope::Full {
        cases.extend(selection_cases());
    }
    cases.extend(sparse_cases(scope));
    cases
}

fn dense_cases(scope: Scope) -> Vec<Case> {
    use Series::{Decode, Gqa, Prefill, Storage, Width};
    let full = scope == Scope::Full;
    let f32 = |series, sizes, width| Case::dense(series, sizes, width, DType::F32);
    // The first three of prefill and the first two of decode are those of `benches/peers/ort.py`.
    let mut cases = vec![
        f32(Prefill, [8, 8, 1024, 1024], 64),
        f32(Prefill, [4, 4, 2048, 2048], 128),
        f32(Prefill, [2, 2, 4096, 4096], 128),
        f32(Prefill, [32, 32, 4096, 4096], 128),
    ];
    if full {
        cases.extend([f32(Prefill, [32, 32, 8192, 8192], 128), f32(Prefill, [32, 32, 16_384, 16_384], 128)]);
    }
    cases.extend([f32(Decode, [8, 8, 1, 4096], 128), f32(Decode, [8, 8, 1, 16_384], 128)]);
    if full {
        cases.extend([f32(Decode, [8, 8, 1, 65_536], 128), f32(Decode, [8, 8, 1, 131_072], 128)]);
    }
    let groups: &[u32] = if full { &[1, 2, 4, 8, 16] } else { &[4, 16] };
    cases.extend(groups.iter().map(|group| f32(Gqa, [16, 16 / group, 1, 8192], 128)));
    if full {
        cases.extend(groups.iter().map(|group| f32(Gqa, [16, 16 / group, 1024, 1024], 128)));
    }
    let widths: &[u32] = if full { &[32, 64, 96, 128, 192, 256] } else { &[64, 256] };
    cases.extend(widths.iter().map(|&width| f32(Width, [4, 4, 1024, 1024], width)));
    if full {
        cases.extend(widths.iter().map(|&width| f32(Width, [8, 8, 1, 8192], width)));
    }
    for dtype in [DType::BF16, DType::F16] {
        let mut of = |sizes| cases.push(Case::dense(Storage, sizes, 128, dtype));
        of([4, 4, 1024, 1024]);
        of([8, 8, 1, 16_384]);
        if full || dtype == DType::F16 {
            of([32, 32, 4096, 4096]);
        }
        // The cases of `benches/peers/torch_attention.py`.
        if full && dtype == DType::F16 {
            [8192, 16_384, 32_768].into_iter().for_each(|len| of([32, 32, len, len]));
            [4096, 16_384, 65_536].into_iter().for_each(|len| of([32, 32, 1, len]));
            [4096, 16_384, 65_536, 131_072].into_iter().for_each(|len| of([32, 8, 1, len]));
        }
    }
    cases
}

fn selection_cases() -> Vec<Case> {
    let methods: [(&str, u32, SelectionMethod); 4] = [
        ("hip", 64, Hip::default().into()),
        ("hip", 1, Hip { refresh_interval: 1, ..Hip::decode() }.into()),
        ("infinite-hip", 64, Preset::ThreeK.into()),
        ("infinite-hip", 1, Preset::ThreeK.into()),
    ];
    let lengths = (13..=20).map(|log2| 1u32 << log2);
    let of = |(name, queries, method): (&'static str, u32, SelectionMethod)| {
        lengths.clone().map(move |keys| Case::sparse(Series::Selection, name, [1, 1, queries, keys], method.clone()))
    };
    methods.into_iter().flat_map(of).collect()
}

fn sparse_cases(scope: Scope) -> Vec<Case> {
    use Series::{SparseDecode, SparsePrefill};
    let lengths: &[u32] = match scope {
        Scope::Quick => &[4096, 16_384, 65_536, 131_072],
        Scope::Full => &[2048, 4096, 8192, 16_384, 32_768, 65_536, 131_072],
    };
    let mut cases = Vec::new();
    for (series, queries, hip) in [(SparsePrefill, 1024, Hip::default()), (SparseDecode, 1, Hip::decode())] {
        cases.extend(lengths.iter().map(|&keys| Case::sparse(series, "hip", [2, 2, queries, keys], hip)));
        let infinite = |queries, keys| Case::sparse(series, "infinite-hip", [2, 1, queries, keys], Preset::ThreeK);
        cases.extend(lengths.iter().map(|&keys| infinite(queries, keys)));
        if scope == Scope::Full {
            cases.push(infinite(queries.min(256), 1 << 20));
        }
    }
    if scope == Scope::Full {
        // Dense attention reads the keys of a KV head once for all its query heads; with separate lists each head reads its own.
        let of = |name| Case::sparse(SparseDecode, name, [4, 1, 1, 131_072], Hip::decode());
        cases.extend([of("hip"), of("hip-list-per-kv-head").shared()]);
        // The length at which a step with new lists is to be faster than the dense step of a whole layer.
        let layer = |keys| Case::sparse_of(SparseDecode, "hip", [32, 32, 1, keys], Hip::decode(), DType::F16);
        cases.extend([layer(32_768), layer(131_072)]);
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_is_valid_and_has_a_name_of_its_own() {
        for scope in [Scope::Quick, Scope::Full] {
            let cases = cases(scope);
            let ids: BTreeSet<String> = cases.iter().map(Case::id).collect();
            assert_eq!(ids.len(), cases.len());
            for case in &cases {
                case.problem().validate().unwrap();
                if let (Some(selection), Some(sparse)) = (case.selection(), case.sparse_problem()) {
                    selection.validate().unwrap();
                    sparse.validate().unwrap();
                }
            }
        }
        let quick: BTreeSet<String> = cases(Scope::Quick).iter().map(Case::id).collect();
        let full: BTreeSet<String> = cases(Scope::Full).iter().map(Case::id).collect();
        assert!(quick.is_subset(&full), "{:?}", quick.difference(&full));
    }

    #[test]
    fn names_say_the_sizes() {
        let case = Case::dense(Series::Gqa, [16, 4, 1, 8192], 128, DType::F16);
        assert_eq!(case.id(), "gqa/16-4x1x8192x128-f16");
        let case = Case::sparse(Series::SparseDecode, "hip", [2, 2, 1, 131_072], Hip::decode());
        assert_eq!(case.id(), "sparse-decode/hip-2x1x131072x128");
        assert_eq!(case.cycle(), 8);
    }

    #[test]
    fn heads_are_narrower_where_keys_do_not_fit() {
        let case = Case::sparse(Series::Selection, "hip", [1, 1, 1, 1 << 20], Hip::decode());
        let fitted = case.fitted(&DeviceCaps::BASELINE);
        assert_eq!(fitted.name(), "hip-1x1x1048576x32");
        assert_eq!(fitted.problem().shape().head_dim_v, 32);
        assert_eq!(fitted.selection().unwrap().shape().head_dim, 32);
        let small = Case::dense(Series::Prefill, [1, 1, 8, 8], 64, DType::F32);
        assert_eq!(small.fitted(&DeviceCaps::BASELINE), small);
    }
}
