//! The picture of a mask: which keys the queries of sparse attention see. Queries go down, keys across.

use core::ops::Range;
use std::path::Path;

use plotters::prelude::*;
use wattn::SeenKeys;

use super::draw::{CENTER, FAINT, INK, LEFT, PROSE, RIGHT, failed, register_fonts, shorten, write};
use super::thousands;
use crate::failure::Failure;

/// Pixels of a panel, down and across.
const PANEL: usize = 360;

/// Panels side by side.
const COLUMNS: usize = 4;

const LEFT_MARGIN: i32 = 84;
const GAP: (i32, i32) = (24, 64);
const TOP: i32 = 112;
const HEADING: i32 = 44;

/// A key that is visible under the causal mask and that nobody reads.
const UNREAD: [f64; 3] = [236.0, 239.0, 243.0];

const SELECTED_COLOR: [f64; 3] = [12.0, 66.0, 130.0];
const ALWAYS_COLOR: [f64; 3] = [232.0, 93.0, 36.0];

/// The keys that one method lets the queries see, for each set of heads.
pub(crate) struct MaskMap {
    name: String,
    /// Number of queries, and of keys: a query sees at most itself.
    len: usize,
    panels: Vec<Panel>,
}

/// Query-key pairs in each pixel: all visible pairs, and the pairs that are read.
struct Panel {
    visible: Vec<f32>,
    always: Vec<f32>,
    selected: Vec<f32>,
}

impl MaskMap {
    pub(super) fn new(name: &str, len: usize) -> Self {
        Self { name: name.to_owned(), len, panels: Vec::new() }
    }

    /// Queries that see these keys.
    pub(super) fn add(&mut self, set: usize, queries: Range<u32>, seen: &[SeenKeys]) {
        let empty = || vec![0.0; PANEL * PANEL];
        while self.panels.len() <= set {
            self.panels.push(Panel { visible: empty(), always: empty(), selected: empty() });
        }
        let panel = &mut self.panels[set];
        for (y, height) in pixels(self.len, &queries) {
            for (x, width) in pixels(self.len, &(0..queries.end)) {
                panel.visible[y * PANEL + x] += height * width;
            }
            for seen in seen {
                let read = if seen.is_listed() { &mut panel.selected } else { &mut panel.always };
                for (x, width) in pixels(self.len, seen.keys()) {
                    read[y * PANEL + x] += height * width;
                }
            }
        }
    }

    /// Rows of panels.
    fn rows(&self) -> usize {
        self.panels.len().div_ceil(COLUMNS)
    }
}

impl Panel {
    /// Colour by the share of a pixel's pairs that is read. The root shows blocks that are much smaller than a pixel.
    fn color(&self, pixel: usize) -> RGBColor {
        let visible = self.visible[pixel];
        if visible <= 0.0 {
            return WHITE;
        }
        let [always, selected] = [&self.always, &self.selected].map(|read| f64::from(read[pixel]));
        let read = always + selected;
        let strength = (read / f64::from(visible)).clamp(0.0, 1.0).sqrt();
        let channel = |c: usize| {
            let ink = if read > 0.0 { (always * ALWAYS_COLOR[c] + selected * SELECTED_COLOR[c]) / read } else { 0.0 };
            (UNREAD[c] + strength * (ink - UNREAD[c])).round() as u8
        };
        RGBColor(channel(0), channel(1), channel(2))
    }
}

/// The pixels that a range of `0..len` touches, and the share of the range in each.
fn pixels(len: usize, range: &Range<u32>) -> impl Iterator<Item = (usize, f32)> + use<> {
    let scale = PANEL as f64 / len as f64;
    let [from, to] = [range.start, range.end].map(|at| (f64::from(at) * scale).min(PANEL as f64));
    (from as usize..to.ceil() as usize).map(move |pixel| {
        let overlap = to.min((pixel + 1) as f64) - from.max(pixel as f64);
        (pixel, overlap.max(0.0) as f32)
    })
}

