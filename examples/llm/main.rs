//! Writes on from a text with a language model, on a GPU or the CPU.
//!
//! `cargo run --release --example llm -- [FOLDER [TEXT]]`, where the folder holds config.json, tokenizer.json and
//! *.safetensors of a Llama, Mistral, Qwen2 or Qwen3 model; without one, the small model beside this file writes.
//! `wattn lm` is the same with all options.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use wattn::lm::{LayerAttention, LmResult, Model, Sampling, Session, SessionOptions, TextStream};
use wattn::{Engine, Hip};

const TOKENS: usize = 64;

fn main() -> LmResult<()> {
    let mut args = std::env::args().skip(1);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/llm/model");
    let folder = PathBuf::from(args.next().unwrap_or_else(|| shipped.to_owned()));
    let text = args.next().unwrap_or_else(|| "# Ownership\n\nOwnership is a set of rules that".to_owned());

    let model = Arc::new(Model::open(&folder)?);
    let engine = Engine::best().wait()?;
    println!("{engine}");
    let prompt = model.tokenizer().encode_prompt(&text)?;
    let capacity = (prompt.len() + TOKENS) as u32;
    for (name, attention) in [("dense", LayerAttention::Dense), ("HiP", LayerAttention::select(Hip::decode()))] {
        let options = SessionOptions::new(model.config(), capacity).with_attention(&attention, 1);
        let mut session = Session::new(&model, &engine, &options)?;
        session.read(&prompt)?;
        print!("\n[{name}] {text}");
        let mut stream = TextStream::after(model.tokenizer(), &prompt)?;
        let mut failed = None;
        let begin = Instant::now();
        session.generate(TOKENS, &Sampling::GREEDY.with_temperature(0.7), |token| {
            match stream.push(token) {
                Ok(piece) => print!("{piece}"),
                Err(error) => failed = Some(error),
            }
            std::io::stdout().flush().map_or(ControlFlow::Break(()), ControlFlow::Continue)
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        print!("{}", stream.finish()?);
        let written = session.tokens().len() - prompt.len();
        println!("\n\n{written} tokens, {:.0} a second", written as f64 / begin.elapsed().as_secs_f64());
    }
    Ok(())
}
