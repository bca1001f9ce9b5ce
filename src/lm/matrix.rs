//! Weights in their stored types.

use half::slice::HalfFloatSliceExt as _;
use half::{bf16, f16};

use crate::DType;

/// Elements of one type.
#[derive(Clone, Debug, PartialEq)]
pub enum Elements {
    /// f32.
    F32(Vec<f32>),
    /// f16.
    F16(Vec<f16>),
    /// bf16.
    BF16(Vec<bf16>),
}

impl Elements {
    /// The type.
    #[must_use]
    pub const fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::BF16(_) => DType::BF16,
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) => elements.len(),
            Self::BF16(elements) => elements.len(),
        }
    }

    /// Whether it has no weights.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, as they go into a buffer.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(elements) => bytemuck::cast_slice(elements),
            Self::F16(elements) => bytemuck::cast_slice(elements),
            Self::BF16(elements) => bytemuck::cast_slice(elements),
        }
    }

    /// Widens `to.len()` elements from `start` on.
    pub(crate) fn widen(&self, start: usize, to: &mut [f32]) {
        let range = start..start + to.len();
        match self {
            Self::F32(elements) => to.copy_from_slice(&elements[range]),
            Self::F16(elements) => elements[range].convert_to_f32_slice(to),
            Self::BF16(elements) => elements[range].convert_to_f32_slice(to),
        }
    }

    /// All of them, widened.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut wide = vec![0.0; self.len()];
        self.widen(0, &mut wide);
        wide
    }
}

/// A matrix of weights, `[rows, cols]`, row by row: a row for each output.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    elements: Elements,
}

impl Matrix {
    /// Takes elements as a matrix.
    ///
    /// # Panics
    /// When there are not `rows * cols` elements.
    #[must_use]
    pub fn new(rows: usize, cols: usize, elements: Elements) -> Self {
        assert_eq!(elements.len(), rows * cols, "elements of a matrix");
        Self { rows, cols, elements }
    }

    /// Outputs.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    #[must_use]
    pub const fn cols(&self) -> usize {
        self.cols
    }

    /// The elements.
    #[must_use]
    pub const fn elements(&self) -> &Elements {
        &self.elements
    }

    /// The rows of several matrices of one width, one after another. Where their types differ, all are widened to f32.
    #[must_use]
    pub(crate) fn stack(parts: Vec<Self>) -> Self {
        let cols = parts.first().map_or(0, Self::cols);
        let rows = parts.iter().map(Self::rows).sum();
        let mut parts = parts.into_iter().map(|part| part.elements);
        let mut all = parts.next().unwrap_or(Elements::F32(Vec::new()));
        for part in parts {
            match (&mut all, part) {
                (Elements::F32(all), Elements::F32(part)) => all.extend(part),
                (Elements::F16(all), Elements::F16(part)) => all.extend(part),
                (Elements::BF16(all), Elements::BF16(part)) => all.extend(part),
                (mixed, part) => {
                    let mut wide = mixed.to_f32();
                    wide.extend(part.to_f32());
                    *mixed = Elements::F32(wide);
                }
            }
        }
        Self::new(rows, cols, all)
    }
}
