//! Setters for structs with public fields under `#[non_exhaustive]`: callers outside the crate use them instead of a literal.

macro_rules! setters {
    ($type:ty { $($with:ident($field:ident: $kind:ty))+ }) => {
        impl $type {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub const fn $with(mut self, $field: $kind) -> Self {
                    self.$field = $field;
                    self
                }
            )+
        }
    };
}

pub(crate) use setters;