pub(crate) fn draw(path: &Path, name: &str, maps: &[MaskMap]) -> Result<(), Failure> {
    register_fonts()?;
    let columns = maps.iter().map(|map| map.panels.len().min(COLUMNS)).max().unwrap_or(1) as i32;
    let size = PANEL as i32;
    let width = (LEFT_MARGIN + columns * (size + GAP.0) + 12).max(860);
    let height = |map: &MaskMap| HEADING + map.rows() as i32 * (size + GAP.1);
    let whole = TOP + maps.iter().map(height).sum::<i32>();
    // Positive, and a few thousand.
    let root = BitMapBackend::new(path, (width as u32, whole as u32)).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let title = format!("Which keys sparse attention reads in {}", shorten(name, 36));
    write(&root, &title, (28, 34), (PROSE, 28), INK, LEFT)?;
    write(&root, "Queries go down, keys go across.", (28, 74), (PROSE, 18), FAINT, LEFT)?;
    let legend = [(SELECTED_COLOR, "selected"), (ALWAYS_COLOR, "sinks, window, dense"), (UNREAD, "not read")];
    for ((color, text), x) in legend.into_iter().zip([320, 450, 690]) {
        let [r, g, b] = color.map(|channel| channel as u8);
        let swatch = Rectangle::new([(x, 66), (x + 18, 82)], RGBColor(r, g, b).filled());
        root.draw(&swatch).map_err(failed)?;
        write(&root, text, (x + 26, 74), (PROSE, 18), FAINT, LEFT)?;
    }
    let mut top = TOP;
    for map in maps {
        write(&root, &map.name, (28, top + 10), (PROSE, 24), INK, LEFT)?;
        for (index, panel) in map.panels.iter().enumerate() {
            let left = LEFT_MARGIN + (index % COLUMNS) as i32 * (size + GAP.0);
            let panel_top = top + HEADING + (index / COLUMNS) as i32 * (size + GAP.1);
            for pixel in 0..PANEL * PANEL {
                let at = (left + (pixel % PANEL) as i32, panel_top + (pixel / PANEL) as i32);
                root.draw_pixel(at, &panel.color(pixel)).map_err(failed)?;
            }
            let (middle, below) = (left + size / 2, panel_top + size + 14);
            let what = if map.panels.len() > 1 { format!("head {index}") } else { "all heads".to_owned() };
            write(&root, &what, (middle, below), (PROSE, 17), INK, CENTER)?;
            write(&root, "0", (left, below), (PROSE, 15), FAINT, LEFT)?;
            write(&root, &thousands(map.len), (left + size, below), (PROSE, 15), FAINT, RIGHT)?;
            if index % COLUMNS == 0 {
                write(&root, "0", (left - 8, panel_top + 8), (PROSE, 15), FAINT, RIGHT)?;
                write(&root, &thousands(map.len), (left - 8, panel_top + size - 8), (PROSE, 15), FAINT, RIGHT)?;
            }
        }
        top += height(map);
    }
    root.present().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_hold_the_whole_range_at_every_scale() {
        for (len, range) in [(7, 2..5), (360, 10..20), (1000, 0..1000), (1 << 20, 5..7), (1 << 20, 1_048_574..1 << 20)]
        {
            let sum: f32 = pixels(len, &range).map(|(_, part)| part).sum();
            let expected = range.len() as f64 * PANEL as f64 / len as f64;
            // Sums of a few hundred f32 below 1.
            assert!((f64::from(sum) - expected).abs() < 1e-3 * expected.max(0.1), "{len} {range:?}: {sum} {expected}");
            assert!(pixels(len, &range).all(|(pixel, _)| pixel < PANEL));
        }
        assert_eq!(pixels(10, &(3..3)).map(|(_, part)| part).sum::<f32>(), 0.0);
    }

    #[test]
    fn colours_tell_read_from_unread_and_future() {
        let mut map = MaskMap::new("hip", PANEL);
        map.add(0, 100..101, &[SeenKeys::Always(0..10), SeenKeys::Listed(50..60), SeenKeys::Always(90..101)]);
        let color = |x: usize| map.panels[0].color(100 * PANEL + x);
        let rgb = |[r, g, b]: [f64; 3]| RGBColor(r as u8, g as u8, b as u8);
        assert_eq!(color(5), rgb(ALWAYS_COLOR));
        assert_eq!(color(55), rgb(SELECTED_COLOR));
        assert_eq!(color(30), rgb(UNREAD));
        assert_eq!(color(200), WHITE);
    }
}
