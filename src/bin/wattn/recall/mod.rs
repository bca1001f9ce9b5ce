//! `wattn recall`: every next byte of a text, predicted by attention alone.
//!
//! Key j holds the context that ends before byte j and value j is byte j, one-hot; query i holds the context that ends
//! with byte i. The last key that query i may see is key i (context before byte i, value byte i), so causal attention
//! shows it nothing of byte i + 1, whose distribution it yields.

mod check;
pub(crate) mod context;
pub(crate) mod draw;
pub(crate) mod mask_plot;
mod mixture;
pub(crate) mod plot;
mod report;
pub(crate) mod sparse;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use wattn::{AttentionOutput, DType, Element, HostTensor};

use crate::args::sparse::Selector;
use crate::args::{RecallArgs, RecallOptions};
use crate::engine::{BYTES, Engine, SparsePrefix};
use crate::failure::Failure;
use crate::files;
use crate::progress;
use check::{Checker, Sample};
use context::{Encoder, MAX_LENGTH};
use mixture::Mixture;
use report::{Report, Settings, Timing};

/// Origin and licence are in `sample.md` beside it. 32 KiB at 4 heads of 128 + 256 columns are 1.6 TFLOP, which two CPU
/// cores do in about 15 seconds.
const SAMPLE: &[u8] = include_bytes!("../sample.txt");
const SAMPLE_NAME: &str = "part of \"The Rust Programming Language\"";

/// One text to predict, and the files for results besides the report on stdout.
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
    pub(crate) options: RecallOptions,
    /// Sparse attention to compare with dense.
    pub(crate) selectors: Vec<Selector>,
    pub(crate) mask_png: Option<PathBuf>,
    pub(crate) png: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
}

pub(crate) fn run(args: RecallArgs) -> Result<(), Failure> {
    let selectors = args.selectors()?;
    let outputs = [("--mask-png", &args.mask_png), ("--png", &args.png), ("--json", &args.json)];
    let outputs = outputs.map(|(name, path)| (name, path.as_deref()));
    files::check_outputs(&[("the text", args.file.as_deref())], &outputs)?;
    let length = args.length.unwrap_or(MAX_LENGTH);
    let (name, text) = match &args.file {
        Some(file) => {
            let text = files::read_up_to(file, length as u64)?;
            if text.len() < 2 {
                return Err(Failure::content(file, "too short: at least 2 bytes are needed"));
            }
            (file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned(), text)
        }
        None => (SAMPLE_NAME.to_owned(), SAMPLE[..SAMPLE.len().min(length)].to_vec()),
    };
    let RecallArgs { options, mask_png, png, json, .. } = args;
    run_job(&Job { name, text, options, selectors, mask_png, png, json })
}

/// Predicts, checks, reports. A failed check is an error, after everything was written.
fn run_job(job: &Job) -> Result<(), Failure> {
    let engine = Engine::open(&job.options.engine)?;
    match job.options.dtype.into() {
        DType::F16 => recall::<f16>(job, &engine),
        DType::BF16 => recall::<bf16>(job, &engine),
        DType::F32 => recall::<f32>(job, &engine),
        other => Err(Failure::Usage(format!("this program computes in f32, f16 and bf16, not in {other}"))),
    }
}

