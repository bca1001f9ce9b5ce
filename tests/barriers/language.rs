//! The kernels of language models and of benchmarks, and the check of matrices.

use half::{bf16, f16};
use wattn::bench::{BenchKernel, Scalar};
use wattn::lm::{Elements, LmVariant, Matrix, Sampling, WeightElem, kernels as lm_kernels, twins};
use wattn::{DeviceCaps, MatrixCheck, MatrixTile};

use super::common::Random;
use super::common::lm::difference;
use super::launch::{Buffers, Case, Launch, from_bytes, garbage, to_bytes};

/// Largest difference from a twin, as a share of the root mean square: sums are added in other orders.
const CLOSE: f32 = 1e-5;

fn floats(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random(seed);
    (0..count).map(|_| random.unit()).collect()
}

fn case(
    name: &str,
    text: String,
    subgroup_size: usize,
    (grid, uniform): ([u32; 3], Vec<u32>),
    buffers: Vec<(&str, Vec<u8>)>,
    check: impl Fn(&Buffers) + Send + Sync + 'static,
) -> Case {
    let launch = Launch {
        name: name.to_owned(),
        rolled: text.clone(),
        shipped: text,
        taken: Vec::new(),
        subgroup_size,
        stretches: vec![(grid, vec![("params", uniform)])],
        bound: Vec::new(),
        views: Vec::new(),
    };
    let buffers = buffers.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    Case { name: name.to_owned(), launches: vec![launch], buffers, check: Box::new(check) }
}

/// The trial product of one kind of matrices.
fn check_of_matrices(edge: u32, lanes: u32, matrix_from_vec4: bool) -> Case {
    let mut caps = DeviceCaps::BASELINE;
    (caps.shader_f16, caps.subgroup_size) = (true, Some(lanes..=lanes));
    (caps.matrix_tiles, caps.matrix_from_vec4) = (vec![MatrixTile::square(edge)], matrix_from_vec4);
    let check = MatrixCheck::of(&caps).unwrap();
    let buffers =
        vec![("operands", to_bytes(&check.operands_f16())), ("found", garbage(check.expected().len() as u64 * 4))];
    let (rolled, shipped) = (check.specialization().wgsl_rolled(), check.wgsl());
    let is_right = move |buffers: &Buffers| assert_eq!(check.fault(&from_bytes(&buffers["found"])), None);
    let dispatch = ([1; 3], Vec::new());
    let mut case = case("check of matrices", rolled, lanes as usize, dispatch, buffers, is_right);
    case.launches[0].shipped = shipped;
    case
}

/// A kernel of models. It has no subgroup operations, so the subgroup size does not matter.
fn of_model(
    variant: LmVariant,
    dispatch: ([u32; 3], Vec<u32>),
    buffers: Vec<(&str, Vec<u8>)>,
    check: impl Fn(&Buffers) + Send + Sync + 'static,
) -> Case {
    case(&format!("{variant:?}"), variant.wgsl(), 32, dispatch, buffers, check)
}

/// A matrix in every form that kernels read.
fn matrices(rows: usize, cols: usize) -> Vec<(WeightElem, Matrix)> {
    let wide = floats(rows * cols, 5);
    let halves = Elements::F16(wide.iter().map(|&x| f16::from_f32(x)).collect());
    let all = [
        (WeightElem::F16, halves.clone()),
        (WeightElem::F16Packed, halves),
        (WeightElem::BF16, Elements::BF16(wide.iter().map(|&x| bf16::from_f32(x)).collect())),
        (WeightElem::F32, Elements::F32(wide)),
    ];
    all.into_iter().map(|(elem, elements)| (elem, Matrix::new(rows, cols, elements))).collect()
}

fn assert_close(buffers: &Buffers, name: &str, wanted: &[f32]) {
    let error = difference(&from_bytes::<f32>(&buffers[name]), wanted);
    assert!(error <= CLOSE, "{name} is off its twin by {error:.1e}");
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases =
        vec![check_of_matrices(8, 8, true), check_of_matrices(8, 16, false), check_of_matrices(16, 32, true)];
    let tokens = [7u32, 0, 12, 5, 5, 11, 3];
    for (elem, matrix) in matrices(13, 36) {
        let variant = LmVariant { elem, ..LmVariant::plain(&lm_kernels::EMBED_TOKENS) };
        let buffers = vec![
            ("tokens", to_bytes(&tokens)),
            ("embedding", matrix.elements().bytes().to_vec()),
            ("hidden", garbage(7 * 36 * 4)),
        ];
        let wanted = twins::embed_tokens(&tokens, &matrix);
        let check = move |buffers: &Buffers| assert_close(buffers, "hidden", &wanted);
        cases.push(of_model(variant, ([1, 1, 1], vec![7, 9, 0, 13]), buffers, check));
    }
    cases.extend(products());
    cases.extend([false, true].map(rotation));
    cases.push(norm());
    cases.push(gate());
    cases.extend(draws());
    cases.extend(benchmarks());
    cases
}

