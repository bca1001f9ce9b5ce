//! The model that comes with the program against the framework that trained it, on the CPU and on every adapter.

mod common;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use common::gpu::contexts;
use common::lm::{difference, golden_words, root};
use wattn::lm::{LayerAttention, ListSource, Model, Sampling, Session, SessionOptions};
use wattn::{Engine, Hip};

/// Largest difference of logits, as a share of their root mean square. Both sides compute in f32. Sums of up to 704 products in another
/// order, through six layers, differed by less than a tenth of this.
const TOLERANCE: f32 = 1e-4;

fn folder() -> PathBuf {
    root().join("examples/llm/model")
}

struct Golden {
    tokens: Vec<u32>,
    rows: Vec<u32>,
    logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn golden() -> Golden {
    let [tokens, rows, logits, greedy] = golden_words(&folder(), ["tokens", "rows", "logits", "greedy"]);
    Golden { tokens, rows, logits: logits.into_iter().map(f32::from_bits).collect(), greedy }
}

fn engines() -> Vec<Engine> {
    let gpus = contexts().iter().map(|ctx| Engine::from(ctx.clone()));
    std::iter::once(Engine::cpu()).chain(gpus).collect()
}

#[test]
fn logits_and_greedy_text_are_those_of_the_training_framework() {
    let model = Arc::new(Model::open(&folder()).unwrap());
    let golden = golden();
    let vocab = model.config().vocab_size as usize;
    for engine in engines() {
        let options = SessionOptions::new(model.config(), 768).with_chunk(200);
        let mut session = Session::new(&model, &engine, &options).unwrap();
        let all = session.read_logits(&golden.tokens).unwrap();
        let rows: Vec<f32> =
            golden.rows.iter().flat_map(|&row| all[row as usize * vocab..][..vocab].to_vec()).collect();
        let error = difference(&rows, &golden.logits);
        println!("{engine}: {error:.1e}");
        assert!(error <= TOLERANCE, "{engine}: {error:.1e}");

        let mut told = Vec::new();
        session
            .generate(256, &Sampling::GREEDY, |token| {
                told.push(token);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(told, golden.greedy[..told.len()], "{engine}");
        assert!(told.len() == 256 || golden.greedy.get(told.len()) == Some(&0), "{engine}: ended early");
    }
}

#[test]
fn a_text_comes_back_from_its_tokens() {
    let model = Model::open(&folder()).unwrap();
    let text = std::fs::read_to_string(folder().join("heldout.jsonl")).unwrap();
    for text in text.lines().take(8).chain(["", "a", "naïve — ü 漢字 🦀\u{0}", "1234 5\n\n\t x"]) {
        let tokens = model.tokenizer().encode(text).unwrap();
        assert_eq!(model.tokenizer().decode(&tokens).unwrap(), text);
        let (same, ends) = model.tokenizer().encode_with_ends(text).unwrap();
        assert_eq!(same, tokens);
        assert!(ends.is_sorted() && ends.last().copied().unwrap_or(0) == text.len());
    }
}

/// With a sixth of the keys, all engines give the same bits per byte, not far from dense attention's.
#[test]
fn sparse_attention_costs_little_on_every_engine() {
    let model = Arc::new(Model::open(&folder()).unwrap());
    let tokens = golden().tokens;
    let hip =
        Hip::default().with_top_k(48).with_block_size_q(16).with_stride_q(1).with_sink_size(8).with_window_size(32);
    let cost = |engine: &Engine, attention: &LayerAttention| -> f64 {
        let options = SessionOptions::new(model.config(), 512).with_attention(attention, 1);
        let mut session = Session::new(&model, engine, &options).unwrap();
        let nats = session.score(&tokens).unwrap();
        nats.iter().sum::<f64>() / nats.len() as f64
    };
    let dense = cost(&Engine::cpu(), &LayerAttention::Dense);
    let sparse = cost(&Engine::cpu(), &LayerAttention::select(hip));
    // A selection must lose less than the same number of random keys, or of last keys.
    let random = cost(&Engine::cpu(), &LayerAttention::listed(hip, ListSource::Random { seed: 1 }));
    let window = cost(&Engine::cpu(), &LayerAttention::window(8, 80));
    println!("dense {dense:.4}, HiP {sparse:.4}, random blocks {random:.4}, window {window:.4}");
    assert!(sparse - dense < 0.75 * (random - dense), "dense {dense:.4}, HiP {sparse:.4}, random blocks {random:.4}");
    assert!(sparse - dense < 0.75 * (window - dense), "dense {dense:.4}, HiP {sparse:.4}, window {window:.4}");
    for ctx in contexts() {
        let engine = Engine::from(ctx.clone());
        // A near tie that falls the other way changes a list here and there.
        assert!((cost(&engine, &LayerAttention::select(hip)) / sparse - 1.0).abs() < 2e-3, "{engine}");
        assert!((cost(&engine, &LayerAttention::Dense) / dense - 1.0).abs() < 1e-5, "{engine}");
    }
}
