//! The report as a self-contained page.

use core::fmt::Write as _;

use plotters::prelude::*;
use wattn::bench::{CaseResult, PartResult, Report, Series, lines};

use super::plot::{Figure, SIZE};
use super::table::{checks, measured_twice, shares, word};
use crate::failure::Failure;
use crate::recall::draw::{FAINT, GRID, INK};

const STYLE: &str = include_str!("style.css");

/// The page.
pub(super) fn page(report: &Report) -> Result<String, Failure> {
    let machine = &report.machine;
    let mut html = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>wattn bench: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>wattn bench <small>{title}</small></h1>\n",
        title = escape(&machine.adapter),
    );
    if let Some(noise) = &report.noise {
        let class = if noise.quiet { "good" } else { "bad" };
        let _ = writeln!(html, "<p class=\"verdict {class}\">{}</p>", escape(&noise.to_string()));
    }
    html += &facts(report);
    html += &ceilings(report);
    for figure in Figure::ALL.into_iter().filter(|figure| figure.has_data(report)) {
        let _ = writeln!(
            html,
            "<figure><div class=\"scroll\">{}</div><figcaption>{}</figcaption></figure>",
            svg(report, figure)?,
            figure.caption()
        );
    }
    html += &sparse(report);
    html += &cases(report);
    let _ = writeln!(html, "<p class=\"note\">{}</p>\n</main>\n</body>\n</html>", escape(checks(report).trim()));
    Ok(html)
}

/// A picture with the page's own colours, which follow the reader's choice of light or dark.
fn svg(report: &Report, figure: Figure) -> Result<String, Failure> {
    let mut text = String::new();
    figure.draw(report, &SVGBackend::with_string(&mut text, SIZE).into_drawing_area())?;
    let hex = |color: RGBColor| format!("\"#{:02X}{:02X}{:02X}\"", color.0, color.1, color.2);
    for (color, variable) in [(WHITE, "none"), (INK, "var(--ink)"), (FAINT, "var(--faint)"), (GRID, "var(--line)")] {
        text = text.replace(&hex(color), &format!("\"{variable}\""));
    }
    // The picture is part of a page, which declares its namespace.
    Ok(text.replace(" xmlns=\"http://www.w3.org/2000/svg\"", " role=\"img\""))
}

fn facts(report: &Report) -> String {
    let machine = &report.machine;
    let commit = report.commit.as_deref().unwrap_or("commit unknown");
    let mut rows = vec![
        ("version", format!("{} ({commit})", report.version)),
        ("device", format!("{} ({}, {})", machine.adapter, machine.kind, machine.backend)),
        ("driver", machine.driver.clone()),
        ("kernels", machine.describe_tier()),
        ("processor", machine.processor.clone().unwrap_or_else(|| "unknown".to_owned())),
        ("threads", machine.threads.to_string()),
        ("time taken by", format!("{}: {}", report.timing.method.name(), report.timing.note)),
        ("cases", if report.filter.is_empty() { "all".to_owned() } else { report.filter.join(", ") }),
    ];
    if let Some(caps) = &machine.caps {
        let subgroup = caps.subgroup_size.map_or_else(|| "none".to_owned(), |[min, max]| format!("{min} to {max}"));
        rows.push(("subgroups", subgroup));
        rows.push(("workgroup memory", format!("{} KiB", caps.workgroup_storage_bytes >> 10)));
        rows.push((
            "binding, buffer",
            format!("{} MiB, {} MiB", caps.storage_binding_bytes >> 20, caps.buffer_bytes >> 20),
        ));
    }
    if report.lost_devices > 0 {
        rows.push(("device lost", format!("{} time(s), and opened again", report.lost_devices)));
    }
    let rows: String =
        rows.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>\n", escape(value))).collect();
    format!("<dl>\n{rows}</dl>\n")
}

fn ceilings(report: &Report) -> String {
    let row = |ceiling: &wattn::bench::Ceiling| {
        let rate =
            ceiling.rate.map_or_else(|| "–".to_owned(), |rate| format!("{:.1} {}", rate * 1e-9, ceiling.kind.unit()));
        let twice = ceiling.rate.map_or_else(|| "–".to_owned(), |_| measured_twice(ceiling));
        [ceiling.kind.name().to_owned(), rate, twice, ceiling.note.clone()]
    };
    let rows: Vec<_> = report.ceilings.iter().map(row).collect();
    format!("<h2>Ceilings, measured</h2>\n{}", table("how", &["", "rate", "before and after the cases", "how"], &rows))
}

