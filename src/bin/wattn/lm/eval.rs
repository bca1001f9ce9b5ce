//! `wattn lm eval`: the loss of a model under sparse attention, and the captured attention.

use wattn::Preset;
use wattn::lm::Model;

use super::bench::Bench;
use super::compare::{LEAST_BUDGET, Method};
use super::needles;
use super::report::{Mass, Report, Row, SCORED};
use super::text::{self, Tokens, bits_per_byte};
use super::{bar, load, plot, shipped};
use crate::args::lm::EvalArgs;
use crate::failure::Failure;
use crate::files;

/// A window of text: `end` is one past its last token.
struct Window {
    document: usize,
    end: usize,
}

pub(super) fn run(args: &EvalArgs) -> Result<(), Failure> {
    let texts: Vec<_> = args.text.iter().map(|path| ("--text", Some(path.as_path()))).collect();
    files::check_outputs(&texts, &[("--png", args.png.as_deref()), ("--json", args.json.as_deref())])?;
    let loaded = load(&args.model)?;
    let trained = loaded.model.config().trained_len;
    let contexts = lengths(&args.contexts, &[trained / 4, trained / 2, trained], SCORED as u32, "--contexts")?;
    let longest = contexts.last().copied().unwrap_or(trained);
    let budgets = lengths(&args.budgets, &[longest / 8, longest / 4], LEAST_BUDGET, "--budgets")?;
    let mut methods = vec![Method::dense()];
    methods.extend(budgets.iter().flat_map(|&budget| Method::with_budget(budget, args.seed)));
    for name in &args.presets {
        let preset =
            Preset::from_name(name).ok_or_else(|| Failure::Usage(format!("--presets {name}: no such preset")))?;
        methods.push(Method::preset(preset));
    }
    let documents = documents(&loaded.model, args)?;
    let bench = Bench { loaded: &loaded, args, documents: &documents };
    let windows = windows(&documents, longest as usize, args.windows as usize);
    if windows.is_empty() {
        let message = format!("no text has {longest} tokens: give longer ones with --text, or shorter --contexts");
        return Err(Failure::Usage(message));
    }
    let rows = scores(&bench, &methods, &contexts, &windows)?;
    let quarter: Vec<Method> =
        methods.iter().filter(|m| m.budget.is_none() || m.budget == budgets.last().copied()).cloned().collect();
    let report = Report {
        model: loaded.name.clone(),
        engine: loaded.engine_name.clone(),
        dense_layers: args.model.dense_layers,
        scored_bytes: windows.iter().map(|w| documents[w.document].bytes(w.end - SCORED, w.end)).sum(),
        windows: windows.len(),
        rows,
        needles: needles::run(&bench, &quarter, longest)?,
        mass: mass(&bench, &quarter, longest, &windows)?,
        contexts,
    };
    files::print(&report.to_string())?;
    if let Some(path) = &args.png {
        files::write_atomically(path, "png", |temporary| plot::draw(temporary, &report))?;
    }
    match &args.json {
        Some(path) => files::write_json(path, &report),
        None => Ok(()),
    }
}

/// Lengths in ascending order, each once, none below `least`.
fn lengths(given: &[u32], default: &[u32], least: u32, name: &str) -> Result<Vec<u32>, Failure> {
    let mut lengths =
        if given.is_empty() { default.iter().map(|&length| length.max(least)).collect() } else { given.to_vec() };
    if let Some(&length) = lengths.iter().find(|&&length| length < least || length > 1 << 24) {
        return Err(Failure::Usage(format!("{name} {length}: must be from {least} to 2^24")));
    }
    lengths.sort_unstable();
    lengths.dedup();
    Ok(lengths)
}

fn documents(model: &Model, args: &EvalArgs) -> Result<Vec<Tokens>, Failure> {
    let texts: Vec<String> = if args.text.is_empty() {
        shipped::held_out()?.into_iter().map(|document| document.text).collect()
    } else {
        args.text.iter().map(|path| text::read(path)).collect::<Result<_, _>>()?
    };
    Ok(texts.iter().map(|text| Tokens::new(model, text)).collect::<Result<_, _>>()?)
}

