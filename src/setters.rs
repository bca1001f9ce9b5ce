//! Setters of structs with public fields that may become more: what a caller outside writes instead of a literal.

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
