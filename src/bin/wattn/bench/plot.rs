//! The pictures of a report: the roofline, time against the length of the context, and dense over sparse.

use core::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;
use wattn::bench::{CaseResult, CeilingKind, Line, Part, Report, lines};

use super::table::shares;
use crate::failure::Failure;
use crate::recall::draw::{CENTER, FAINT, GRID, INK, LEFT, PROSE, RIGHT, failed, register_fonts, write};

/// A picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Roofline,
    Length,
    Crossover,
}

pub(super) const SIZE: (u32, u32) = (1200, 780);

const BLUE: RGBColor = RGBColor(44, 123, 190);
const GREEN: RGBColor = RGBColor(28, 152, 118);
const ORANGE: RGBColor = RGBColor(226, 98, 42);
const PURPLE: RGBColor = RGBColor(150, 92, 178);
const YELLOW: RGBColor = RGBColor(190, 146, 20);

/// Bases of axes.
const KEYS: f64 = 2.0;
const NUMBERS: f64 = 10.0;

type Drawn = Result<(), Failure>;
type Points = Vec<(f64, f64)>;

impl Figure {
    pub(super) const ALL: [Self; 3] = [Self::Roofline, Self::Length, Self::Crossover];

    pub(super) const fn file_name(self) -> &'static str {
        match self {
            Self::Roofline => "roofline.png",
            Self::Length => "length.png",
            Self::Crossover => "crossover.png",
        }
    }

    /// The picture's subject, in a sentence.
    pub(super) const fn caption(self) -> &'static str {
        match self {
            Self::Roofline => {
                "Operations a second against operations for each byte that must move. No point is above the lines, which \
                 were measured on this machine, or reached by one of the cases."
            }
            Self::Length => "Milliseconds of a call against the number of keys.",
            Self::Crossover => {
                "Dense attention's time over that of sparse attention, selection included: above 1 sparse is faster. Dashed: \
                 a mean step of decoding, whose lists live for more than one."
            }
        }
    }

    /// Whether a report has the picture's data.
    pub(super) fn has_data(self, report: &Report) -> bool {
        match self {
            Self::Roofline => report.cases.iter().flat_map(|case| &case.parts).any(|part| part.rate.is_some()),
            Self::Length => !panels(report).is_empty(),
            Self::Crossover => panels(report).iter().any(|line| !ratios(line, 1).is_empty()),
        }
    }

    pub(super) fn draw<B: DrawingBackend>(self, report: &Report, root: &DrawingArea<B, Shift>) -> Drawn {
        register_fonts()?;
        root.fill(&WHITE).map_err(failed)?;
        match self {
            Self::Roofline => draw_roofline(report, root)?,
            Self::Length => draw_length(report, root)?,
            Self::Crossover => draw_crossover(report, root)?,
        }
        // A picture may be seen without the table.
        if report.noise.as_ref().is_some_and(|noise| !noise.quiet) {
            let at = (SIZE.0 as i32 - 28, 32);
            write(root, "NOISY RUN: not to be compared", at, (PROSE, 20), NOISY, RIGHT)?;
        }
        root.present().map_err(failed)
    }
}

/// A warning if the numbers are not repeatable.
const NOISY: RGBColor = RGBColor(200, 40, 40);

/// A range from just below the smallest to just above the largest.
fn around(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite() && *value > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { 0.1..10.0 } else { low / 1.3..high * 1.3 }
}

/// The same in whole powers of ten, where there is always one to label.
fn decades(values: impl Iterator<Item = f64>) -> Range<f64> {
    let Range { start, end } = around(values);
    10f64.powf(start.log10().floor())..10f64.powf(end.log10().ceil())
}

/// A number of keys, in units of 1024, the usual unit of context lengths.
fn short_keys(keys: f64) -> String {
    match keys {
        keys if keys >= 1_048_576.0 => format!("{}M", trimmed(keys / 1_048_576.0)),
        keys if keys >= 1024.0 => format!("{}k", trimmed(keys / 1024.0)),
        keys => trimmed(keys),
    }
}

