//! How far long work has come.

use indicatif::{ProgressBar, ProgressStyle};

use crate::files;

/// A bar on a terminal, nothing elsewhere, and nothing where the run is quiet.
pub(crate) fn bar(len: usize) -> ProgressBar {
    if files::is_quiet() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {msg}");
    ProgressBar::new(len as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
