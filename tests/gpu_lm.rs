//! Language models on every adapter: each kernel against its twin, whole models against transformers.

mod common;

use std::ops::ControlFlow;

use common::Random;
use common::gpu::{buffer, contexts, read_all, read_words};
use common::lm::{CASES, Golden, TOLERANCE, difference, golden};
use half::{bf16, f16};
use wattn::lm::{
    Elements, LayerAttention, ListSource, LmVariant, Matrix, Sampling, Session, SessionOptions, WeightElem,
    kernels as lm_kernels, run_kernel, twins,
};
use wattn::{Context, Engine, Hip, InfiniteHip, Kernel, Stage};

/// Largest difference from a twin, as a share of the root mean square: the two add up to 132 products in other orders.
const CLOSE: f32 = 1e-5;

fn floats(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..count).map(|_| random.unit()).collect()
}

/// A matrix in every form that the device reads.
fn matrices(ctx: &Context, rows: usize, cols: usize) -> Vec<(WeightElem, Matrix)> {
    let wide = floats(rows * cols, 5);
    let mut all = vec![
        (WeightElem::F32, Elements::F32(wide.clone())),
        (WeightElem::F16Packed, Elements::F16(wide.iter().map(|&x| f16::from_f32(x)).collect())),
        (WeightElem::BF16, Elements::BF16(wide.iter().map(|&x| bf16::from_f32(x)).collect())),
    ];
    if ctx.caps().shader_f16 {
        all.push((WeightElem::F16, all[1].1.clone()));
    }
    all.into_iter().map(|(elem, elements)| (elem, Matrix::new(rows, cols, elements))).collect()
}

#[test]
fn embed_tokens_copies_rows() {
    let tokens = [7u32, 0, 12, 5, 5, 11, 3];
    for ctx in contexts() {
        for (elem, matrix) in matrices(ctx, 13, 36) {
            let out = buffer(ctx, &[7.0f32; 7 * 36]);
            let tokens_buffer = buffer(ctx, &tokens);
            // In two buffers, as large embeddings are.
            let bytes = matrix.elements().bytes();
            let (first, second) = bytes.split_at(bytes.len() / 13 * 6);
            for (part, first_row, rows) in [(first, 0, 6), (second, 6, 7)] {
                let variant = LmVariant { elem, ..LmVariant::plain(&lm_kernels::EMBED_TOKENS) };
                let part = buffer(ctx, part);
                run_kernel(ctx, variant, &[7, 9, first_row, rows], &[&tokens_buffer, &part, &out], [1, 1, 1]).unwrap();
            }
            assert_eq!(read_all::<f32>(ctx, &out), twins::embed_tokens(&tokens, &matrix), "{elem:?}");
        }
    }
}

#[test]
fn rms_norm_norms_rows() {
    for ctx in contexts() {
        for width in [4, 36, 256, 260, 1028] {
            let (x, weight) = (floats(5 * width, 1), floats(width, 2));
            let out = buffer(ctx, &vec![7.0f32; 3 * width]);
            let params = [width as u32 / 4, 2, 3, 1e-5f32.to_bits(), (1.0 / width as f32).to_bits()];
            let buffers = [&buffer(ctx, &x), &buffer(ctx, &weight), &out];
            // In one line of workgroups, and folded with one workgroup too many.
            for workgroups in [[3, 1, 1], [2, 2, 1]] {
                ctx.queue().write_buffer(&out, 0, bytemuck::cast_slice(&vec![7.0f32; 3 * width]));
                run_kernel(ctx, LmVariant::plain(&lm_kernels::RMS_NORM), &params, &buffers, workgroups).unwrap();
                let wanted = twins::rms_norm(&x[2 * width..], &weight, 1e-5);
                assert!(difference(&read_all::<f32>(ctx, &out), &wanted) <= CLOSE, "width {width}");
            }
        }
    }
}

#[test]
fn project_token_is_a_product() {
    projects(&lm_kernels::PROJECT_TOKEN, 1, |rows| [rows.div_ceil(4), 1, 1]);
}

