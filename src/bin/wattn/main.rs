//! The `wattn` command: attention that can be tried, checked and timed without writing code.
//!
//! `args` is the command line, `engine` the only place that chooses where to compute; each subcommand has its own file.

mod args;
mod attend;
mod bench;
mod demo;
mod engine;
mod failure;
mod files;
mod info;
mod lm;
mod progress;
mod recall;
mod tune;

use std::io::Write as _;
use std::process::ExitCode;

use clap::FromArgMatches as _;

use args::{Cli, Command};
use failure::Failure;

/// Exit code of every failure.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let parsed = args::command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => return help(&error),
        Err(error) => return fail(&usage_line(&error.to_string())),
    };
    let done = run(cli);
    engine::keep_pipelines();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&format!("error: {}", failure.line())),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    if cli.global.quiet {
        files::be_quiet();
    }
    if let Some(threads) = cli.global.threads {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into());
        pool.build_global().map_err(|error| Failure::Usage(format!("--threads {threads}: {error}")))?;
    }
    match cli.command {
        None => demo::run(),
        Some(Command::Recall(args)) => recall::run(args),
        Some(Command::Attend(args)) => attend::run(&args),
        Some(Command::Lm(args)) => lm::run(&args),
        Some(Command::Info(args)) => info::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Tune(args)) => tune::run(&args),
        Some(Command::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut args::command(), "wattn", &mut text);
            files::print(&String::from_utf8_lossy(&text))
        }
    }
}

/// Help and version. A closed pipe is no failure of the program, a full disk is.
fn help(text: &clap::Error) -> ExitCode {
    match text.print().and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let failure = Failure::file("write", std::path::Path::new("stdout"))(error);
            fail(&format!("error: {}", failure.line()))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Errors are printed however quiet the run is.
fn fail(line: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{line}");
    ExitCode::from(FAILED)
}

/// clap spreads an error over several lines; only the part before the first blank line has the cause.
fn usage_line(text: &str) -> String {
    let words: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    format!("{} (see --help)", words.join(" "))
}