/// Up to three digits after the point, without trailing zeros.
fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

struct Axes<'a> {
    x: Range<f64>,
    y: Range<f64>,
    names: [&'a str; 2],
    /// Powers of two or of ten.
    base: f64,
    top: u32,
    right: u32,
}

type Chart<'a, 'b, B> = ChartContext<
    'a,
    B,
    Cartesian2d<plotters::coord::combinators::LogCoord<f64>, plotters::coord::combinators::LogCoord<f64>>,
>;

/// A chart with two logarithmic axes.
fn chart<'a, B: DrawingBackend>(root: &'a DrawingArea<B, Shift>, axes: &Axes<'_>) -> Result<Chart<'a, 'a, B>, Failure> {
    let mut chart = ChartBuilder::on(root)
        .margin_top(axes.top)
        .margin_left(20)
        .margin_right(axes.right)
        .margin_bottom(14)
        .x_label_area_size(52)
        .y_label_area_size(78)
        .build_cartesian_2d(axes.x.clone().log_scale().base(axes.base), axes.y.clone().log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(FAINT)
        .label_style((PROSE, 18).into_font().color(&FAINT))
        .x_label_formatter(&|x| if axes.base == KEYS { short_keys(*x) } else { trimmed(*x) })
        .y_label_formatter(&|y| trimmed(*y))
        .x_labels(8)
        .y_labels(6)
        .x_desc(axes.names[0])
        .y_desc(axes.names[1])
        .axis_desc_style((PROSE, 18).into_font().color(&FAINT))
        .draw()
        .map_err(failed)?;
    Ok(chart)
}

fn title<B: DrawingBackend>(root: &DrawingArea<B, Shift>, text: &str) -> Drawn {
    write(root, text, (28, 32), (PROSE, 28), INK, LEFT)
}

/// A colour and its meaning.
fn legend<B: DrawingBackend>(root: &DrawingArea<B, Shift>, at: (i32, i32), entries: &[(&str, RGBColor)]) -> Drawn {
    for (index, (name, color)) in (0..).zip(entries) {
        let y = at.1 + 28 * index;
        root.draw(&Circle::new((at.0, y), 6, color.filled())).map_err(failed)?;
        write(root, name, (at.0 + 16, y), (PROSE, 18), INK, LEFT)?;
    }
    Ok(())
}

/// The meaning of a point of the roofline, by colour.
const KINDS: [(&str, RGBColor); 5] = [
    ("dense, many queries", BLUE),
    ("dense, one query", GREEN),
    ("selection", PURPLE),
    ("attention to lists", ORANGE),
    ("both together", YELLOW),
];

fn kind(case: &CaseResult, part: Part) -> usize {
    match part {
        Part::Dense => usize::from(case.shape.seq_len_q == 1),
        Part::Select => 2,
        Part::Attend => 3,
        _ => 4,
    }
}

