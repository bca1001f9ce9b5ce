//! `wattn tune`: the fastest tilings of a device, kept for the other commands.

use std::path::PathBuf;
use std::time::Instant;

use wattn::bench::{Scope, cases};
use wattn::tune::{self, DeviceEntries, DeviceKey, Options, Outcome, Trial, TuneError, TuneResult, Tuned, TuningTable};
use wattn::{AttentionClass, AttentionProblem, Context, SelectionClass, SelectionProblem};

use crate::args::tune::TuneArgs;
use crate::args::{Backend, EngineArgs};
use crate::engine::{Engine, tunings};
use crate::failure::Failure;
use crate::files;
use crate::progress::bar;

/// How often a device may be lost during a case before the case is given up.
const MOST_LOSSES: usize = 3;

/// Seconds of the longest call, with `--quick`.
const LONGEST_CALL: f64 = 0.5;

/// A problem to tune.
enum Job {
    Attention(AttentionProblem),
    Selection(SelectionProblem),
}

impl Job {
    fn class(&self) -> String {
        match self {
            Self::Attention(problem) => AttentionClass::of(problem).to_string(),
            Self::Selection(problem) => SelectionClass::of(problem).to_string(),
        }
    }
}

pub(crate) fn run(args: &TuneArgs) -> Result<(), Failure> {
    files::check_outputs(&[("--import", args.import.as_deref())], &[("--export", args.export.as_deref())])?;
    let stored = tunings::stored().filter(|_| !args.engine.no_cache);
    let mut table = if stored.is_some() { tunings::read_stored() } else { TuningTable::new() };
    match &args.import {
        // A call with `--export` alone wants the kept table.
        None if args.exports_only() => {
            for entries in table.devices() {
                files::print(&counted(entries))?;
            }
            if table.devices().is_empty() {
                files::note("note: nothing was measured before, so the table is empty");
            }
        }
        Some(path) => {
            let other = tunings::read(path)?;
            for entries in other.devices() {
                files::print(&counted(entries))?;
            }
            table.merge(other);
        }
        None => measure(args, &mut table, stored.as_ref())?,
    }
    keep(&table, stored.as_ref(), args)?;
    match args.export.as_ref().filter(|path| files::is_std(path)) {
        Some(path) => files::write_bytes(path, table.to_json()?.as_bytes()),
        None => Ok(()),
    }
}

/// The number of measured classes of a device.
fn counted(entries: &DeviceEntries) -> String {
    format!("{}: {} classes\n", entries.key, entries.attention.len() + entries.selection.len())
}

/// Tunes the requested problems, and saves the table after every one.
fn measure(args: &TuneArgs, table: &mut TuningTable, stored: Option<&PathBuf>) -> Result<(), Failure> {
    let begin = Instant::now();
    let left = || args.seconds.map_or(f64::INFINITY, |seconds| seconds - begin.elapsed().as_secs_f64());
    let mut ctx = open(args)?;
    if stored.is_none() && args.export.is_none() {
        return Err(Failure::Usage("without the user's cache folder --export must say where tilings go".to_owned()));
    }
    let key = DeviceKey::of(&ctx);
    let jobs = jobs(args, &ctx)?;
    files::print(&format!("{key}\n{} classes of problems\n\n", jobs.len()))?;
    let bar = bar(jobs.len());
    let mut left_out = 0;
    for job in jobs {
        bar.set_message(job.class());
        let known = match &job {
            Job::Attention(problem) => table.has_attention(&key, AttentionClass::of(problem)),
            Job::Selection(problem) => table.has_selection(&key, SelectionClass::of(problem)),
        };
        let line = if known && !args.again {
            "measured before".to_owned()
        } else if left() <= 0.0 {
            left_out += 1;
            "left out: the time is over".to_owned()
        } else {
            let line = tune_one((args, &left), &mut ctx, &job, (table, &key))?;
            keep(table, stored, args)?;
            line
        };
        bar.suspend(|| files::print(&format!("{:<72} {line}\n", job.class())))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    if left_out > 0 {
        files::print(&format!(
            "\n{left_out} classes were left out: the time was over; the same command goes on with them\n"
        ))?;
    }
    Ok(())
}

/// Writes the table to every requested place, so that no measurement is lost, however the run ends.
fn keep(table: &TuningTable, stored: Option<&PathBuf>, args: &TuneArgs) -> Result<(), Failure> {
    if let Some(path) = args.export.as_ref().filter(|path| !files::is_std(path)) {
        files::write_bytes(path, table.to_json()?.as_bytes())?;
    }
    let Some(path) = stored else { return Ok(()) };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Failure::file("write", folder))?;
    }
    files::write_bytes(path, table.to_json()?.as_bytes())
}

