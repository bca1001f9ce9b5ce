//! `wattn` without arguments: the model that comes with the program reads a page that is not in its training data and writes on, with dense
//! and with sparse attention.

use core::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use wattn::lm::{Model, Sampling, Session, SessionOptions, TextStream};

use crate::args::EngineArgs;
use crate::failure::Failure;
use crate::files;
use crate::lm::shipped::{self, Document};
use crate::lm::text::{Tokens, bits_per_byte};
use crate::lm::{self, compare::Method};
use crate::recall::mask_plot;
use crate::recall::sparse::Seen;

const PICTURE: &str = "wattn-mask.png";

/// The page, by its path in the toolchain's documentation.
const PAGE: &str = "reference/attributes/diagnostics.html";

/// Numbers of tokens read and written; together the context length of the model's training.
const READ: usize = 1920;
const WRITTEN: usize = 96;
const CHUNK: u32 = 256;

/// Keys that HiP may read for a query: a quarter of the context.
const BUDGET: u32 = 512;
const DENSE_LAYERS: u32 = 1;

/// Largest difference of logits, as a share of the largest, between two ways to cut the page into chunks: f32 sums in other
/// orders, through all layers.
const AGREEMENT: f32 = 1e-4;

const SAMPLING: Sampling = Sampling::GREEDY.with_temperature(0.6).with_top_k(40).with_top_p(0.95).with_seed(3);

const NEXT: &str = "
next:
  wattn lm --prompt \"# Traits\"              write on from a text of yours
  wattn lm --model DIR --prompt TEXT        the same with Llama, Mistral, Qwen2 or Qwen3 from Hugging Face
  wattn lm eval                             what sparse attention costs, beside a window and random blocks
  wattn recall FILE                         every byte of a file predicted by attention alone
  wattn attend --input IN --output OUT      attention on tensors of yours
  wattn info                                the GPUs of this machine
";

/// The results of one kind of attention on the page.
struct Run {
    name: String,
    bits_per_byte: f64,
    read_per_second: f64,
    written_per_second: f64,
    /// Share of attention in reading and in writing.
    shares: [f64; 2],
    text: String,
    logits: Vec<f32>,
}

/// The model, the page, and the engine.
struct Demo {
    model: Arc<Model>,
    engine: wattn::Engine,
    page: Tokens,
}

pub(crate) fn run() -> Result<(), Failure> {
    let (engine, engine_name) = lm::engine(&EngineArgs::default())?;
    let model = Arc::new(shipped::model()?);
    let documents = shipped::held_out()?;
    let missing = || Failure::Usage(format!("the held-out documents lack {PAGE}"));
    let Document { path, text } = documents.into_iter().find(|document| document.path == PAGE).ok_or_else(missing)?;
    let page = Tokens::new(&model, &text)?;
    let demo = Demo { model, engine, page };
    let megabytes = demo.model.size_bytes() as f64 / 1e6;
    files::print(&format!(
        "A language model of {megabytes:.1} MB reads a page that it was never shown, and writes on.\n\n  page        {path}: \
         {READ} tokens, {} bytes\n  engine      {engine_name}\n\n",
        demo.page.bytes(0, READ)
    ))?;

    let (dense, hip) = (Method::dense(), Method::hip(BUDGET));
    let runs = [demo.read_and_write(&dense, "dense")?, demo.read_and_write(&hip, &format!("HiP, {BUDGET} keys"))?];
    files::print(&table(&runs))?;
    let end = demo.page.bytes(0, READ);
    let begin = (end.saturating_sub(240)..end).find(|&at| text.is_char_boundary(at)).unwrap_or(end);
    files::print(&format!("\n  the page so far ends\n{}\n", columns(&[&text[begin..end]], 76)))?;
    let [left, right] = [&runs[0], &runs[1]].map(|run| format!("[{}] {}", run.name, run.text));
    files::print(&format!("  and goes on\n{}\n", columns(&[&left, &right], 37)))?;

    let picture = std::env::temp_dir().join(PICTURE);
    let keys = demo.draw(&hip, &picture)?;
    files::print(&format!("  picture     {}: which keys HiP reads, {keys:.0} for a query\n", picture.display()))?;
    let difference = demo.other_chunks(&runs[0].logits)?;
    let ok = if difference <= AGREEMENT { "ok" } else { "TOO MUCH" };
    files::print(&format!("  check       logits of the page read in other chunks differ by {difference:.1e}: {ok}\n"))?;
    if difference > AGREEMENT {
        return Err(Failure::Check { error: difference.into(), bound: AGREEMENT.into() });
    }
    files::print(NEXT)
}

impl Demo {
    fn session(&self, method: &Method, chunk: u32) -> Result<Session, Failure> {
        let options = SessionOptions::new(self.model.config(), (READ + WRITTEN) as u32)
            .with_chunk(chunk)
            .with_attention(&method.attention, DENSE_LAYERS);
        Ok(Session::new(&self.model, &self.engine, &options)?)
    }

