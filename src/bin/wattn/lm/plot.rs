//! The picture of an evaluation: bits per byte against context length.

use std::path::Path;

use plotters::prelude::*;

use super::compare::keys;
use super::report::Report;
use crate::failure::Failure;
use crate::recall::draw::{FAINT, GRID, INK, LEFT, PROSE, failed, register_fonts, write};

const SIZE: (u32, u32) = (1200, 720);

const COLORS: [RGBColor; 5] =
    [INK, RGBColor(12, 92, 140), RGBColor(20, 140, 110), RGBColor(232, 93, 36), RGBColor(150, 80, 170)];

/// Dense black, kinds of attention by colour, budgets by line width.
pub(super) fn draw(path: &Path, report: &Report) -> Result<(), Failure> {
    register_fonts()?;
    let root = BitMapBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    write(&root, &format!("Bits per byte against context: {}", report.model), (28, 34), (PROSE, 28), INK, LEFT)?;
    let costs = || report.rows.iter().flat_map(|row| row.bits_per_byte.iter().flatten().copied());
    let (low, high) = costs().fold((f64::INFINITY, 0.0f64), |(low, high), cost| (low.min(cost), high.max(cost)));
    let margin = 0.08 * (high - low).max(0.01);
    let first = f64::from(report.contexts.first().copied().unwrap_or(1));
    let last = f64::from(report.contexts.last().copied().unwrap_or(2)).max(first + 1.0);
    // Ten labels, no two alike.
    let digits = if high - low < 0.15 { 3 } else { 2 };
    // Powers of ten alone would leave most pictures without a number.
    let contexts = report.contexts.iter().map(|&context| f64::from(context)).collect();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(70)
        .margin_left(28)
        .margin_right(300)
        .margin_bottom(16)
        .x_label_area_size(48)
        .y_label_area_size(70)
        .build_cartesian_2d((first..last).log_scale().with_key_points(contexts), low - margin..high + margin)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style((PROSE, 17).into_font().color(&FAINT))
        .x_labels(report.contexts.len().max(2))
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.digits$}"))
        .x_desc("tokens of context")
        .axis_desc_style((PROSE, 17).into_font().color(&FAINT))
        .draw()
        .map_err(failed)?;
    let mut names: Vec<&str> = Vec::new();
    let mut budgets: Vec<Option<u32>> = Vec::new();
    for (index, row) in report.rows.iter().enumerate() {
        let place = |known: usize| known % COLORS.len();
        let color = match names.iter().position(|name| *name == row.attention) {
            Some(known) => COLORS[place(known)],
            None => {
                names.push(&row.attention);
                COLORS[place(names.len() - 1)]
            }
        };
        if !budgets.contains(&row.budget) {
            budgets.push(row.budget);
        }
        let width = budgets.iter().position(|budget| *budget == row.budget).unwrap_or(0).clamp(1, 4) as u32;
        let points = report.contexts.iter().zip(&row.bits_per_byte);
        let points: Vec<(f64, f64)> =
            points.filter_map(|(&context, cost)| Some((f64::from(context), (*cost)?))).collect();
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(width))).map_err(failed)?;
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, color.filled()))).map_err(failed)?;
        let y = 90 + 28 * index as i32;
        let line = [(920, y), (950, y)];
        root.draw(&PathElement::new(line, color.stroke_width(width))).map_err(failed)?;
        write(&root, &format!("{}, {} keys", row.attention, keys(row.budget)), (962, y), (PROSE, 18), INK, LEFT)?;
    }
    root.present().map_err(failed)
}