#[test]
fn project_tokens_is_a_product() {
    for tokens in [1, 15, 64, 67] {
        projects(&lm_kernels::PROJECT_TOKENS, tokens, |rows| [rows.div_ceil(64), tokens.div_ceil(64) as u32, 1]);
        // Folded, and with more workgroups than rows.
        projects(&lm_kernels::PROJECT_TOKENS, tokens, |rows| [1, tokens.div_ceil(64) as u32, rows.div_ceil(64) + 1]);
    }
}

/// All outputs, in two buffers of weights, with and without a bias, written over or added to the old contents.
fn projects(kernel: &'static Kernel, tokens: usize, workgroups: impl Fn(u32) -> [u32; 3]) {
    for ctx in contexts() {
        for (rows, cols) in [(70, 36), (1, 4), (64, 132)] {
            for (elem, matrix) in matrices(ctx, rows, cols) {
                let (x, bias) = (floats(tokens * cols, 1), floats(rows, 2));
                let before = floats(tokens * rows, 3);
                for (biased, accumulate) in [(false, false), (true, false), (true, true)] {
                    let out = buffer(ctx, &before);
                    let [x_buffer, bias_buffer] = [&x, &bias].map(|x| buffer(ctx, x));
                    let bytes = matrix.elements().bytes();
                    let split = rows / 3;
                    let (first, second) = bytes.split_at(bytes.len() / rows * split);
                    for (part, first_row, count) in [(first, 0, split), (second, split, rows - split)] {
                        if count == 0 {
                            continue;
                        }
                        let [tokens, cols, rows, first_row, count] =
                            [tokens, cols, rows, first_row, count].map(|n| n as u32);
                        let params = [tokens, cols / 4, count, first_row, rows, biased.into(), accumulate.into()];
                        let variant = LmVariant { elem, ..LmVariant::plain(kernel) };
                        let buffers = [&x_buffer, &buffer(ctx, part), &bias_buffer, &out];
                        run_kernel(ctx, variant, &params, &buffers, workgroups(count)).unwrap();
                    }
                    let bias = biased.then_some(bias.as_slice());
                    let mut wanted = twins::project_tokens(&x, &matrix, bias);
                    if tokens == 1 {
                        let one = twins::project_token(&x, &matrix, bias);
                        assert!(difference(&one, &wanted) <= CLOSE, "the CPU's two products");
                    }
                    if accumulate {
                        wanted.iter_mut().zip(&before).for_each(|(x, before)| *x += before);
                    }
                    let error = difference(&read_all::<f32>(ctx, &out), &wanted);
                    assert!(error <= CLOSE, "{kernel:?} {elem:?} {rows} x {cols}, {tokens} tokens: {error:.1e}");
                }
            }
        }
    }
}

#[test]
fn rotate_heads_turns_and_places() {
    for ctx in contexts() {
        for (num_q_heads, num_kv_heads, head_dim) in [(4, 2, 12), (1, 1, 4), (3, 1, 132)] {
            for norm in [false, true] {
                let (tokens, position, capacity) = (5, 3, 9);
                let heads = num_q_heads + 2 * num_kv_heads;
                let qkv = floats(tokens * heads * head_dim, 1);
                let norms = [floats(head_dim, 2), floats(head_dim, 3)];
                let table = floats(capacity * head_dim, 4);
                let q = buffer(ctx, &vec![7.0f32; tokens * num_q_heads * head_dim]);
                let [k, v] = [(); 2].map(|()| buffer(ctx, &vec![7.0f32; capacity * num_kv_heads * head_dim]));
                let sizes = [num_q_heads, num_kv_heads, head_dim, tokens].map(|n| n as u32);
                let params = [&sizes[..], &[1e-6f32.to_bits()]].concat();
                let state = buffer(ctx, &[(position + tokens) as u32, position as u32]);
                let [qkv_buffer, norms_buffer, angles] =
                    [&qkv, &norms.concat(), &table].map(|contents| buffer(ctx, contents));
                let buffers = [&state, &qkv_buffer, &norms_buffer, &angles, &q, &k, &v];
                let variant = LmVariant { norm, ..LmVariant::plain(&lm_kernels::ROTATE_HEADS) };
                // Folded, with a token too many, where heads are not normed.
                let grid = if norm { [heads as u32, tokens as u32, 1] } else { [heads as u32, 2, 3] };
                run_kernel(ctx, variant, &params, &buffers, grid).unwrap();

                let heads = twins::Heads { num_q_heads, num_kv_heads, head_dim };
                let norms = norm.then_some((&norms, 1e-6));
                let wanted = twins::rotate_heads(&qkv, heads, norms, &table[position * head_dim..]);
                assert!(difference(&read_all::<f32>(ctx, &q), &wanted[0]) <= CLOSE);
                let row = num_kv_heads * head_dim;
                for (cache, wanted) in [(k, &wanted[1]), (v, &wanted[2])] {
                    let cache = read_all::<f32>(ctx, &cache);
                    let (before, rest) = cache.split_at(position * row);
                    let (new, after) = rest.split_at(tokens * row);
                    assert!(difference(new, wanted) <= CLOSE);
                    assert!(before.iter().chain(after).all(|&x| x == 7.0), "other positions are left alone");
                }
            }
        }
    }
}

