//! `wattn lm`: reads a prompt and writes on.

use core::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde::Serialize;
use wattn::lm::{LmError, Session, Stop, TextStream};

use super::{Loaded, attention_share, bar, load, text};
use crate::args::lm::WriteArgs;
use crate::failure::Failure;
use crate::files;

/// The report of a run.
#[derive(Serialize)]
struct Report {
    model: String,
    engine: String,
    weights_bytes: u64,
    read_tokens: usize,
    read_seconds: f64,
    /// `None` where it was not measured.
    read_attention_share: Option<f64>,
    written_tokens: usize,
    written_seconds: f64,
    written_attention_share: Option<f64>,
    stop: String,
    text: String,
}

pub(super) fn run(args: &WriteArgs) -> Result<(), Failure> {
    let prompt = match (&args.prompt, &args.file) {
        (Some(prompt), _) => prompt.clone(),
        (None, Some(file)) => text::read(file)?,
        (None, None) => {
            let message = "nothing to go on from: give --prompt TEXT or --file FILE, or run `wattn` alone for a demo";
            return Err(Failure::Usage(message.to_owned()));
        }
    };
    files::check_outputs(&[("--file", args.file.as_deref())], &[("--json", args.json.as_deref())])?;
    let sampling = args.sampling();
    sampling.validate()?;
    let Loaded { name, model, engine, engine_name } = load(&args.model)?;
    let tokens = model.tokenizer().encode_prompt(&prompt)?;
    if tokens.is_empty() {
        return Err(Failure::Usage("the prompt is empty".to_owned()));
    }
    let length = length(args, tokens.len(), model.config().trained_len)?;
    let options = args.session(model.config(), length)?.with_text_len(length);
    if let Some(context) = args.context.filter(|&context| context < length) {
        return Err(LmError::Capacity { needed: length.into(), capacity: context }.into());
    }
    let mut session = Session::new(&model, &engine, &options)?;

    let progress = bar(tokens.len() as u64, "reading");
    let begin = Instant::now();
    session.read_with(&tokens, |done| progress.set_position(done as u64))?;
    session.logits()?; // waits until the prompt is read
    let read_seconds = begin.elapsed().as_secs_f64();
    let read_attention = session.attention_time();
    progress.finish_and_clear();

    files::print(&prompt)?;
    let mut stream = TextStream::after(model.tokenizer(), &tokens)?;
    let mut text = String::new();
    let mut failed = None;
    let begin = Instant::now();
    let stop = session.generate(args.tokens as usize, &sampling, |token| {
        let piece = stream.push(token).map_err(Failure::from);
        match piece.and_then(|piece| files::print(&piece).map(|()| piece)) {
            Ok(piece) => {
                text += &piece;
                ControlFlow::Continue(())
            }
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    })?;
    let written_seconds = begin.elapsed().as_secs_f64();
    if let Some(failure) = failed {
        return Err(failure);
    }
    let rest = stream.finish()?;
    files::print(&rest)?;
    text += &rest;
    let written_tokens = session.tokens().len() - tokens.len();
    let shares = match (read_attention, session.attention_time()) {
        (Some(read), Some(all)) => {
            let of =
                |part: Duration, seconds: f64| Some(part.as_secs_f64() / seconds).filter(|share| share.is_finite());
            [of(read, read_seconds), of(all - read, written_seconds)]
        }
        _ if args.attention_share => {
            let chunk = args.model.chunk.min(session.tokens().len() as u32);
            [Some(attention_share(&mut session, chunk)?), Some(attention_share(&mut session, 1)?)]
        }
        _ => [None, None],
    };
    let report = Report {
        model: name,
        engine: engine_name,
        weights_bytes: model.size_bytes(),
        read_tokens: tokens.len(),
        read_seconds,
        read_attention_share: shares[0],
        written_tokens,
        written_seconds,
        written_attention_share: shares[1],
        stop: match stop {
            Stop::Count => "all tokens are written",
            Stop::EndOfText => "the model ended the text",
            Stop::Caller => "stopped",
            Stop::TextLength => "the text is as long as those that the model was trained for",
        }
        .to_owned(),
        text,
    };
    let rate = |tokens: usize, seconds: f64| tokens as f64 / seconds.max(1e-9);
    let share = |share: Option<f64>| {
        share.map_or_else(String::new, |share| format!(", {:>3.0} % of it attention", 100.0 * share))
    };
    // Stdout holds the text, and nothing else.
    files::print("\n")?;
    files::note(&format!(
        "\n{}\n  read   {:>6} tokens, {:>8.1} a second{}\n  wrote  {:>6} tokens, {:>8.1} a second{}; {}",
        report.engine,
        report.read_tokens,
        rate(report.read_tokens, report.read_seconds),
        share(report.read_attention_share),
        report.written_tokens,
        rate(report.written_tokens, report.written_seconds),
        share(report.written_attention_share),
        report.stop,
    ));
    match &args.json {
        Some(path) => files::write_json(path, &report),
        None => Ok(()),
    }
}

/// Final length of the text in tokens: the prompt and the tokens to write, up to the model's trained length unless the caller allows more.
fn length(args: &WriteArgs, prompt: usize, trained: u32) -> Result<u32, Failure> {
    let prompt = u32::try_from(prompt).unwrap_or(u32::MAX);
    let length = prompt.saturating_add(args.tokens);
    if length <= trained {
        return Ok(length);
    }
    let past = format!("the prompt has {prompt} tokens, the model was trained for texts of {trained}");
    if args.past_context {
        files::note(&format!("warning: {past}: what lies past them may make no sense"));
        return Ok(length);
    }
    if prompt > trained {
        return Err(Failure::Usage(format!("{past}: cut it, or go on with --past-context")));
    }
    files::note(&format!("warning: {past}: it ends there; --past-context goes on"));
    Ok(trained)
}
