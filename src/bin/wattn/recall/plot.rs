//! The picture: the earlier bytes that the last ones attend to, and the cost of each byte along the file.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use wattn::Element;

use super::Predicted;
use super::check::Checker;
use super::draw::{BYTES, CENTER, Drawn, FAINT, GRID, INK, LEFT, PROSE, RIGHT, failed, register_fonts, shorten, write};
use super::report::Report;
use super::thousands;
use crate::failure::Failure;

const SIZE: (u32, u32) = (1600, 1120);

/// Height of the upper panel.
const MAP_HEIGHT: u32 = 690;

/// Query rows shown, the last ones.
const ROWS: usize = 24;

/// Number of windows of keys shown, and keys in each.
const WINDOWS: usize = 3;
const WINDOW: usize = 24;

/// Points of the curve.
const CURVE_POINTS: usize = 400;

const CURVE: RGBColor = RGBColor(12, 92, 140);
const MARK: RGBColor = RGBColor(232, 93, 36);

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// The last rows, and the windows with most of their weight.
pub(crate) struct Attended {
    text: Vec<u8>,
    /// Position of the first row.
    first_row: usize,
    /// Starts of the windows, ascending.
    windows: Vec<usize>,
    /// `weights[row][key]` for all keys that the row sees.
    weights: Vec<Vec<f64>>,
}

impl Attended {
    pub(crate) fn last_rows<T: Element>(checker: &Checker<'_, T>) -> Result<Self, Failure> {
        let len = checker.text.len();
        let first_row = len.saturating_sub(ROWS);
        let weights = (first_row..len).map(|row| checker.weights(row)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: checker.text.to_vec(), first_row, windows: telling_windows(len, &weights), weights })
    }
}

/// Starts of disjoint windows, in ascending order, chosen one after the other. Each window is where it adds most to the sum over rows of
/// the root of the weight shown: the root favours rows of which little is shown yet.
fn telling_windows(len: usize, weights: &[Vec<f64>]) -> Vec<usize> {
    let mut starts: Vec<usize> = Vec::new();
    let mut shown = vec![0.0; weights.len()];
    for _ in 0..WINDOWS {
        let mut gains = vec![0.0; len.saturating_sub(WINDOW) + 1];
        for (row, shown) in weights.iter().zip(&shown) {
            for (gain, sum) in gains.iter_mut().zip(window_sums(row)) {
                *gain += (shown + sum).sqrt() - f64::sqrt(*shown);
            }
        }
        let free = |start: &usize| starts.iter().all(|taken| taken.abs_diff(*start) >= WINDOW);
        let Some(best) = (0..gains.len()).filter(free).max_by(|&a, &b| gains[a].total_cmp(&gains[b])) else { break };
        starts.push(best);
        for (row, shown) in weights.iter().zip(&mut shown) {
            *shown += row.iter().skip(best).take(WINDOW).sum::<f64>();
        }
    }
    starts.sort_unstable();
    starts
}

/// For each start, the weight of the window from there; a window may reach past the keys that the row sees.
fn window_sums(row: &[f64]) -> impl Iterator<Item = f64> {
    let mut sum: f64 = row.iter().take(WINDOW).sum();
    (0..row.len()).map(move |start| {
        let current = sum;
        sum += row.get(start + WINDOW).unwrap_or(&0.0) - row[start];
        // Differences of sums can end slightly below 0.
        current.max(0.0)
    })
}

pub(crate) fn draw(path: &Path, report: &Report, predicted: &Predicted, attended: &Attended) -> Drawn {
    register_fonts()?;
    let root = BitMapBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let (map, curve) = root.split_vertically(MAP_HEIGHT);
    draw_map(&map, report, attended)?;
    draw_curve(&curve, report, predicted)?;
    root.present().map_err(failed)
}

fn rectangle(area: &Area<'_>, [from, to]: [(i32, i32); 2], style: ShapeStyle) -> Drawn {
    area.draw(&Rectangle::new([from, to], style)).map_err(failed)
}

