//! `wattn lm eval`: what sparse attention costs a model, and what it keeps.

use core::fmt;

use serde::Serialize;
use wattn::Preset;
use wattn::lm::{Model, RopeScaling, Session, SessionOptions};

use super::compare::{LEAST_BUDGET, Method};
use super::needles::{self, Needles};
use super::text::{self, Tokens, bits_per_byte};
use super::{Loaded, bar, load, plot, shipped};
use crate::args::lm::EvalArgs;
use crate::failure::Failure;
use crate::files;

/// Tokens at the end of a window whose bits count.
const SCORED: usize = 256;

/// One kind of attention.
#[derive(Clone, Serialize)]
pub(super) struct Row {
    pub(super) attention: String,
    pub(super) budget: Option<u32>,
    /// One for each context length; none where the budget has room for all of it.
    pub(super) bits_per_byte: Vec<Option<f64>>,
    /// At the longest context, against dense.
    pub(super) loss_percent: Option<f64>,
    pub(super) tokens_per_second: f64,
}

/// Captured mass of the layers.
#[derive(Serialize)]
struct Mass {
    attention: String,
    budget: Option<u32>,
    /// `(layer, mean, tenth percentile, minimum)` over rows and heads.
    layers: Vec<(String, f64, f32, f32)>,
}

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    engine: String,
    dense_layers: u32,
    pub(super) contexts: Vec<u32>,
    windows: usize,
    scored_bytes: usize,
    pub(super) rows: Vec<Row>,
    needles: Vec<Needles>,
    mass: Vec<Mass>,
}

/// A window of text: `end` is one past its last token.
struct Window {
    document: usize,
    end: usize,
}

/// What an evaluation works on.
pub(super) struct Bench<'a> {
    pub(super) loaded: &'a Loaded,
    pub(super) args: &'a EvalArgs,
    pub(super) documents: &'a [Tokens],
}

impl Bench<'_> {
    pub(super) fn model(&self) -> &Model {
        &self.loaded.model
    }

    /// Whether angles depend on the length of the text, so that each length needs a session of its own.
    fn follows_length(&self) -> bool {
        matches!(self.model().config().rope.scaling, RopeScaling::Dynamic { .. })
    }

    pub(super) fn session(&self, engine: &wattn::Engine, method: &Method, capacity: u32) -> Result<Session, Failure> {
        let model = &self.args.model;
        let options = SessionOptions::new(self.model().config(), capacity)
            .with_chunk(model.chunk)
            .with_text_len(capacity)
            .with_attention(&method.attention, model.dense_layers);
        Ok(Session::new(&self.loaded.model, engine, &options)?)
    }
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

/// At most `count` windows, spread over all places where one may end: every [`SCORED`] tokens of each document.
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
                // The first token that counts is predicted by the one before it.
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

/// A budget, or `all`.
pub(super) fn keys(budget: Option<u32>) -> String {
    budget.map_or_else(|| "all".to_owned(), |budget| budget.to_string())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n", self.model, self.engine)?;
        writeln!(
            f,
            "Bits per byte of the last {SCORED} tokens of {} windows ({} bytes), by context;\nthe first {} layers are dense.\n",
            self.windows, self.scored_bytes, self.dense_layers
        )?;
        write!(f, "  {:<18} {:>6}", "attention", "keys")?;
        for context in &self.contexts {
            write!(f, " {context:>8}")?;
        }
        writeln!(f, " {:>8} {:>9}", "loss", "tokens/s")?;
        for row in &self.rows {
            write!(f, "  {:<18} {:>6}", row.attention, keys(row.budget))?;
            for cost in &row.bits_per_byte {
                write!(f, " {:>8}", cost.map_or_else(|| "-".to_owned(), |cost| format!("{cost:.4}")))?;
            }
            let loss = row.loss_percent.map_or_else(String::new, |loss| format!("{loss:+.2} %"));
            writeln!(f, " {loss:>8} {:>9.0}", row.tokens_per_second)?;
        }
        needles::table(f, &self.needles)?;
        if !self.mass.is_empty() {
            writeln!(f, "\nShare of the softmax mass that was read, by layer: mean (10th percentile)\n")?;
            for mass in &self.mass {
                write!(f, "  {:<18} {:>6}", mass.attention, keys(mass.budget))?;
                for (_, mean, p10, _) in &mass.layers {
                    write!(f, "  {mean:.3} ({p10:.2})")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