fn draw_roofline<B: DrawingBackend>(report: &Report, root: &DrawingArea<B, Shift>) -> Drawn {
    let mut points: Vec<(usize, (f64, f64))> = Vec::new();
    for case in &report.cases {
        for part in case.parts.iter().filter(|part| part.bytes > 0) {
            if let Some(rate) = &part.rate {
                let intensity = part.operations as f64 / part.bytes as f64;
                points.push((kind(case, part.part), (intensity, rate.operations_per_second * 1e-9)));
            }
        }
    }
    let roofs: Vec<(CeilingKind, f64)> = [CeilingKind::F32, CeilingKind::F16, CeilingKind::Matrix]
        .into_iter()
        .filter_map(|kind| Some((kind, report.ceiling(kind)? * 1e-9)))
        .collect();
    let copy = report.ceiling(CeilingKind::Copy).map(|rate| rate * 1e-9);
    let x = decades(points.iter().map(|(_, point)| point.0));
    let highest = roofs.iter().map(|roof| roof.1);
    let y = decades(points.iter().map(|(_, point)| point.1).chain(highest));
    title(root, &format!("Roofline of {}", report.machine.adapter))?;
    let names = ["operations for each byte", "GFLOP/s"];
    let mut chart = chart(root, &Axes { x: x.clone(), y: y.clone(), names, base: NUMBERS, top: 64, right: 236 })?;
    for (kind, roof) in &roofs {
        // A roof begins where it meets the line of copies.
        let from = copy.map_or(x.start, |copy| (roof / copy).max(x.start));
        if from < x.end {
            chart.draw_series(LineSeries::new([(from, *roof), (x.end, *roof)], INK.stroke_width(2))).map_err(failed)?;
        }
        let label = format!("{} {} GFLOP/s", kind.name(), roof.round());
        let (_, at) = chart.backend_coord(&(x.end, *roof));
        write(root, &label, (SIZE.0 as i32 - 228, at), (PROSE, 18), INK, LEFT)?;
    }
    if let Some(copy) = copy {
        let top = roofs.iter().map(|roof| roof.1).fold(0.0, f64::max).min(y.end);
        let line = [(x.start.max(y.start / copy), x.start.max(y.start / copy) * copy), (top / copy, top)];
        if line[0].0 < line[1].0 {
            let end = line[1].0.min(x.end);
            chart.draw_series(LineSeries::new([line[0], (end, end * copy)], INK.stroke_width(2))).map_err(failed)?;
            // Left of the line, where no point can lie.
            let (right, at) = chart.backend_coord(&(end, end * copy));
            let label = format!("copy {copy:.1} GB/s");
            write(root, &label, (right - 24, at + 8), (PROSE, 18), INK, RIGHT)?;
        }
    }
    for (kind, point) in points {
        chart.draw_series([Circle::new(point, 6, KINDS[kind].1.mix(0.8).filled())]).map_err(failed)?;
    }
    legend(root, (SIZE.0 as i32 - 220, SIZE.1 as i32 - 240), &KINDS)
}

/// The lines with pictures of their own, which have more than one length.
fn panels(report: &Report) -> Vec<Line<'_>> {
    lines(&report.cases).into_iter().filter(|line| line.cases.len() > 1).collect()
}

/// The parts of a line that are drawn, by colour.
const PARTS: [(&str, RGBColor); 5] = [
    ("dense", BLUE),
    ("selection", PURPLE),
    ("attention to lists", ORANGE),
    ("both: sparse", GREEN),
    ("mean step", YELLOW),
];

fn draw_length<B: DrawingBackend>(report: &Report, root: &DrawingArea<B, Shift>) -> Drawn {
    title(root, &format!("Time against context, {}", report.machine.adapter))?;
    let panels = panels(report);
    let columns = if panels.len() > 1 { 2 } else { 1 };
    let (_, below) = root.split_vertically(94);
    for (index, (name, color)) in (0..).zip(&PARTS) {
        legend(root, (40 + 190 * index, 74), &[(*name, *color)])?;
    }
    let areas = below.split_evenly((panels.len().div_ceil(columns), columns));
    for (area, line) in areas.iter().zip(&panels) {
        let of = |part: Part| -> Points {
            let point = |case: &&CaseResult| Some((f64::from(case.shape.seq_len_kv), 1e3 * case.seconds(part)?));
            line.cases.iter().filter_map(point).collect()
        };
        let series = [Part::Dense, Part::Select, Part::Attend, Part::Sparse, Part::Step].map(of);
        let all = || series.iter().flatten();
        let axes = Axes {
            x: around(all().map(|point| point.0)),
            y: decades(all().map(|point| point.1)),
            names: ["keys", "ms"],
            base: KEYS,
            top: 34,
            right: 18,
        };
        let mut chart = chart(area, &axes)?;
        write(area, &line.of, (100, 18), (PROSE, 20), INK, LEFT)?;
        for (points, (_, color)) in series.iter().zip(&PARTS) {
            draw_line(&mut chart, points, *color, Stroke::Solid)?;
        }
    }
    Ok(())
}

