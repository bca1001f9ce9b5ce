//! Fonts, colours and text of the program's pictures.

use std::sync::OnceLock;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::failure::Failure;

pub(super) type Drawn<T = ()> = Result<T, Failure>;

/// Fonts are embedded, so the picture is the same on every machine.
pub(crate) const PROSE: &str = "wattn-prose";
pub(super) const BYTES: &str = "wattn-bytes";

pub(crate) const INK: RGBColor = RGBColor(38, 44, 56);
pub(crate) const FAINT: RGBColor = RGBColor(122, 130, 144);
pub(crate) const GRID: RGBColor = RGBColor(226, 229, 234);

pub(crate) const LEFT: Pos = Pos { h_pos: HPos::Left, v_pos: VPos::Center };
pub(crate) const CENTER: Pos = Pos { h_pos: HPos::Center, v_pos: VPos::Center };
pub(crate) const RIGHT: Pos = Pos { h_pos: HPos::Right, v_pos: VPos::Center };

pub(crate) fn failed(error: impl core::fmt::Display) -> Failure {
    Failure::Plot(error.to_string())
}

pub(crate) fn register_fonts() -> Drawn {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    let register = || {
        register_font(PROSE, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT).is_ok()
            && register_font(BYTES, FontStyle::Normal, epaint_default_fonts::HACK_REGULAR).is_ok()
    };
    if *REGISTERED.get_or_init(register) { Ok(()) } else { Err(failed("the embedded fonts cannot be read")) }
}

pub(crate) fn write<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    text: &str,
    at: (i32, i32),
    font: (&str, i32),
    color: RGBColor,
    anchor: Pos,
) -> Drawn {
    let style = TextStyle::from(font.into_font()).color(&color).pos(anchor);
    area.draw_text(text, &style, at).map_err(failed)
}

pub(super) fn shorten(text: &str, len: usize) -> String {
    if text.chars().count() <= len { text.to_owned() } else { text.chars().take(len - 1).chain(['…']).collect() }
}
