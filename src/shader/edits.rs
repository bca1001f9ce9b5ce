//! Deliberate faults in shaders: `tests/mutations` changes one file of `shaders/` at run time, and a test must fail. Only builds with the
//! feature `shader-edits` contain this.

use std::borrow::Cow;

/// A text, edited if the folder `$WATTN_SHADER_EDIT` holds an edit for it: its file `from` equals the text, its file `to` replaces it.
#[cfg(feature = "shader-edits")]
pub(crate) fn edited(text: &str) -> Cow<'_, str> {
    use std::sync::LazyLock;

    static EDIT: LazyLock<Option<[String; 2]>> = LazyLock::new(|| {
        let folder = std::path::PathBuf::from(std::env::var_os("WATTN_SHADER_EDIT")?);
        let read = |name| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        Some(["from", "to"].map(read))
    });
    match &*EDIT {
        Some([from, to]) if text.contains(from) => Cow::Owned(text.replacen(from, to, 1)),
        _ => Cow::Borrowed(text),
    }
}

/// The text unchanged.
#[cfg(not(feature = "shader-edits"))]
pub(crate) const fn edited(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}
