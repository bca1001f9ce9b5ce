//! Checkpoints that transformers wrote: the CPU path gives the same logits, however the tokens are read.

mod common;

use std::ops::ControlFlow;

use common::lm::{CASES, Golden, TOLERANCE, difference, golden};
use wattn::lm::{LayerAttention, LmError, Sampling, Session, SessionOptions, Stop};
use wattn::{Engine, Hip};

#[test]
fn logits_are_those_of_transformers() {
    for case in CASES {
        let Golden { model, tokens, logits } = golden(case);
        // Whole, in chunks with a remainder, and token by token.
        for chunk in [64, 16, 1] {
            let options = SessionOptions::new(model.config(), 64).with_chunk(chunk);
            let mut session = Session::new(&model, &Engine::cpu(), &options).unwrap();
            let got = session.read_logits(&tokens).unwrap();
            let error = difference(&got, &logits);
            println!("{case}, chunks of {chunk}: {error:.1e}");
            assert!(error <= TOLERANCE, "{case}, chunks of {chunk}: {error:.1e}");
            let last = session.logits().unwrap();
            assert_eq!(last, got[got.len() - last.len()..], "{case}");
        }
    }
}

/// A tolerance that would hide no mistake in any part of the model.
#[test]
fn other_tokens_give_other_logits() {
    let Golden { model, mut tokens, logits } = golden("qwen3_f16");
    tokens[3] ^= 1;
    let mut session = Session::new(&model, &Engine::cpu(), &SessionOptions::new(model.config(), 64)).unwrap();
    let got = session.read_logits(&tokens).unwrap();
    let vocab = model.config().vocab_size as usize;
    assert!(difference(&got[..3 * vocab], &logits[..3 * vocab]) <= TOLERANCE);
    assert!(difference(&got[3 * vocab..], &logits[3 * vocab..]) > 0.05);
}

#[test]
fn sparse_attention_with_room_for_every_key_is_dense() {
    for case in ["llama_f32_sharded", "qwen3_f16"] {
        let Golden { model, tokens, logits } = golden(case);
        let hip =
            Hip::default().with_top_k(64).with_sink_size(2).with_window_size(4).with_block_size_q(8).with_stride_q(1);
        let attention = LayerAttention::select(hip);
        for chunk in [16, 1] {
            let options = SessionOptions::new(model.config(), 64).with_chunk(chunk).with_attention(&attention, 1);
            let mut session = Session::new(&model, &Engine::cpu(), &options).unwrap();
            let got = session.read_logits(&tokens).unwrap();
            assert!(difference(&got, &logits) <= TOLERANCE, "{case}");
        }
        // With room for a few tokens only, it is not.
        let options = SessionOptions::new(model.config(), 64).with_attention(&LayerAttention::window(2, 4), 0);
        let mut session = Session::new(&model, &Engine::cpu(), &options).unwrap();
        assert!(difference(&session.read_logits(&tokens).unwrap(), &logits) > 0.01, "{case}");
    }
}

#[test]
fn scores_are_log_likelihoods() {
    let Golden { model, tokens, logits } = golden("qwen3_f32_tied");
    let mut session = Session::new(&model, &Engine::cpu(), &SessionOptions::new(model.config(), 64)).unwrap();
    let nats = session.score(&tokens).unwrap();
    assert_eq!(nats.len(), tokens.len() - 1);
    let vocab = model.config().vocab_size as usize;
    for ((row, &next), nats) in logits.chunks_exact(vocab).zip(&tokens[1..]).zip(nats) {
        let sum: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        assert!((sum.ln() - f64::from(row[next as usize]) - nats).abs() < 1e-3);
    }
}