/// Dense attention's time over that of selection and attention (1), or of a mean step (2).
fn ratios(line: &Line<'_>, over: usize) -> Points {
    line.cases.iter().filter_map(|case| Some((f64::from(case.shape.seq_len_kv), shares(case)[over]?))).collect()
}

fn draw_crossover<B: DrawingBackend>(report: &Report, root: &DrawingArea<B, Shift>) -> Drawn {
    title(root, &format!("Dense over sparse, {}", report.machine.adapter))?;
    let panels = panels(report);
    let all = || panels.iter().flat_map(|line| [1, 2].map(|over| ratios(line, over))).flatten();
    let x = around(all().map(|point| point.0));
    let y = decades(all().map(|point| point.1).chain([0.5, 2.0]));
    let names = ["keys", "times as fast"];
    let mut chart = chart(root, &Axes { x: x.clone(), y, names, base: KEYS, top: 64, right: 372 })?;
    chart
        .draw_series(DashedLineSeries::new([(x.start, 1.0), (x.end, 1.0)], 4, 6, INK.stroke_width(1)))
        .map_err(failed)?;
    let colors = [BLUE, ORANGE, GREEN, PURPLE, YELLOW];
    let mut entries = Vec::new();
    for (line, color) in panels.iter().zip(colors.into_iter().cycle()) {
        draw_line(&mut chart, &ratios(line, 1), color, Stroke::Solid)?;
        draw_line(&mut chart, &ratios(line, 2), color, Stroke::Dashed)?;
        entries.push((line.of.as_str(), color));
    }
    for crossover in &report.crossovers {
        let Some(keys) = crossover.keys else { continue };
        let mark = chart.backend_coord(&(keys, 1.0));
        let color = entries.iter().find(|(of, _)| *of == crossover.of).map_or(INK, |entry| entry.1);
        root.draw(&Circle::new(mark, 8, color.stroke_width(2))).map_err(failed)?;
        write(root, &format!("{keys:.0}"), (mark.0, mark.1 + 22), (PROSE, 17), color, CENTER)?;
    }
    legend(root, (SIZE.0 as i32 - 354, 90), &entries)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stroke {
    Solid,
    Dashed,
}

/// Points and the lines that join them.
fn draw_line<B: DrawingBackend>(
    chart: &mut Chart<'_, '_, B>,
    points: &Points,
    color: RGBColor,
    stroke: Stroke,
) -> Drawn {
    let style = color.stroke_width(2);
    if stroke == Stroke::Solid {
        chart.draw_series(LineSeries::new(points.clone(), style)).map_err(failed)?;
    } else {
        chart.draw_series(DashedLineSeries::new(points.clone(), 8, 6, style)).map_err(failed)?;
    }
    chart.draw_series(points.iter().map(|&point| Circle::new(point, 4, color.filled()))).map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in
            [(4096.0, "4k"), (131_072.0, "128k"), (1_572_864.0, "1.5M"), (100.0, "100"), (0.0, "0")]
        {
            assert_eq!(short_keys(value), expected);
        }
        assert_eq!((trimmed(0.25), trimmed(1000.0)), ("0.25".to_owned(), "1000".to_owned()));
    }

    #[test]
    fn ranges_hold_what_they_are_around() {
        let range = around([2.0, 50.0, f64::NAN, 0.0].into_iter());
        assert!(range.start < 2.0 && range.end > 50.0 && range.start > 0.0);
        assert_eq!(around(core::iter::empty()), 0.1..10.0);
        assert_eq!(decades([2.0, 50.0].into_iter()), 1.0..100.0);
    }
}