fn recall<T: Element>(job: &Job, engine: &Engine) -> Result<(), Failure> {
    let start = Instant::now();
    let (text, options) = (job.text.as_slice(), &job.options);
    let heads = context::heads(options.heads);
    let encoder = |(index, &head)| Encoder::new(head, index, options.head_dim as usize, options.seed);
    let encoders: Vec<Encoder> = heads.iter().enumerate().map(encoder).collect();
    let keys = encoders.iter().map(|encoder| encoder.keys(text)).collect::<wattn::Result<Vec<HostTensor<T>>>>()?;
    let softmax_scale = 1.0 / options.head_dim as f32;

    // Dense attention takes long, so that impossible sparse methods are refused before it.
    for selector in &job.selectors {
        SparsePrefix::validate(selector, &keys, softmax_scale)?;
    }
    let attention = engine.prefix_attention(&keys, text, softmax_scale, options.chunk)?;
    let predicted = predict(text, &encoders, options.chunk, |q, start| attention.attend_chunk(q, start))?;
    drop(attention);

    let checker = Checker { text, keys: &keys, encoders: &encoders, softmax_scale };
    let check = checker.check(&predicted.samples)?;
    let settings = Settings {
        name: job.name.clone(),
        heads: options.heads,
        head_dim: options.head_dim,
        dtype: T::DTYPE.to_string(),
        chunk: options.chunk,
        seed: options.seed,
        engine: engine.describe(),
    };
    let timing = Timing { attention: predicted.attention, mixing: predicted.mixing, total: start.elapsed() };
    let mut report = Report::new(settings, text, &predicted, check, &timing)?;
    if let Some(path) = &job.png {
        let attended = plot::Attended::last_rows(&checker)?;
        files::write_atomically(path, "png", |temporary| plot::draw(temporary, &report, &predicted, &attended))?;
        report.picture = Some(path.display().to_string());
    }
    files::print(&report.to_string())?;
    if !job.selectors.is_empty() {
        let texts = sparse::Texts { engine, text, encoders: &encoders, keys: &keys, softmax_scale };
        let compared = sparse::compare(job, &texts, &predicted)?;
        files::print(&compared.to_string())?;
        report.attentions = Some(compared);
    }
    if let Some(path) = &job.json {
        files::write_json(path, &report)?;
    }
    report.verdict()
}

/// The results, byte by byte.
pub(crate) struct Predicted {
    /// Cost of each byte in bits; the first byte has no context and costs 8.
    bits: Vec<f32>,
    /// Whether the most likely byte was the right one.
    hits: Vec<bool>,
    samples: Vec<Sample>,
    /// The lse of every row but the last, all heads side by side.
    lse: Vec<f32>,
    /// The final weights of the heads, and last the weight of the byte frequency.
    weights: Vec<f32>,
    attention: Duration,
    mixing: Duration,
}

fn predict<T: Element>(
    text: &[u8],
    encoders: &[Encoder],
    chunk: u32,
    mut attend: impl FnMut(&HostTensor<T>, u32) -> wattn::Result<AttentionOutput>,
) -> Result<Predicted, Failure> {
    let mut predicted = Predicted {
        bits: vec![8.0],
        hits: vec![false],
        samples: Vec::new(),
        lse: Vec::new(),
        weights: Vec::new(),
        attention: Duration::ZERO,
        mixing: Duration::ZERO,
    };
    let mut mixture = Mixture::new(encoders.len());
    mixture.count(text[0]);
    let sampled = check::sampled_rows(text.len() - 1, encoders.len());
    // Work grows with the square of the position, and so does the bar.
    let progress = progress::styled(pairs(text.len() - 1), "{wide_bar} {percent:>3} %  {eta_precise} left");
    // The last byte has no successor to predict, so it has no query.
    for start in (0..text.len() - 1).step_by(chunk as usize) {
        let end = (start + chunk as usize).min(text.len() - 1);
        let clock = Instant::now();
        let q = context::queries::<T>(encoders, text, start, end)?;
        let output = attend(&q, start as u32)?;
        predicted.attention += clock.elapsed();

        predicted.lse.extend_from_slice(output.lse.data());
        let clock = Instant::now();
        let width = encoders.len() * BYTES as usize;
        for (row, heads) in (start..end).zip(output.out.data().chunks_exact(width)) {
            let next = text[row + 1];
            let p = mixture.predict(heads);
            predicted.bits.push(-p[usize::from(next)].log2());
            predicted.hits.push(most_likely(p) == next);
            mixture.observe(next);
        }
        predicted.mixing += clock.elapsed();
        let inside = sampled.iter().filter(|&&(row, _)| (start..end).contains(&row));
        predicted.samples.extend(inside.map(|&(row, head)| Sample {
            row,
            head,
            out: output.out.row(0, row - start, head).to_vec(),
            lse: output.lse.row(0, row - start, head)[0],
        }));
        progress.set_position(pairs(end));
    }
    progress.finish_and_clear();
    predicted.weights = mixture.weights().to_vec();
    Ok(predicted)
}

/// `12345` as `12,345`.
fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Query-key pairs of one head that causal attention over `rows` rows computes.
fn pairs(rows: usize) -> u64 {
    let rows = rows as u64;
    rows * (rows + 1) / 2
}

fn most_likely(p: &mixture::Distribution) -> u8 {
    let best = (0..=u8::MAX).max_by(|&a, &b| p[usize::from(a)].total_cmp(&p[usize::from(b)]));
    best.unwrap_or_default()
}