fn open(args: &TuneArgs) -> Result<Context, Failure> {
    let engine = &args.engine;
    if engine.tuning.is_some() || engine.no_tune {
        return Err(Failure::Usage(
            "tune reads no tilings: --tuning and --no-tune are for the other commands".to_owned(),
        ));
    }
    if matches!(engine.backend, Backend::Cpu | Backend::Oracle) || engine.tier.is_some() {
        return Err(Failure::Usage(
            "tune tries every tier of a GPU; take --backend auto or gpu, and no --tier".to_owned(),
        ));
    }
    // A table that will be measured is not read first.
    let Engine { inner, passed_over } = Engine::open(&EngineArgs { no_tune: true, ..engine.clone() })?;
    let wattn::Engine::Gpu(context) = inner else {
        let reason = passed_over.unwrap_or_default();
        return Err(Failure::Usage(format!("no GPU to tune ({reason}); --backend gpu takes a software device too")));
    };
    Ok(context)
}

/// One problem of each class among the requested ones.
fn jobs(args: &TuneArgs, ctx: &Context) -> Result<Vec<Job>, Failure> {
    if let Some(problem) = args.problem()? {
        return Ok(vec![Job::Attention(problem)]);
    }
    let wanted = |id: &str| args.cases.is_empty() || args.cases.iter().any(|part| id.contains(part.as_str()));
    let scope = if args.quick { Scope::Quick } else { Scope::Full };
    let mut jobs: Vec<Job> = Vec::new();
    for case in cases(scope).iter().filter(|case| wanted(&case.id())) {
        let case = case.fitted(ctx.caps());
        let sparse = case.sparse_problem().map(Job::Attention);
        let selection = case.selection().cloned().map(Job::Selection);
        for job in [Some(Job::Attention(case.problem().clone())), sparse, selection].into_iter().flatten() {
            if jobs.iter().all(|other| other.class() != job.class()) {
                jobs.push(job);
            }
        }
    }
    if jobs.is_empty() {
        return Err(Failure::Usage(format!("no case has {} in its name", args.cases.join(" or "))));
    }
    Ok(jobs)
}

/// Tunes one class; an error that concerns this class only is reported in its line.
fn tune_one(
    (args, left): (&TuneArgs, &dyn Fn() -> f64),
    ctx: &mut Context,
    job: &Job,
    (table, key): (&mut TuningTable, &DeviceKey),
) -> Result<String, Failure> {
    let mut options = Options::default().with_seconds(args.candidate_seconds).with_most_candidates(args.most.into());
    if args.quick {
        options = options.with_longest_call(LONGEST_CALL);
    }
    for _ in 0..MOST_LOSSES {
        options = options.with_most_seconds(left());
        let told = match job {
            Job::Attention(problem) => told(tune::attention(ctx, problem, &options), |entry| {
                table.set_attention(key, entry);
            }),
            Job::Selection(problem) => told(tune::selection(ctx, problem, &options), |entry| {
                table.set_selection(key, entry);
            }),
        };
        match told {
            Ok(line) => return Ok(line),
            Err(TuneError::Lost { candidate, .. }) => {
                options = options.with_avoid(candidate);
                *ctx = open(args)?;
            }
            // Too large for this device, or too slow: other classes may still be tuned.
            Err(error @ (TuneError::Library(_) | TuneError::Slow { .. })) => return Ok(format!("left out: {error}")),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(format!("left out: the device was lost {MOST_LOSSES} times"))
}

/// The outcome of a class: a line, and another for each wrong candidate, which is a fault of a driver or of wattn.
fn told<C, T: core::fmt::Display>(
    tuned: TuneResult<Tuned<C, T>>,
    keep: impl FnOnce(tune::Entry<C, T>),
) -> TuneResult<String> {
    let Tuned { entry, trials, .. } = tuned?;
    let mut line = format!("{:.2}x  {}  ({} tried", entry.speedup(), entry.candidate, trials.len());
    let refused = trials.iter().filter(|trial| matches!(trial.outcome, Outcome::Refused { .. })).count();
    if refused > 0 {
        line += &format!(", {refused} refused");
    }
    if entry.left_out > 0 {
        line += &format!(", {} left out: the time was over", entry.left_out);
    }
    line += ")";
    for Trial { candidate, outcome } in &trials {
        if matches!(outcome, Outcome::Vetoed { .. }) {
            line += &format!("\n  {candidate}: {outcome}");
        }
    }
    keep(entry);
    Ok(line)
}
