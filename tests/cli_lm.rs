//! `wattn lm` and `wattn lm eval`: their output, their options, and their refusals.

#[path = "common/cli.rs"]
mod program;

use std::path::Path;

use program::{Folder, assert_fails, assert_succeeds, assert_tells, text, wattn};
use serde_json::Value;

const CASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lm/qwen3_f16");

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_prompt_goes_on_the_same_everywhere() {
    let folder = Folder::new();
    let report = folder.path("report.json");
    let run = |more: &[&str]| {
        let mut args = vec!["lm", "--prompt", "# Traits\n\nA trait", "--tokens", "12", "--json", text(&report)];
        args.extend(more);
        let (stdout, statistics) = assert_tells(&wattn(&args));
        assert!(stdout.starts_with("# Traits\n\nA trait"), "{stdout}");
        let json = json(&report);
        assert_eq!(json["written_tokens"], 12);
        let written = json["text"].as_str().unwrap().to_owned();
        assert_eq!(stdout, format!("# Traits\n\nA trait{written}\n"));
        assert!(statistics.contains("tokens, "), "{statistics}");
        let quiet = assert_succeeds(&wattn(&[&args[..], &["--quiet"]].concat()));
        assert_eq!(quiet, stdout);
        // The CPU always reports it, a GPU when asked.
        let is_told = args.contains(&"cpu") || args.contains(&"--attention-share");
        for share in ["read_attention_share", "written_attention_share"] {
            assert_eq!(
                json[share].as_f64().map(|share| (0.0..=1.0).contains(&share)),
                is_told.then_some(true),
                "{json}"
            );
        }
        assert_eq!(statistics.contains("of it attention"), is_told, "{statistics}");
        written
    };
    let greedy = run(&["--temperature", "0", "--backend", "cpu"]);
    assert_eq!(run(&["--temperature", "0", "--backend", "gpu"]), greedy);
    assert_eq!(run(&["--temperature", "0", "--backend", "gpu", "--attention-share"]), greedy);
    assert_eq!(run(&["--temperature", "0", "--backend", "cpu", "--chunk", "2"]), greedy);
    let drawn = run(&["--seed", "5", "--backend", "cpu"]);
    assert_eq!(run(&["--seed", "5", "--backend", "cpu"]), drawn);
    // At this length sinks and window hold the whole text, so that sparse attention reads all of it.
    for attention in ["hip", "infinite-hip"] {
        assert_eq!(run(&["--temperature", "0", "--backend", "cpu", "--attention", attention]), greedy);
    }
    let layers = ["--layer", "1=hip,2=3K-fast", "--layer", "0=dense", "--hip-refresh", "4"];
    let mut args = vec!["--temperature", "0", "--backend", "cpu", "--dense-layers", "0"];
    args.extend(layers);
    assert_eq!(run(&args), greedy);
}

#[test]
fn other_checkpoints_and_prompts_from_files() {
    let folder = Folder::new();
    let prompt = folder.path("prompt.txt");
    std::fs::write(&prompt, "t5 t7 t9").unwrap();
    let args = ["lm", "--model", CASE, "--file", text(&prompt), "--tokens", "3", "--backend", "cpu"];
    let (stdout, statistics) = assert_tells(&wattn(&args));
    assert!(stdout.starts_with("t5 t7 t9") && statistics.contains("read        3 tokens"), "{stdout}{statistics}");
}

#[test]
fn texts_end_where_training_did() {
    let folder = Folder::new();
    let report = folder.path("report.json");
    let run = |words: usize, more: &[&str]| {
        let prompt: String = (0..words).map(|at| format!("t{} ", 2 + at % 90)).collect();
        let mut args = vec!["lm", "--model", CASE, "--prompt", &prompt, "--tokens", "9", "--backend", "cpu"];
        args.extend(["--temperature", "0", "--json", text(&report)]);
        args.extend(more);
        wattn(&args)
    };
    let warned = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).contains("warning: ");
    let stdout = |output: &std::process::Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let within = run(55, &[]);
    assert_tells(&within);
    assert!(!warned(&within));
    // The model was trained at 64 tokens.
    let ended = run(60, &[]);
    assert!(warned(&ended));
    stdout(&ended);
    assert!(String::from_utf8_lossy(&ended.stderr).contains("as long as those that the model was trained for"));
    assert_eq!(json(&report)["written_tokens"], 4);
    assert_fails(&run(65, &[]), "the model was trained for texts of 64");
    for words in [60, 65] {
        let past = run(words, &["--past-context"]);
        stdout(&past);
        assert!(warned(&past));
        assert_eq!(json(&report)["written_tokens"], 9);
    }
}