#[test]
fn generation_goes_on_from_what_was_read() {
    let Golden { model, tokens, .. } = golden("qwen3_f32_tied");
    let options = SessionOptions::new(model.config(), 64).with_chunk(7);
    let mut session = Session::new(&model, &Engine::cpu(), &options).unwrap();
    session.read(&tokens[..20]).unwrap();
    let mut told = Vec::new();
    let stop = session.generate(12, &Sampling::GREEDY, |token| {
        told.push(token);
        ControlFlow::Continue(())
    });
    assert!(matches!(stop.unwrap(), Stop::Count | Stop::EndOfText));
    assert_eq!(&session.tokens()[20..], told);
    // Each token is the best after the tokens before it, as a session that reads them all finds.
    let mut again = Session::new(&model, &Engine::cpu(), &options).unwrap();
    let all = session.tokens().to_vec();
    let logits = again.read_logits(&all).unwrap();
    let vocab = model.config().vocab_size as usize;
    for (at, &token) in told.iter().enumerate() {
        let row = &logits[(19 + at) * vocab..][..vocab];
        assert!(row.iter().all(|&x| x <= row[token as usize] + 1e-4), "token {at}");
    }
    // A session that is cut back writes the same again; a stopped session holds the tokens that it reported.
    session.truncate(20);
    let mut second = Vec::new();
    let stop = session.generate(12, &Sampling::GREEDY, |token| {
        second.push(token);
        if second.len() == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((stop.unwrap(), second.as_slice(), session.tokens().len()), (Stop::Caller, &told[..5], 25));
}

#[test]
fn draws_follow_the_seed_and_the_limits() {
    let Golden { model, tokens, .. } = golden("mistral_f16");
    let options = SessionOptions::new(model.config(), 64);
    let draw = |sampling: Sampling| {
        let mut session = Session::new(&model, &Engine::cpu(), &options).unwrap();
        session.read(&tokens[..10]).unwrap();
        session.generate(40, &sampling, |_| ControlFlow::Continue(())).unwrap();
        session.tokens()[10..].to_vec()
    };
    let warm = Sampling::GREEDY.with_temperature(1.5).with_seed(7);
    assert_eq!(draw(warm), draw(warm));
    assert_ne!(draw(warm), draw(warm.with_seed(8)));
    assert_eq!(draw(warm.with_top_k(1)), draw(Sampling::GREEDY));
    assert_eq!(draw(warm.with_top_p(1e-6)), draw(Sampling::GREEDY));
}

/// Texts end at the model's trained length, unless the session is made for longer texts.
#[test]
fn texts_are_as_long_as_in_training() {
    let Golden { model, tokens, .. } = golden("mistral_f16");
    let trained = model.config().trained_len;
    assert_eq!(trained, 64);
    let options = SessionOptions::new(model.config(), 100);
    let mut session = Session::new(&model, &Engine::cpu(), &options).unwrap();
    session.read(&tokens[..60]).unwrap();
    let error = session.read(&tokens[..5]).unwrap_err();
    assert!(matches!(error, LmError::TextLength { needed: 65, text_len: 64 }), "{error}");
    let mut told = 0;
    let mut count = |session: &mut Session, tokens| {
        told = 0;
        let tell = |_| {
            told += 1;
            ControlFlow::Continue(())
        };
        let stop = session.generate(tokens, &Sampling::GREEDY, tell).unwrap();
        (stop, told)
    };
    assert_eq!(count(&mut session, 4), (Stop::Count, 4));
    assert_eq!(count(&mut session, 4), (Stop::TextLength, 0));
    session.truncate(62);
    assert_eq!(count(&mut session, 4), (Stop::TextLength, 2));
    let mut session = Session::new(&model, &Engine::cpu(), &options.clone().with_text_len(70)).unwrap();
    session.read(&tokens[..60]).unwrap();
    assert_eq!(count(&mut session, 20), (Stop::TextLength, 10));
    assert_eq!(session.tokens().len(), 70);
}

#[test]
fn calls_that_cannot_be_are_errors() {
    let Golden { model, tokens, .. } = golden("mistral_f16");
    let options = SessionOptions::new(model.config(), 16);
    let mut session = Session::new(&model, &Engine::cpu(), &options).unwrap();
    assert!(matches!(session.logits(), Err(LmError::Option { option: "tokens", .. })));
    assert!(matches!(session.read(&[96]), Err(LmError::Token { token: 96, vocab_size: 96 })));
    assert!(matches!(session.read(&tokens[..17]), Err(LmError::Capacity { needed: 17, capacity: 16 })));
    session.read(&tokens[..10]).unwrap();
    let greedy = Sampling::GREEDY;
    let full = session.generate(7, &greedy, |_| ControlFlow::Continue(()));
    assert!(matches!(full, Err(LmError::Capacity { needed: 17, capacity: 16 })));
    for (sampling, name) in [
        (greedy.with_temperature(-1.0), "temperature"),
        (greedy.with_temperature(f32::NAN), "temperature"),
        (greedy.with_temperature(1e-9), "temperature"),
        (greedy.with_top_p(0.0), "top_p"),
        (greedy.with_top_p(1.5), "top_p"),
    ] {
        let error = session.generate(1, &sampling, |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, LmError::Option { option, .. } if option == name), "{error}");
    }
    assert_eq!(session.tokens().len(), 10);
    for options in [SessionOptions::new(model.config(), 0), SessionOptions::new(model.config(), 8).with_chunk(0)] {
        assert!(matches!(Session::new(&model, &Engine::cpu(), &options), Err(LmError::Option { .. })));
    }
    let odd = LayerAttention::select(Hip::default().with_top_k(7));
    let options = SessionOptions::new(model.config(), 64).with_attention(&odd, 0);
    // Mistral's layers have sliding windows, which no selection replaces.
    assert!(Session::new(&model, &Engine::cpu(), &options).is_ok());
    let Golden { model, .. } = golden("qwen3_f16");
    let options = SessionOptions::new(model.config(), 64).with_attention(&odd, 0);
    let error = Session::new(&model, &Engine::cpu(), &options).unwrap_err();
    assert!(error.to_string().starts_with("top_k = 7"), "{error}");
}
