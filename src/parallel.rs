//! Loops over independent pieces: on all threads of the current rayon pool with the feature `cpu`, one piece after the other without it.

#[cfg(feature = "cpu")]
use rayon::prelude::*;

/// `f` for each item and its index, in order.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], f: impl Fn(usize, &T) -> R + Send + Sync) -> Vec<R> {
    #[cfg(feature = "cpu")]
    let items = items.par_iter();
    #[cfg(not(feature = "cpu"))]
    let items = items.iter();
    items.enumerate().map(|(index, item)| f(index, item)).collect()
}

/// `f` for each chunk of `len` neighbours and its index.
pub(crate) fn for_each_chunk<T: Send>(data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Send + Sync) {
    #[cfg(feature = "cpu")]
    let chunks = data.par_chunks_mut(len);
    #[cfg(not(feature = "cpu"))]
    let chunks = data.chunks_mut(len);
    chunks.enumerate().for_each(|(index, chunk)| f(index, chunk));
}

/// `f` for the index of each row, its `dim` numbers and its single number.
pub(crate) fn for_each_row(
    rows: &mut [f32],
    dim: usize,
    ones: &mut [f32],
    f: impl Fn(usize, &mut [f32], &mut f32) + Send + Sync,
) {
    #[cfg(feature = "cpu")]
    let rows = rows.par_chunks_mut(dim).zip(ones);
    #[cfg(not(feature = "cpu"))]
    let rows = rows.chunks_mut(dim).zip(ones);
    rows.enumerate().for_each(|(index, (row, one))| f(index, row, one));
}