/// Endless files, and files larger than memory: refused before they are read.
#[cfg(unix)]
#[test]
fn prompts_without_an_end_are_refused() {
    let folder = Folder::new();
    let sparse = folder.path("sparse.txt");
    std::fs::File::create(&sparse).unwrap().set_len(1 << 40).unwrap();
    for file in ["/dev/zero", text(&sparse)] {
        assert_fails(&wattn(&["lm", "--file", file, "--backend", "cpu"]), "longer than");
        assert_fails(&wattn(&["lm", "eval", "--text", file, "--backend", "cpu"]), "longer than");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = Folder::new();
    for (args, part) in [
        (vec![], "give --prompt TEXT or --file FILE"),
        (vec!["--prompt", ""], "the prompt is empty"),
        (vec!["--prompt", "x", "--file", "y"], "cannot be used with"),
        (vec!["--file", "no/such/file"], "no/such/file"),
        (vec!["--prompt", "x", "--model", "no/such/folder"], "no/such/folder/config.json"),
        (vec!["--prompt", "x", "--temperature", "-1"], "temperature = -1"),
        (vec!["--prompt", "x", "--top-p", "0"], "top_p = 0"),
        (vec!["--prompt", "x y z", "--tokens", "9", "--context", "10"], "the session was made for 10"),
        (vec!["--prompt", "x", "--hip-k", "8"], "--hip-k is for --attention hip"),
        (vec!["--prompt", "x", "--attention", "blocks"], "[possible values: dense, hip, infinite-hip]"),
        (vec!["--prompt", "x", "--attention", "hip", "--selection-scale", "2"], "--selection-scale"),
        (vec!["--prompt", "x", "--attention", "hip", "--hip-k", "7"], "top_k = 7"),
        (vec!["--prompt", "x", "--layer", "99=hip"], "the model has 6 layers"),
        (vec!["--prompt", "x", "--layer", "1=fast"], "no such method"),
        (vec!["--prompt", "x", "--layer", "hip"], "must be a layer, `=` and a method"),
        (vec!["--prompt", "x", "--backend", "oracle"], "[possible values: auto, gpu, cpu]"),
        (vec!["--prompt", "x", "--json", "no/such/folder/x.json"], "its folder does not exist"),
    ] {
        let mut all = vec!["lm"];
        all.extend(&args);
        assert_fails(&wattn(&all), part);
    }
    let short = folder.path("short.txt");
    std::fs::write(&short, "too short").unwrap();
    assert_fails(&wattn(&["lm", "eval", "--text", text(&short), "--backend", "cpu"]), "no text has 2048 tokens");
    assert_fails(&wattn(&["lm", "eval", "--contexts", "20"]), "--contexts 20");
    assert_fails(&wattn(&["lm", "eval", "--budgets", "20"]), "--budgets 20");
    assert_fails(&wattn(&["lm", "eval", "--presets", "9K"]), "[possible values: ");
}

#[test]
fn an_evaluation_has_all_its_tables() {
    let folder = Folder::new();
    let [json_path, png] = ["eval.json", "eval.png"].map(|name| folder.path(name));
    let args = [
        "lm",
        "eval",
        "--contexts",
        "512,768",
        "--budgets",
        "192",
        "--windows",
        "2",
        "--needles",
        "1",
        "--presets",
        "debug",
        "--backend",
        "cpu",
        "--json",
        text(&json_path),
        "--png",
        text(&png),
    ];
    let stdout = assert_succeeds(&wattn(&args));
    for part in ["window + sinks", "random blocks", "InfiniteHiP debug", "Keys found in 768 tokens", "softmax mass"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    let json = json(&json_path);
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6);
    let cost = |row: usize, context: usize| rows[row]["bits_per_byte"][context].as_f64().unwrap();
    for context in 0..2 {
        // Among methods with equal budgets the selection is the best.
        assert!(cost(1, context) < cost(3, context) && cost(1, context) < cost(4, context), "{stdout}");
        assert!(cost(0, context) > 0.3 && cost(0, context) < 4.0, "{stdout}");
    }
    assert_eq!(json["needles"].as_array().unwrap().len(), 10);
    assert_eq!(json["mass"].as_array().unwrap().len(), 4);
    let image = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(&png).unwrap())).read_info().unwrap();
    assert_eq!((image.info().width, image.info().height), (1200, 720));
}