fn sparse(report: &Report) -> String {
    let lines = lines(&report.cases);
    if lines.is_empty() {
        return String::new();
    }
    let mut rows = Vec::new();
    for line in &lines {
        for case in &line.cases {
            let [selecting, sparse, step] = shares(case);
            let times = |ratio: Option<f64>| ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            let selecting = selecting.map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", 100.0 * share));
            rows.push([line.of.clone(), case.shape.seq_len_kv.to_string(), selecting, times(sparse), times(step)]);
        }
    }
    let crossovers = report.crossovers.iter();
    let crossovers: String = crossovers
        .map(|crossover| format!("<li>{}: {}</li>\n", escape(&crossover.of), escape(&crossover.to_string())))
        .collect();
    format!(
        "<h2>Sparse against dense</h2>\n<ul>\n{crossovers}</ul>\n{}",
        table("sparse", &["case", "keys", "share of selecting", "dense / sparse", "dense / mean step"], &rows)
    )
}

fn cases(report: &Report) -> String {
    let mut html = String::new();
    let mut series: Vec<Series> = report.cases.iter().map(|case| case.series).collect();
    series.dedup();
    for series in series {
        let of_series = report.cases.iter().filter(|case| case.series == series);
        let rows: Vec<[String; 11]> =
            of_series.flat_map(|case| case.parts.iter().map(move |part| row(case, part))).collect();
        let columns = [
            "case",
            "part",
            "median ms",
            "spread",
            "GFLOP/s",
            "GB/s",
            "of ceiling",
            "dispatches",
            "host µs",
            "inputs",
            "",
        ];
        let _ = writeln!(html, "<h2>{}</h2>\n{}", series.name(), table("parts", &columns, &rows));
    }
    html
}

fn row(result: &CaseResult, part: &PartResult) -> [String; 11] {
    let [case, part_name] = [result.name.clone(), part.part.name().to_owned()];
    let (Some(samples), Some(rate)) = (&part.samples, &part.rate) else {
        let why = format!("{}: {}", word(&part.outcome), part.outcome.reason().unwrap_or("no time"));
        let none = String::new;
        return [case, part_name, why, none(), none(), none(), none(), none(), none(), none(), none()];
    };
    let share = rate.share.zip(rate.ceiling);
    [
        case,
        part_name,
        format!("{:.4}", 1e3 * samples.median),
        format!("{:.1} %", 100.0 * samples.spread),
        format!("{:.2}", 1e-9 * rate.operations_per_second),
        format!("{:.2}", 1e-9 * rate.bytes_per_second),
        share.map_or_else(|| "–".to_owned(), |(share, of)| format!("{:.0} % {}", 100.0 * share, of.name())),
        part.plan.as_ref().map_or_else(|| "–".to_owned(), |plan| format!("{:.1}", plan.dispatches)),
        part.host_encode_seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{:.1}", 1e6 * seconds)),
        result.rotation.map_or_else(|| "–".to_owned(), |rotation| rotation.to_string()),
        result.unsteady(part.part).unwrap_or_else(|| "–".to_owned()),
    ]
}

/// A table that scrolls on its own where the page is narrow. A cell before empty ones takes their place.
fn table<const N: usize>(class: &str, columns: &[&str; N], rows: &[[String; N]]) -> String {
    let head: String = columns.iter().map(|column| format!("<th>{column}</th>")).collect();
    let mut html =
        format!("<div class=\"scroll\"><table class=\"{class}\">\n<thead><tr>{head}</tr></thead>\n<tbody>\n");
    for row in rows {
        let filled = row.iter().rposition(|cell| !cell.is_empty()).map_or(0, |last| last + 1);
        html.push_str("<tr>");
        for (index, cell) in row.iter().take(filled).enumerate() {
            let rest = N - filled;
            let span = if index + 1 == filled && rest > 0 {
                format!(" colspan=\"{}\" class=\"why\"", rest + 1)
            } else {
                String::new()
            };
            let _ = write!(html, "<td{span}>{}</td>", escape(cell));
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody></table></div>\n"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_drivers_are_text() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
        let html = table("x", &["a", "b", "c"], &[["x".to_owned(), "<y>".to_owned(), String::new()]]);
        assert!(html.contains("<td>x</td><td colspan=\"2\" class=\"why\">&lt;y&gt;</td></tr>"), "{html}");
    }
}
