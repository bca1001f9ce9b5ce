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

use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command};
use failure::Failure;

/// Exit code of every failure.
const FAILED: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if !error.use_stderr() => {
            // Help and version. A closed pipe is no failure of ours.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
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
    match cli.command {
        None => demo::run(),
        Some(Command::Recall(args)) => recall::run(args),
        Some(Command::Attend(args)) => attend::run(&args),
        Some(Command::Lm(args)) => lm::run(&args),
        Some(Command::Info(args)) => info::run(&args),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Tune(args)) => tune::run(&args),
    }
}

fn fail(line: &str) -> ExitCode {
    eprintln!("{line}");
    ExitCode::from(FAILED)
}

/// clap spreads an error over several lines; only the part before the first blank line says what is wrong.
fn usage_line(text: &str) -> String {
    let words: Vec<&str> = text.lines().take_while(|line| !line.trim().is_empty()).map(str::trim).collect();
    format!("{} (see --help)", words.join(" "))
}