#[test]
fn gate_mlp_gates() {
    for ctx in contexts() {
        let mut gate_up = floats(3 * 2 * 20, 1);
        gate_up[0..4].copy_from_slice(&[-1000.0, 1000.0, -88.0, 0.0]);
        let out = buffer(ctx, &[7.0f32; 60]);
        run_kernel(ctx, LmVariant::plain(&lm_kernels::GATE_MLP), &[3, 5], &[&buffer(ctx, &gate_up), &out], [1, 1, 1])
            .unwrap();
        assert!(difference(&read_all::<f32>(ctx, &out), &twins::gate_mlp(&gate_up, 20)) <= CLOSE);
        // A closed gate is 0 whatever the other factor is, and the exponential's infinity does not reach the result.
        let (gate, up) = ([f32::NEG_INFINITY, f32::MIN, -90.0, f32::INFINITY], [3.0, -2.0, f32::MAX, 0.5]);
        let rows = buffer(ctx, &[gate, up].concat());
        let out = buffer(ctx, &[7.0f32; 4]);
        run_kernel(ctx, LmVariant::plain(&lm_kernels::GATE_MLP), &[1, 1], &[&rows, &out], [1, 1, 1]).unwrap();
        assert_eq!(read_all::<f32>(ctx, &out), [0.0, 0.0, 0.0, f32::INFINITY]);
        assert_eq!(twins::gate_mlp(&[gate, up].concat(), 4), [0.0, 0.0, 0.0, f32::INFINITY]);
    }
}

/// NaN is never drawn, infinities rank as numbers, and a cap bounds them.
#[test]
fn sample_token_of_logits_that_are_no_numbers() {
    let warm = |seed: u32| {
        Sampling::GREEDY.with_temperature(0.7).with_top_k([0, 9][seed as usize % 2]).with_top_p(0.95).with_seed(seed)
    };
    let draws = || [Sampling::GREEDY].into_iter().chain((0..6).map(warm));
    for ctx in contexts() {
        for vocab in [1usize, 3, 256, 1000] {
            for of_nan in [1, 2, 5] {
                // NaN of either sign; the other logits equal or infinite.
                for other in [2.5, f32::INFINITY, f32::NEG_INFINITY] {
                    let is_nan = |i: usize| i.is_multiple_of(of_nan);
                    let nan = |i: usize| if i.is_multiple_of(4) { -f32::NAN } else { f32::NAN };
                    let logits: Vec<f32> = (0..vocab).map(|i| if is_nan(i) { nan(i) } else { other }).collect();
                    for (at, sampling) in draws().enumerate() {
                        let token = sample(ctx, &logits, &sampling, at as u32);
                        let what = format!("{} {vocab} {other} {sampling:?}: {token}", ctx.describe());
                        assert_eq!(token, twins::sample_token(&logits, &sampling, at as u32), "{what}");
                        let none = (0..vocab).all(is_nan);
                        assert!(if none { token == 0 } else { !is_nan(token as usize) }, "{what}");
                    }
                }
            }
        }
        // Infinities beside numbers: the largest alone.
        let mut logits = vec![-1.0f32; 300];
        (logits[70], logits[71], logits[200]) = (f32::INFINITY, f32::NEG_INFINITY, f32::NAN);
        for (at, sampling) in draws().enumerate() {
            assert_eq!(sample(ctx, &logits, &sampling, at as u32), 70, "{sampling:?}");
            assert_eq!(twins::sample_token(&logits, &sampling, at as u32), 70, "{sampling:?}");
        }
    }
}

