//! Progress of long work.

use indicatif::{ProgressBar, ProgressStyle};

use crate::files;

/// A bar of cases.
pub(crate) fn bar(len: usize) -> ProgressBar {
    styled(len as u64, "{bar:24} {pos}/{len} {elapsed} {msg}")
}

/// A bar on a terminal, nothing elsewhere, and nothing where the run is quiet.
pub(crate) fn styled(len: u64, template: &str) -> ProgressBar {
    if files::is_quiet() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(len).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
