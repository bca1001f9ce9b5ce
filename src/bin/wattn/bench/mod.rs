//! `wattn bench`: a device's ceilings, and the share of them that the operators reach.

mod compare;
mod html;
mod plot;
mod table;

use std::fs;
use std::path::Path;

use plot::Figure;
use plotters::prelude::{BitMapBackend, IntoDrawingArea as _};
use wattn::bench::{Case, Options, Report, Scope, Suite, Target};

use crate::args::Backend;
use crate::args::bench::{BenchArgs, BenchCommand};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::files;
use crate::progress::bar;

/// Larger files are no reports.
const MOST_BYTES: u64 = 8 << 20;

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    if let Some(BenchCommand::Compare(args)) = &args.command {
        return compare::run(args);
    }
    if args.engine.backend == Backend::Oracle {
        let message = "bench compares with the oracle; take --backend auto, gpu or cpu";
        return Err(Failure::Usage(message.to_owned()));
    }
    // Fails early, so that no long work is lost.
    let json = args.json.as_deref().or(args.resume.as_deref());
    files::check_outputs(&[], &[("--json", json), ("--html", args.html.as_deref())])?;
    if let Some(folder) = args.plots.as_deref() {
        fs::create_dir_all(folder).map_err(Failure::file("write", folder))?;
    }
    let mut suite = suite(args)?;
    files::print(&table::head(suite.report()))?;
    let total = suite.num_pending();
    let bar = bar(total);
    let mut done = table::Cases::default();
    while let Some(case) = suite.pending().map(Case::id) {
        bar.set_message(case);
        suite.run_next()?;
        bar.suspend(|| files::print(&done.rows(&suite.report().cases)))?;
        if let Some(path) = json.filter(|path| !files::is_std(path)) {
            files::write_json(path, suite.report())?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let report = suite.finish()?;
    if let Some(path) = json {
        files::write_json(path, &report)?;
    }
    files::print(&table::tail(&report))?;
    if let Some(path) = &args.html {
        files::write_bytes(path, html::page(&report)?.as_bytes())?;
    }
    if let Some(folder) = &args.plots {
        draw(folder, &report)?;
    }
    match report.wrong().as_slice() {
        [] => Ok(()),
        wrong => Err(Failure::Wrong(wrong.join(", "))),
    }
}

/// The pictures that the report has data for.
fn draw(folder: &Path, report: &Report) -> Result<(), Failure> {
    for figure in Figure::ALL {
        if !figure.has_data(report) {
            files::print(&format!("no {}: the run has no cases for it\n", figure.file_name()))?;
            continue;
        }
        let path = folder.join(figure.file_name());
        files::write_atomically(&path, "png", |temporary| {
            figure.draw(report, &BitMapBackend::new(temporary, plot::SIZE).into_drawing_area())
        })?;
    }
    Ok(())
}

fn suite(args: &BenchArgs) -> Result<Suite, Failure> {
    let mut options = Options::new(if args.quick { Scope::Quick } else { Scope::Full }).filter(args.cases.clone());
    if let Some(seconds) = args.seconds {
        options = options.with_seconds_per_case(seconds);
    }
    if let Some(commit) = option_env!("WATTN_COMMIT") {
        options = options.with_commit(commit);
    }
    let recorded = args.resume.as_deref().map(read).transpose()?;
    // At first any error is reported; later a lost device is opened again with the same features, or not at all.
    let first = target(args)?;
    let (mut first, again) = (Some(first), args.clone());
    let open = move || match first.take() {
        Some(target) => Ok(target),
        None => target(&again).map_err(|failure| match failure {
            Failure::Attention(error) => error,
            other => wattn::Error::DeviceLost { message: other.line() },
        }),
    };
    Ok(match recorded {
        None => Suite::new(open, &options)?,
        Some(report) => Suite::resume(open, &options, report)?,
    })
}

fn target(args: &BenchArgs) -> Result<Target, Failure> {
    Ok(match Engine::open(&args.engine)?.inner {
        wattn::Engine::Gpu(context) => Target::Gpu(context),
        _ => Target::Cpu,
    })
}

fn read(path: &Path) -> Result<Report, Failure> {
    let bytes = files::read_whole(path, MOST_BYTES)?;
    Report::from_json(&bytes).map_err(|error| Failure::content(path, error))
}
