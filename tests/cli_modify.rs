//! `wattn attend --score-mod ... --sink-logits ...`: modifiers in the order given, tensors by name.

#[path = "common/cli.rs"]
mod program;

use half::{bf16, f16};
use program::{Folder, assert_fails, assert_succeeds, entry, f32s, painted, text, wattn, write_file};
use safetensors::tensor::{Dtype, SafeTensors};
use wattn::cpu::oracle;
use wattn::{Alibi, AttentionProblem, AttentionShape, Bias, DType, HostInputs, HostTensor, Mask, Sinks, Softcap};

const SHAPE: AttentionShape = AttentionShape {
    batch_size: 2,
    seq_len_q: 5,
    seq_len_kv: 37,
    num_q_heads: 6,
    num_kv_heads: 2,
    head_dim: 12,
    head_dim_v: 20,
};

/// A file with everything that a modifier may name.
struct Input {
    folder: Folder,
    q: HostTensor,
    k: HostTensor,
    v: HostTensor,
    rows: HostTensor<f16>,
    keys: HostTensor<bf16>,
    slopes: HostTensor,
    sinks: HostTensor<bf16>,
}

impl Input {
    fn new() -> Self {
        let this = Self {
            folder: Folder::new(),
            q: painted(SHAPE.q(), 7),
            k: painted(SHAPE.k(), 11),
            v: painted(SHAPE.v(), 13),
            rows: painted([1, 6, 5, 1], 17),
            keys: painted([2, 1, 1, 37], 19),
            slopes: painted([1, 1, 1, 6], 23),
            sinks: painted([1, 1, 1, 6], 29),
        };
        let list = |name, dtype, bytes: &[u8]| (name, dtype, vec![6], bytes.to_vec());
        let entries = [
            entry("q", Dtype::F32, &this.q),
            entry("k", Dtype::F32, &this.k),
            entry("v", Dtype::F32, &this.v),
            entry("rows", Dtype::F16, &this.rows),
            entry("keys", Dtype::BF16, &this.keys),
            // Lists have one axis in files.
            list("slopes", Dtype::F32, bytemuck::cast_slice(this.slopes.data())),
            list("sinks", Dtype::BF16, bytemuck::cast_slice(this.sinks.data())),
            list("whole", Dtype::I32, &[0; 24]),
        ];
        write_file(&this.folder.path("in.safetensors"), &entries);
        this
    }

    fn run(&self, flags: &[&str]) -> std::process::Output {
        let (input, output) = (self.folder.path("in.safetensors"), self.folder.path("out.safetensors"));
        let mut args = vec!["attend", "--input", text(&input), "--output", text(&output)];
        args.extend(flags);
        wattn(&args)
    }

    #[track_caller]
    fn check(&self, problem: &AttentionProblem, tensors: &[(&str, wattn::AnyHostTensor<'_>)], flags: &[&str]) {
        let inputs = HostInputs::new(&self.q, &self.k, &self.v).with_tensors(tensors);
        let expected = oracle::attend(problem, &inputs).unwrap();
        for backend in ["oracle", "cpu", "gpu"] {
            assert_succeeds(&self.run(&[flags, &["--causal", "--backend", backend]].concat()));
            let file = std::fs::read(self.folder.path("out.safetensors")).unwrap();
            let file = SafeTensors::deserialize(&file).unwrap();
            for (name, expected) in [("out", expected.out.data()), ("lse", expected.lse.data())] {
                for (a, e) in f32s(&file.tensor(name).unwrap()).iter().zip(expected) {
                    // A few dozen f32 roundings of numbers of this size.
                    assert!((a - e).abs() <= 1e-5 * (1.0 + e.abs()), "{backend} {flags:?} {name}: {a} is not {e}");
                }
            }
        }
    }
}

#[test]
fn modifiers_apply_in_their_order() {
    let input = Input::new();
    let problem = AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal);
    let rows = Bias::new("rows", [1, 6, 5, 1], DType::F16);
    let keys = Bias::new("keys", [2, 1, 1, 37], DType::BF16);
    let capped = problem.clone().with_score_mod(Softcap::new(1.5)).with_score_mod(rows);
    input.check(
        &capped,
        &[("rows", (&input.rows).into())],
        &["--score-mod", "softcap=1.5", "--score-mod", "bias=rows"],
    );
    let both = [("keys", (&input.keys).into()), ("rows", (&input.rows).into())];
    let other_way = problem.clone().with_score_mod(keys).with_score_mod(rows).with_score_mod(Softcap::new(1.5));
    let flags = ["--score-mod", "bias=keys", "--score-mod", "bias=rows", "--score-mod", "softcap=1.5"];
    input.check(&other_way, &both, &flags);
    input.check(&problem.clone().with_score_mod(Alibi::published()), &[], &["--score-mod", "alibi"]);
    let slopes = Alibi::with_slopes(input.slopes.data());
    input.check(&problem.with_score_mod(slopes), &[], &["--score-mod", "alibi=slopes"]);
}

#[test]
fn sinks_are_zero_or_learned() {
    let input = Input::new();
    let problem = AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal);
    input.check(&problem.clone().with_sinks(Sinks::Zero), &[], &["--sink-logits", "zero"]);
    let learned = problem.with_sinks(Sinks::Learned(DType::BF16));
    input.check(&learned, &[("sinks", (&input.sinks).into())], &["--sink-logits", "learned"]);
}

#[test]
fn what_is_wrong_is_named() {
    let input = Input::new();
    let refused = |flags: &[&str], part| assert_fails(&input.run(flags), part);
    refused(&["--score-mod", "bias=none"], "there is no tensor `none`");
    refused(&["--score-mod", "bias=whole"], "`whole` is I32");
    refused(&["--score-mod", "bias=q"], "`q`: is the name of another tensor of attention");
    refused(&["--score-mod", "bias=slopes"], "`slopes` has shape [1, 1, 1, 6], expected [2, 6, 5, 37]");
    refused(&["--score-mod", "bias=keys", "--score-mod", "bias=keys"], "is the name of two biases");
    refused(&["--score-mod", "alibi=keys"], "`alibi slopes` holds 74 elements, its shape needs 6");
    refused(&["--score-mod", "softcap=-3"], "softcap = -3");
    refused(&["--attention", "hip", "--score-mod", "alibi"], "alibi: selections score q·k as it is");
    for text in ["tanh", "softcap", "softcap=x", "bias", "slopes=3"] {
        let output = input.run(&["--score-mod", text]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--score-mod"), "{text}");
    }
}