/// Products of one row and of several with weights, with a bias and on top of what was there.
fn products() -> Vec<Case> {
    let (rows, cols) = (70, 36);
    let mut cases = Vec::new();
    for (elem, matrix) in matrices(rows, cols) {
        for (kernel, tokens, grid) in
            [(&lm_kernels::PROJECT_TOKEN, 1, [18, 1, 1]), (&lm_kernels::PROJECT_TOKENS, 67, [1, 2, 2])]
        {
            let (x, bias, before) = (floats(tokens * cols, 1), floats(rows, 2), floats(tokens * rows, 3));
            let mut wanted = twins::project_tokens(&x, &matrix, Some(&bias));
            wanted.iter_mut().zip(&before).for_each(|(x, before)| *x += before);
            let uniform = [tokens, cols / 4, rows, 0, rows, 1, 1].map(|n| n as u32).to_vec();
            let buffers = vec![
                ("x", to_bytes(&x)),
                ("weight", matrix.elements().bytes().to_vec()),
                ("bias", to_bytes(&bias)),
                ("out", to_bytes(&before)),
            ];
            let check = move |buffers: &Buffers| assert_close(buffers, "out", &wanted);
            cases.push(of_model(LmVariant { elem, ..LmVariant::plain(kernel) }, (grid, uniform), buffers, check));
        }
    }
    cases
}

fn rotation(norm: bool) -> Case {
    let (num_q_heads, num_kv_heads, head_dim, tokens, position) = (3, 1, 132, 2, 3);
    let heads = num_q_heads + 2 * num_kv_heads;
    let (qkv, norms) = (floats(tokens * heads * head_dim, 1), [floats(head_dim, 2), floats(head_dim, 3)]);
    let angles = floats((position + tokens) * head_dim, 4);
    let sizes = twins::Heads { num_q_heads, num_kv_heads, head_dim };
    let given = norm.then_some((&norms, 1e-6));
    let wanted = twins::rotate_heads(&qkv, sizes, given, &angles[position * head_dim..]);
    let cache = || to_bytes(&vec![0.0f32; (position + tokens) * num_kv_heads * head_dim]);
    let buffers = vec![
        ("state", to_bytes(&[(position + tokens) as u32, position as u32])),
        ("qkv", to_bytes(&qkv)),
        ("norms", to_bytes(&norms.concat())),
        ("angles", to_bytes(&angles)),
        ("q", garbage((tokens * num_q_heads * head_dim * 4) as u64)),
        ("k", cache()),
        ("v", cache()),
    ];
    let uniform = vec![num_q_heads as u32, num_kv_heads as u32, head_dim as u32, tokens as u32, 1e-6f32.to_bits()];
    let check = move |buffers: &Buffers| {
        assert_close(buffers, "q", &wanted[0]);
        for (name, new) in [("k", &wanted[1]), ("v", &wanted[2])] {
            let before = vec![0.0; position * num_kv_heads * head_dim];
            assert_close(buffers, name, &[before, new.clone()].concat());
        }
    };
    let variant = LmVariant { norm, ..LmVariant::plain(&lm_kernels::ROTATE_HEADS) };
    // Folded, with a token more than there are.
    of_model(variant, ([heads as u32, tokens as u32 - 1, 3], uniform), buffers, check)
}

fn norm() -> Case {
    let width = 1028;
    let (x, weight) = (floats(3 * width, 1), floats(width, 2));
    let uniform = vec![width as u32 / 4, 1, 2, 1e-5f32.to_bits(), (1.0 / width as f32).to_bits()];
    let wanted = twins::rms_norm(&x[width..], &weight, 1e-5);
    let buffers = vec![("x", to_bytes(&x)), ("weight", to_bytes(&weight)), ("out", garbage((2 * width * 4) as u64))];
    let check = move |buffers: &Buffers| assert_close(buffers, "out", &wanted);
    // Folded, with a row too many.
    of_model(LmVariant::plain(&lm_kernels::RMS_NORM), ([1, 3, 1], uniform), buffers, check)
}