fn draw_map(area: &Area<'_>, report: &Report, attended: &Attended) -> Drawn {
    const CELL: (i32, i32) = (19, 21);
    const ORIGIN: (i32, i32) = (120, 104);
    const GAP: i32 = 28;
    let rows = attended.weights.len();
    let bottom = ORIGIN.1 + rows as i32 * CELL.1;
    let title = format!("Where the last {rows} bytes of {} attend", shorten(report.name(), 44));
    write(area, &title, (28, 34), (PROSE, 30), INK, LEFT)?;
    let legend = "Row: the byte that a query ends with. Column: the byte that a key's value holds. \
                  Weights are averaged over the heads.";
    write(area, legend, (28, 66), (PROSE, 18), FAINT, LEFT)?;

    for (row, weights) in attended.weights.iter().enumerate() {
        let position = attended.first_row + row;
        let y = ORIGIN.1 + row as i32 * CELL.1;
        let middle = y + CELL.1 / 2;
        write(area, &label(attended.text[position]), (ORIGIN.0 - 16, middle), (BYTES, 16), INK, CENTER)?;
        if row % 6 == 0 || row + 1 == rows {
            write(area, &thousands(position), (ORIGIN.0 - 34, middle), (PROSE, 15), FAINT, RIGHT)?;
        }
        for (index, &start) in attended.windows.iter().enumerate() {
            let left = ORIGIN.0 + index as i32 * (WINDOW as i32 * CELL.0 + GAP);
            for (column, key) in (start..(start + WINDOW).min(attended.text.len())).enumerate() {
                let x = left + column as i32 * CELL.0;
                let cell = [(x, y), (x + CELL.0 - 2, y + CELL.1 - 2)];
                // A key that the row may not see stays blank.
                let Some(&weight) = weights.get(key) else { continue };
                rectangle(area, cell, shade(weight).filled())?;
                let is_next = attended.text.get(position + 1) == Some(&attended.text[key]);
                if is_next && weight >= 0.02 {
                    let dot = Circle::new((x + CELL.0 / 2 - 1, middle - 1), 3, MARK.filled());
                    area.draw(&dot).map_err(failed)?;
                }
            }
        }
    }
    for (index, &start) in attended.windows.iter().enumerate() {
        let left = ORIGIN.0 + index as i32 * (WINDOW as i32 * CELL.0 + GAP);
        for (column, key) in (start..(start + WINDOW).min(attended.text.len())).enumerate() {
            let x = left + column as i32 * CELL.0 + CELL.0 / 2 - 1;
            write(area, &label(attended.text[key]), (x, bottom + 14), (BYTES, 15), INK, CENTER)?;
            if column % 8 == 0 {
                write(area, &thousands(key), (x - 6, bottom + 36), (PROSE, 15), FAINT, LEFT)?;
            }
        }
    }
    draw_scale(area, (1120, 26))
}

/// The colours and their meanings.
fn draw_scale(area: &Area<'_>, (left, top): (i32, i32)) -> Drawn {
    const WIDTH: i32 = 240;
    write(area, "weight", (left - 12, top + 8), (PROSE, 17), FAINT, RIGHT)?;
    let weight_at = |x: i32| (f64::from(x) / f64::from(WIDTH)).powi(2);
    for x in 0..WIDTH {
        rectangle(area, [(left + x, top), (left + x + 1, top + 16)], shade(weight_at(x)).filled())?;
    }
    for weight in [0.0, 0.1, 0.3, 0.6, 1.0f64] {
        let x = left + (weight.sqrt() * f64::from(WIDTH)) as i32;
        write(area, &weight.to_string(), (x, top + 28), (PROSE, 15), FAINT, CENTER)?;
    }
    let dot = Circle::new((left + WIDTH + 40, top + 8), 4, MARK.filled());
    area.draw(&dot).map_err(failed)?;
    write(area, "holds the next byte", (left + WIDTH + 52, top + 8), (PROSE, 17), FAINT, LEFT)
}