fn sample(ctx: &Context, logits: &[f32], sampling: &Sampling, position: u32) -> u32 {
    let (state, tokens) = (buffer(ctx, &[position, 77]), buffer(ctx, &[99u32, 98]));
    let Sampling { temperature, top_k, top_p, seed, .. } = *sampling;
    let params = [logits.len() as u32, top_k, top_p.to_bits(), temperature.to_bits(), seed];
    let buffers = [&buffer(ctx, logits), &state, &tokens];
    run_kernel(ctx, LmVariant::plain(&lm_kernels::SAMPLE_TOKEN), &params, &buffers, [1, 1, 1]).unwrap();
    assert_eq!(read_words(ctx, &state), [position + 1, position], "the state moves on");
    let tokens = read_words(ctx, &tokens);
    assert_eq!(tokens[1], 98);
    tokens[0]
}

#[test]
fn sample_token_draws_as_its_twin() {
    for ctx in contexts() {
        // Equal weights add exactly: the same draw, wherever it falls.
        for vocab in [1usize, 2, 255, 256, 257, 1000] {
            let mut logits = vec![-3.0f32; vocab];
            logits.iter_mut().step_by(3).for_each(|x| *x = 2.5);
            let kept = vocab.div_ceil(3) as u32;
            for seed in 0..4 {
                let sampling = Sampling::GREEDY.with_temperature(0.7).with_top_k(kept).with_seed(seed);
                let token = sample(ctx, &logits, &sampling, 5 + seed);
                assert_eq!(token, twins::sample_token(&logits, &sampling, 5 + seed), "{vocab} tokens");
                assert!(token.is_multiple_of(3));
            }
            let best = sample(ctx, &logits, &Sampling::GREEDY, 0);
            assert_eq!((best, twins::sample_token(&logits, &Sampling::GREEDY, 0)), (0, 0), "the first of equals");
        }
        // Other weights round in `exp`: a draw on the border between two tokens may fall to either.
        let mut others = 0;
        for seed in 0..40 {
            let logits: Vec<f32> = floats(999, u64::from(seed)).into_iter().map(|x| 8.0 * x).collect();
            let (top_k, top_p) = ([0, 50][seed as usize % 2], [1.0, 0.9, 0.3, 0.01][seed as usize % 4]);
            let sampling = Sampling::GREEDY
                .with_temperature(0.5 + seed as f32 / 20.0)
                .with_top_k(top_k)
                .with_top_p(top_p)
                .with_seed(seed);
            let (got, wanted) = (sample(ctx, &logits, &sampling, 100), twins::sample_token(&logits, &sampling, 100));
            others += u32::from(got != wanted);
        }
        assert!(others <= 2, "{others} of 40 draws differ");
        let negative = [-5.0, -1.0, f32::MIN, -0.5, -0.5];
        assert_eq!(sample(ctx, &negative, &Sampling::GREEDY, 0), 3);
    }
}

#[test]
fn logits_are_those_of_transformers() {
    for ctx in contexts() {
        let engine = Engine::from(ctx.clone());
        for case in CASES {
            let Golden { model, tokens, logits } = golden(case);
            for chunk in [64, 16, 1] {
                let options = SessionOptions::new(model.config(), 64).with_chunk(chunk);
                let mut session = Session::new(&model, &engine, &options).unwrap();
                let error = difference(&session.read_logits(&tokens).unwrap(), &logits);
                assert!(error <= TOLERANCE, "{case}, chunks of {chunk}: {error:.1e}");
                // The path that keeps the logits of the last token only.
                session.truncate(0);
                session.read(&tokens).unwrap();
                let vocab = model.config().vocab_size as usize;
                let error = difference(&session.logits().unwrap(), &logits[logits.len() - vocab..]);
                assert!(error <= TOLERANCE, "{case}, last of chunks of {chunk}: {error:.1e}");
            }
        }
    }
}