fn gate() -> Case {
    let gate_up = floats(3 * 2 * 20, 1);
    let wanted = twins::gate_mlp(&gate_up, 20);
    let buffers = vec![("gate_up", to_bytes(&gate_up)), ("out", garbage(60 * 4))];
    let check = move |buffers: &Buffers| assert_close(buffers, "out", &wanted);
    of_model(LmVariant::plain(&lm_kernels::GATE_MLP), ([1, 1, 1], vec![3, 5]), buffers, check)
}

/// The next token: the best, one of the best few, one of those with most of the weight.
fn draws() -> Vec<Case> {
    let mut logits: Vec<f32> = floats(600, 9).into_iter().map(|x| 8.0 * x).collect();
    // The best is among the tokens of invocation 1, so that the last step of the search for it changes something.
    logits[257] = 9.0;
    let samplings = [
        Sampling::GREEDY,
        Sampling::GREEDY.with_temperature(0.7).with_top_k(40).with_seed(3),
        Sampling::GREEDY.with_temperature(0.9).with_top_k(50).with_top_p(0.8).with_seed(4),
    ];
    let draw = |sampling: Sampling| {
        let Sampling { temperature, top_k, top_p, seed, .. } = sampling;
        let uniform = vec![600, top_k, top_p.to_bits(), temperature.to_bits(), seed];
        let buffers =
            vec![("logits", to_bytes(&logits)), ("state", to_bytes(&[5u32, 77])), ("tokens", to_bytes(&[99u32, 98]))];
        let wanted = twins::sample_token(&logits, &sampling, 5);
        let check = move |buffers: &Buffers| {
            assert_eq!(from_bytes::<u32>(&buffers["tokens"]), [wanted, 98], "{sampling:?}");
            assert_eq!(from_bytes::<u32>(&buffers["state"]), [6, 5], "the state moves on");
        };
        of_model(LmVariant::plain(&lm_kernels::SAMPLE_TOKEN), ([1, 1, 1], uniform), buffers, check)
    };
    samplings.into_iter().map(draw).collect()
}

fn benchmarks() -> Vec<Case> {
    let of = |kernel: BenchKernel, subgroup_size, dispatch, buffers, check: Box<dyn Fn(&Buffers) + Send + Sync>| {
        case(kernel.name(), kernel.wgsl(), subgroup_size, dispatch, buffers, check)
    };
    let words: Vec<u32> = (0..4 * 600).collect();
    let copied = words.clone();
    let check = move |buffers: &Buffers| assert_eq!(from_bytes::<u32>(&buffers["copied"]), copied);
    let buffers = vec![("words", to_bytes(&words)), ("copied", garbage(600 * 16))];
    let mut cases = vec![of(BenchKernel::CopyWords, 32, ([2, 1, 1], vec![600]), buffers, Box::new(check))];
    for scalar in [Scalar::F32, Scalar::F16] {
        // Every step adds one to each of eight chains, which begin 0 to 7 above the invocation modulo 4.
        let check = |buffers: &Buffers| {
            let sums = from_bytes::<f32>(&buffers["sums"]);
            let wanted = (0..256u16).flat_map(|at| [f32::from(28 + 8 * (at % 4) + 8 * 6); 4]);
            assert!(sums.iter().copied().eq(wanted));
        };
        let uniform = vec![3, 1.0f32.to_bits(), 1.0f32.to_bits()];
        let buffers = vec![("sums", garbage(256 * 16))];
        cases.push(of(BenchKernel::MultiplyAdd(scalar), 32, ([1, 1, 1], uniform), buffers, Box::new(check)));
    }
    for edge in [8, 16] {
        let kernel = BenchKernel::MultiplyMatrices { edge, subgroup_size: 32 };
        let size = (edge * edge) as usize;
        // Columns of 1 times a matrix of 1: every element equals the number of columns in a row.
        let ones = |count| to_bytes(&vec![f16::ONE; count]);
        let buffers = vec![("a", ones(4 * size)), ("b", ones(size)), ("sums", garbage(2 * size as u64 * 4))];
        let wanted = vec![(4 * 3 * edge) as f32; 2 * size];
        let check = move |buffers: &Buffers| assert_eq!(from_bytes::<f32>(&buffers["sums"]), wanted);
        cases.push(of(kernel, 32, ([2, 1, 1], vec![3]), buffers, Box::new(check)));
    }
    cases
}