fn draw_curve(area: &Area<'_>, report: &Report, predicted: &Predicted) -> Drawn {
    let points = moving_average(&predicted.bits);
    let mut levels = [
        ("order-0 entropy", report.order0_bits_per_byte),
        ("zstd -19", report.zstd19_bits_per_byte),
        ("attention, whole file", report.bits_per_byte),
    ];
    // From the top of the picture down, so that colliding names all move in one direction.
    levels.sort_by(|a, b| b.1.total_cmp(&a.1));
    let highest = points.iter().map(|point| point.1).chain(levels.iter().map(|level| level.1));
    let top = highest.filter(|bits| bits.is_finite()).fold(1.0, f64::max) * 1.08;
    let len = predicted.bits.len() as f64;

    write(area, "What each byte cost, in bits (moving average)", (28, 26), (PROSE, 26), INK, LEFT)?;
    let mut chart = ChartBuilder::on(area)
        .margin_top(56)
        .margin_left(28)
        .margin_right(190)
        .margin_bottom(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..len, 0.0..top)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style((PROSE, 17).into_font().color(&FAINT))
        .x_label_formatter(&|x| thousands(*x as usize))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .x_desc("byte of the file")
        .axis_desc_style((PROSE, 17).into_font().color(&FAINT))
        .y_labels(6)
        .draw()
        .map_err(failed)?;
    chart.draw_series(LineSeries::new(points, CURVE.stroke_width(2))).map_err(failed)?;

    let mut taken: Vec<i32> = Vec::new();
    for (name, bits) in levels {
        let color = if name.starts_with("attention") { CURVE } else { INK };
        let line = [(0.0, bits), (len, bits)];
        chart.draw_series(DashedLineSeries::new(line, 7, 5, color.stroke_width(1))).map_err(failed)?;
        let (x, y) = chart.backend_coord(&(len, bits));
        // Levels may nearly coincide; their names may not. Coordinates are those of the whole picture.
        let y = y - MAP_HEIGHT as i32;
        let free = taken.iter().fold(y, |y, &other| if (y - other).abs() < 42 { other + 42 } else { y });
        taken.push(free);
        write(area, name, (x + 12, free - 9), (PROSE, 17), color, LEFT)?;
        write(area, &format!("{bits:.2}"), (x + 12, free + 11), (PROSE, 19), color, LEFT)?;
    }
    Ok(())
}

/// About [`CURVE_POINTS`] points, each the mean over a stretch four times their distance.
fn moving_average(bits: &[f32]) -> Vec<(f64, f64)> {
    let step = bits.len().div_ceil(CURVE_POINTS).max(1);
    let half = (2 * step).max(16);
    let point = |center: usize| {
        let stretch = &bits[center.saturating_sub(half)..(center + half).min(bits.len())];
        let mean = stretch.iter().map(|&bits| f64::from(bits)).sum::<f64>() / stretch.len() as f64;
        (center as f64, mean)
    };
    (0..bits.len()).step_by(step).map(point).collect()
}

/// From nearly white to dark blue. The root spreads the many small weights.
fn shade(weight: f64) -> RGBColor {
    const STOPS: [[f64; 3]; 5] =
        [[243.0, 245.0, 247.0], [190.0, 222.0, 212.0], [94.0, 184.0, 190.0], [32.0, 116.0, 168.0], [18.0, 30.0, 92.0]];
    let place = weight.clamp(0.0, 1.0).sqrt() * (STOPS.len() - 1) as f64;
    let index = (place as usize).min(STOPS.len() - 2);
    let part = place - index as f64;
    let channel = |c: usize| (STOPS[index][c] + part * (STOPS[index + 1][c] - STOPS[index][c])).round() as u8;
    RGBColor(channel(0), channel(1), channel(2))
}

/// A byte in at most three characters.
fn label(byte: u8) -> String {
    match byte {
        b' ' => "·".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'!'..=b'~' => char::from(byte).to_string(),
        _ => format!("{byte:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_disjoint_and_serve_every_row() {
        // One row attends to three places, with most of its weight; the others to one place each.
        let mut rows = vec![vec![0.0; 300]; 3];
        for (row, key, weight) in [(0, 10, 0.4), (0, 60, 0.3), (0, 110, 0.3), (1, 190, 0.2), (2, 299, 0.2)] {
            rows[row][key] = weight;
        }
        let windows = telling_windows(300, &rows);
        assert_eq!(windows.len(), WINDOWS);
        assert!(windows.windows(2).all(|pair| pair[1] - pair[0] >= WINDOW));
        for key in [10, 190, 299] {
            assert!(windows.iter().any(|&start| (start..start + WINDOW).contains(&key)), "{key}");
        }
        assert_eq!(telling_windows(5, &[vec![0.2; 5]]), [0]);
        assert_eq!(window_sums(&[1.0, 2.0, 3.0]).collect::<Vec<_>>(), [6.0, 5.0, 3.0]);
    }

    #[test]
    fn averages_cover_every_length() {
        for len in [1, 2, 17, 399, 400, 401, 5000] {
            let points = moving_average(&vec![2.5; len]);
            assert!(!points.is_empty() && points.len() <= CURVE_POINTS);
            assert!(points.iter().all(|point| (point.1 - 2.5).abs() < 1e-9));
        }
    }

    #[test]
    fn every_byte_has_a_short_label() {
        assert!((0..=u8::MAX).all(|byte| (1..=2).contains(&label(byte).chars().count())));
    }
}
