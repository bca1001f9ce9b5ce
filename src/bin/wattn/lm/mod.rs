//! `wattn lm`: language models on wattn.

mod bench;
pub(crate) mod compare;
mod eval;
mod needles;
mod plot;
mod report;
pub(crate) mod shipped;
pub(crate) mod text;
mod write;

use std::sync::Arc;

use indicatif::ProgressBar;
use wattn::lm::{LmResult, Model, Session};

use crate::args::lm::{LmArgs, LmCommand, ModelArgs};
use crate::args::{Backend, EngineArgs};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::progress;

pub(crate) fn run(args: &LmArgs) -> Result<(), Failure> {
    match &args.command {
        Some(LmCommand::Eval(args)) => eval::run(args),
        None => write::run(&args.write),
    }
}

/// A model, its name, and where it runs.
struct Loaded {
    name: String,
    model: Arc<Model>,
    engine: wattn::Engine,
    engine_name: String,
}

fn load(args: &ModelArgs) -> Result<Loaded, Failure> {
    check(&args.engine)?;
    // Before a device is opened, so that errors of files are reported at once.
    let (name, model) = match &args.model {
        None => ("the model that comes with wattn".to_owned(), shipped::model()?),
        Some(folder) => {
            let bar = bar(0, "loading");
            let told = |loaded: u32, layers: u32| {
                bar.set_length(layers.into());
                bar.set_position(loaded.into());
            };
            let model = Model::open_with(folder, told)?;
            bar.finish_and_clear();
            (folder.display().to_string(), model)
        }
    };
    let (engine, engine_name) = engine(&args.engine)?;
    Ok(Loaded { name, model: Arc::new(model), engine, engine_name })
}

/// Refuses engines that models do not have.
fn check(args: &EngineArgs) -> Result<(), Failure> {
    if args.backend == Backend::Oracle || args.tier.is_some() {
        let message = "lm takes --backend auto, gpu or cpu, and the best kernels that the device has";
        return Err(Failure::Usage(message.to_owned()));
    }
    Ok(())
}

/// The device of a model, and its name.
pub(crate) fn engine(args: &EngineArgs) -> Result<(wattn::Engine, String), Failure> {
    check(args)?;
    let engine = Engine::open(args)?;
    let name = engine.describe();
    Ok((engine.inner, name))
}

/// Attention's share of the time of a session's last `tokens` tokens.
pub(crate) fn attention_share(session: &mut Session, tokens: u32) -> LmResult<f64> {
    let (all, attention) = session.time(tokens, 3)?;
    Ok(attention.as_secs_f64() / all.as_secs_f64())
}

/// A bar on a terminal, nothing elsewhere.
fn bar(len: u64, what: &'static str) -> ProgressBar {
    progress::styled(len, "{msg} {bar:30} {pos}/{len} {per_sec}").with_message(what)
}