/// At most `count` windows, spread over all possible ends: every [`SCORED`] tokens of each document.
fn windows(documents: &[Tokens], longest: usize, count: usize) -> Vec<Window> {
    let ends = |(document, tokens): (usize, &Tokens)| {
        (longest..=tokens.ids.len()).step_by(SCORED).map(move |end| Window { document, end }).collect::<Vec<_>>()
    };
    let all: Vec<Window> = documents.iter().enumerate().flat_map(ends).collect();
    let stride = all.len().div_ceil(count).max(1);
    all.into_iter().step_by(stride).collect()
}

fn scores(bench: &Bench<'_>, methods: &[Method], contexts: &[u32], windows: &[Window]) -> Result<Vec<Row>, Failure> {
    let progress = bar((methods.len() * windows.len() * contexts.len()) as u64, "scoring");
    let mut rows: Vec<Row> = Vec::new();
    for method in methods {
        let longest = contexts.last().copied().unwrap_or(0);
        let mut session = None;
        let (begin, mut read) = (std::time::Instant::now(), 0);
        let mut costs = Vec::new();
        for &context in contexts {
            if method.budget.is_some_and(|budget| budget >= context) {
                costs.push(None);
                continue;
            }
            let (mut nats, mut bytes) = (0.0, 0);
            let capacity = if bench.follows_length() { context } else { longest };
            if bench.follows_length() {
                session = None;
            }
            let session = match &mut session {
                Some(session) => session,
                none => none.insert(bench.session(&bench.loaded.engine, method, capacity)?),
            };
            for window in windows {
                let tokens = &bench.documents[window.document];
                let part = &tokens.ids[window.end - context as usize..window.end];
                session.truncate(0);
                // The token before the first scored token predicts it.
                let (known, scored) = part.split_at((part.len() - SCORED).saturating_sub(1));
                session.read(known)?;
                let all = session.score(scored)?;
                let counted = &all[all.len() - SCORED.min(all.len())..];
                nats += counted.iter().sum::<f64>();
                bytes += tokens.bytes(window.end - counted.len(), window.end);
                read += part.len();
                progress.inc(1);
            }
            costs.push(Some(bits_per_byte(nats, bytes)));
        }
        let dense = rows.first().and_then(|dense| *dense.bits_per_byte.last()?);
        let last = costs.last().copied().flatten();
        rows.push(Row {
            attention: method.name.clone(),
            budget: method.budget,
            loss_percent: dense.zip(last).map(|(dense, cost)| 100.0 * (cost / dense - 1.0)),
            bits_per_byte: costs,
            tokens_per_second: read as f64 / begin.elapsed().as_secs_f64(),
        });
    }
    progress.finish_and_clear();
    Ok(rows)
}

/// On the CPU, where dense attention is computed beside sparse.
fn mass(bench: &Bench<'_>, methods: &[Method], context: u32, windows: &[Window]) -> Result<Vec<Mass>, Failure> {
    let few = &windows[..windows.len().min(4)];
    let sparse: Vec<&Method> = methods.iter().filter(|m| m.budget.is_some_and(|budget| budget < context)).collect();
    let progress = bar((sparse.len() * few.len()) as u64, "measuring mass");
    let mut all = Vec::new();
    for method in sparse {
        let mut session = bench.session(&wattn::Engine::cpu(), method, context)?;
        session.measure_mass()?;
        for window in few {
            session.truncate(0);
            session.read(&bench.documents[window.document].ids[window.end - context as usize..window.end])?;
            progress.inc(1);
        }
        let mass = session.mass()?;
        let layers = mass.layers().iter().map(|layer| {
            let all = layer.all();
            (layer.name().to_owned(), all.mean, all.p10, all.min)
        });
        all.push(Mass { attention: method.name.clone(), budget: method.budget, layers: layers.collect() });
    }
    progress.finish_and_clear();
    Ok(all)
}