    fn tokens(&self) -> &[u32] {
        &self.page.ids[..READ]
    }

    fn read_and_write(&self, method: &Method, name: &str) -> Result<Run, Failure> {
        let mut session = self.session(method, CHUNK)?;
        let nats: f64 = session.score(self.tokens())?.iter().sum();
        let logits = session.logits()?;
        session.truncate(0);
        let begin = Instant::now();
        session.read(self.tokens())?;
        session.logits()?; // waits until the page is read
        let read = begin.elapsed().as_secs_f64();
        let mut stream = TextStream::after(self.model.tokenizer(), self.tokens())?;
        let mut pieces: Vec<Result<String, _>> = Vec::new();
        let begin = Instant::now();
        session.generate(WRITTEN, &SAMPLING, |token| {
            pieces.push(stream.push(token));
            ControlFlow::Continue(())
        })?;
        let written = begin.elapsed().as_secs_f64();
        let count = session.tokens().len() - READ;
        pieces.push(stream.finish());
        let text = pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        let mut shares = [0.0; 2];
        for (share, tokens) in shares.iter_mut().zip([CHUNK, 1]) {
            *share = lm::attention_share(&mut session, tokens)?;
        }
        Ok(Run {
            name: name.to_owned(),
            bits_per_byte: bits_per_byte(nats, self.page.bytes(1, READ)),
            read_per_second: READ as f64 / read,
            written_per_second: count as f64 / written.max(1e-9),
            shares,
            text,
            logits,
        })
    }

    /// Draws the blocks that every layer selects; returns the number of keys that a query reads.
    fn draw(&self, method: &Method, path: &std::path::Path) -> Result<f64, Failure> {
        let mut session = self.session(method, CHUNK)?;
        let layers = DENSE_LAYERS..self.model.config().num_layers;
        let mut seen: Vec<Seen> = layers.clone().map(|layer| Seen::new(&format!("layer {layer}"), READ)).collect();
        for chunk in self.tokens().chunks(CHUNK as usize) {
            session.read(chunk)?;
            for (layer, seen) in layers.clone().zip(&mut seen) {
                let Some(lists) = session.lists(layer)? else { continue };
                for set in 0..lists.blocks.shape()[1] {
                    let list = |q_block| lists.blocks.list(0, set, q_block);
                    seen.count(set as usize, &lists.selection, list, lists.at, lists.tokens);
                }
            }
        }
        let keys = seen.iter().map(Seen::keys_per_query).sum::<f64>() / seen.len().max(1) as f64;
        let maps: Vec<_> = seen.into_iter().map(Seen::into_map).collect();
        files::write_atomically(path, "png", |temporary| mask_plot::draw(temporary, "a page of documentation", &maps))?;
        Ok(keys)
    }

    /// The difference of the last logits from those of the page cut into chunks of another size.
    fn other_chunks(&self, logits: &[f32]) -> Result<f32, Failure> {
        let mut session = self.session(&Method::dense(), 100)?;
        session.read(self.tokens())?;
        let largest = logits.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let pairs = session.logits()?.into_iter().zip(logits);
        Ok(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest)
    }
}

fn table(runs: &[Run]) -> String {
    let mut text =
        "  attention      bits per byte   read tokens/s (attention)  write tokens/s (attention)\n".to_owned();
    for Run { name, bits_per_byte, read_per_second, written_per_second, shares, .. } in runs {
        let [read, written] = shares.map(|share| 100.0 * share);
        text += &format!(
            "  {name:<14} {bits_per_byte:>13.3} {read_per_second:>15.0} {read:>8.0} % {written_per_second:>17.0} {written:>8.0} %\n"
        );
    }
    text
}

/// Texts side by side, each `width` characters wide.
fn columns(texts: &[&str], width: usize) -> String {
    let wrapped: Vec<Vec<String>> = texts.iter().map(|text| wrap(text, width)).collect();
    let rows = wrapped.iter().map(Vec::len).max().unwrap_or(0);
    let mut out = String::new();
    for row in 0..rows {
        let cells = wrapped.iter().map(|lines| lines.get(row).map_or("", String::as_str));
        let line: Vec<String> = cells.map(|cell| format!("{cell:<width$}")).collect();
        out += &format!("    {}\n", line.join("  ").trim_end());
    }
    out
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let clean: String = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
    let lines = clean.lines().flat_map(|line| {
        let chars: Vec<char> = line.chars().collect();
        let parts: Vec<String> = chars.chunks(width).map(|part| part.iter().collect()).collect();
        if parts.is_empty() { vec![String::new()] } else { parts }
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_side_by_side() {
        assert_eq!(columns(&["abcdef\ng", "1"], 4), "    abcd  1\n    ef\n    g\n");
        assert_eq!(columns(&["", "x"], 2), "        x\n");
    }
}