fn sparse_methods() -> Vec<LayerAttention> {
    let hip = Hip::default().with_top_k(8).with_sink_size(2).with_window_size(4).with_block_size_q(8);
    let stage =
        |chunk_size, keep, refresh_interval| Stage::new(chunk_size, keep).with_refresh_interval(refresh_interval);
    let stages = vec![stage(8, 32, 4), stage(2, 8, 2)];
    let infinite = InfiniteHip::from(wattn::Preset::Debug)
        .with_block_size_q(8)
        .with_stages(stages)
        .with_sink_size(2)
        .with_window_size(4);
    let decode = hip.with_refresh_interval(3);
    vec![
        LayerAttention::select(hip),
        LayerAttention::select(decode),
        LayerAttention::select(infinite),
        LayerAttention::window(4, 12),
        LayerAttention::listed(hip, ListSource::Random { seed: 3 }),
    ]
}

#[test]
fn sparse_attention_is_that_of_the_cpu() {
    for ctx in contexts() {
        for attention in sparse_methods() {
            let Golden { model, tokens, logits } = golden("qwen3_f16");
            let options = SessionOptions::new(model.config(), 64).with_chunk(16).with_attention(&attention, 1);
            let run = |engine: &Engine| {
                let mut session = Session::new(&model, engine, &options).unwrap();
                let mut all = session.read_logits(&tokens[..48]).unwrap();
                // Then token by token, with lists that serve several steps.
                session.generate(9, &Sampling::GREEDY, |_| ControlFlow::Continue(())).unwrap();
                all.extend(session.logits().unwrap());
                session.read(&tokens[..5]).unwrap();
                assert_eq!(session.lists(0).unwrap(), None, "the first layer is dense");
                (all, session.lists(1).unwrap().expect("the second layer is sparse"))
            };
            let ((gpu, gpu_lists), (cpu, cpu_lists)) = (run(&Engine::from(ctx.clone())), run(&Engine::cpu()));
            assert_eq!(gpu_lists.at, cpu_lists.at);
            let lists = |lists: &wattn::HostBlockLists| -> Vec<Vec<u32>> {
                (0..lists.shape()[1]).map(|set| lists.list(0, set, 0).to_vec()).collect()
            };
            assert_eq!(lists(&gpu_lists.blocks), lists(&cpu_lists.blocks), "{attention:?}");
            let error = difference(&gpu, &cpu);
            assert!(error <= TOLERANCE, "{attention:?}: {error:.1e}");
            let vocab = model.config().vocab_size as usize;
            assert!(difference(&gpu[..48 * vocab], &logits[..48 * vocab]) > 0.01, "{attention:?} is as good as dense");
        }
    }
}

#[test]
fn generation_is_that_of_the_cpu() {
    for ctx in contexts() {
        for sampling in
            [Sampling::GREEDY, Sampling::GREEDY.with_temperature(1.2).with_top_k(20).with_top_p(0.9).with_seed(5)]
        {
            let Golden { model, tokens, .. } = golden("llama_f32_sharded");
            let options = SessionOptions::new(model.config(), 64).with_chunk(7);
            let run = |engine: &Engine| {
                let mut session = Session::new(&model, engine, &options).unwrap();
                session.read(&tokens[..20]).unwrap();
                let first = session.generate(30, &sampling, |_| ControlFlow::Continue(())).unwrap();
                let long = session.tokens().to_vec();
                // Cut back, and stopped while more tokens are in flight.
                session.truncate(20);
                let mut told = 0;
                let stopped = session.generate(30, &sampling, |_| {
                    told += 1;
                    if told == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                assert_eq!(session.tokens(), &long[..session.tokens().len()]);
                session.generate(3, &sampling, |_| ControlFlow::Continue(())).unwrap();
                assert_eq!(session.tokens(), &long[..session.tokens().len()], "goes on where it was stopped");
                (first, stopped.unwrap(), long, session.tokens().to_vec())
            };
            assert_eq!(run(&Engine::from(ctx.clone())), run(&Engine::cpu()));
        }
    }
}

#[test]
fn a_model_larger_than_the_device_is_an_error() {
    let ctx = &contexts()[0];
    let Golden { model, .. } = golden("qwen3_f16");
    let options = SessionOptions::new(model.config(), 1 << 28);
    let error = Session::new(&model, &Engine::from(ctx.clone()), &options).unwrap_err();
    assert!(error.to_string().contains("the device allows"), "{error}");
}
