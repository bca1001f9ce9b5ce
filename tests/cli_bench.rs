//! `wattn bench`: its table, its files, resuming, and refusals.

#[path = "common/cli.rs"]
mod program;

use std::path::Path;

use program::{Folder, assert_fails, assert_succeeds, text, wattn};
use serde_json::Value;

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A few cases of every kind, as short as possible.
const CASES: &str = "gqa/16-4,hip-2x1x4096,hip-2x1x16384";

fn bench(backend: &str, more: &[&str]) -> std::process::Output {
    let mut args = vec!["bench", "--quick", "--cases", CASES, "--seconds", "0", "--backend", backend];
    args.extend(more);
    wattn(&args)
}

#[test]
fn a_report_has_all_that_it_should() {
    for backend in ["cpu", "gpu"] {
        let folder = Folder::new();
        let [report, page, plots] = ["report.json", "page.html", "plots"].map(|name| folder.path(name));
        let stdout = assert_succeeds(&bench(
            backend,
            &["--json", text(&report), "--html", text(&page), "--plots", text(&plots)],
        ));
        for part in ["copy", "GFLOP/s", "16-4x1x8192x128", "select", "step", "sparse is faster", "f64 oracle, 0 wrong"]
        {
            assert!(stdout.contains(part), "{stdout}");
        }
        assert!(stdout.contains("noise     quiet") || stdout.contains("noise     NOISY"), "{stdout}");

        let json = json(&report);
        assert_eq!((&json["schema"], &json["scope"]), (&Value::from(2), &Value::from("quick")));
        assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(json["ceilings"].as_array().unwrap().len(), 4);
        assert!(json["noise"]["quiet"].is_boolean() && !json["crossovers"].as_array().unwrap().is_empty());
        for ceiling in json["ceilings"].as_array().unwrap().iter().filter(|ceiling| ceiling["rate"].is_number()) {
            let [rate, first, again] = ["rate", "first", "again"].map(|name| ceiling[name].as_f64().unwrap());
            assert!(rate >= first && rate >= again, "{ceiling:#}");
        }
        assert!(stdout.contains(" before the cases, ") && stdout.contains(" after them"), "{stdout}");
        let processor = json["machine"]["processor"].as_str();
        assert!(processor.is_some() || !cfg!(target_os = "linux"));
        assert!(processor.is_none_or(|name| stdout.contains(&format!("processor {name}, "))), "{stdout}");
        let gpu = backend == "gpu";
        assert!(json["machine"]["tier"].is_null());
        assert_eq!(json["machine"]["caps"]["best_tier"].is_string(), gpu);
        assert_eq!(json["machine"]["caps"].is_object(), gpu);
        assert!(["timestamps", "wall-clock"].contains(&json["timing"]["method"].as_str().unwrap()));
        let cases = json["cases"].as_array().unwrap();
        // Each name is part of the name of a prompt's case and of a decoding case.
        assert_eq!(cases.len(), 3, "{json:#}");
        for case in cases {
            assert!(case["clocks"]["before"].as_f64() > Some(0.0) && case["clocks"]["after"].as_f64() > Some(0.0));
            let sets = case["rotation"]["sets"].as_u64().unwrap();
            let inputs = if sets == 1 { "the same".to_owned() } else { format!("{sets} in turns") };
            assert!(stdout.contains(&inputs), "{inputs}: {stdout}");
        }
        for part in cases.iter().flat_map(|case| case["parts"].as_array().unwrap()) {
            assert_eq!(part["outcome"]["is"], "measured", "{part:#}");
            assert!(part["samples"]["seconds"].as_array().unwrap().len() >= 3, "{part:#}");
            for number in ["/samples/median", "/samples/min", "/rate/share", "/rate/operations_per_second"] {
                assert!(part.pointer(number).unwrap().as_f64().unwrap() > 0.0, "{number}: {part:#}");
            }
            assert!(part.pointer("/check/error").unwrap().as_f64() <= part.pointer("/check/bound").unwrap().as_f64());
            assert!(part["bytes"].as_u64().unwrap() > 0 && part["operations"].as_u64().unwrap() > 0);
            assert_eq!(part["host_encode_seconds"].is_number(), gpu);
            assert_eq!(part.pointer("/plan/tier").unwrap().is_string(), gpu);
            assert!(part.pointer("/plan/dispatches").unwrap().as_f64().unwrap() >= if gpu { 1.0 } else { 0.0 });
        }

        check_page(&std::fs::read_to_string(&page).unwrap(), &json);
        for name in ["roofline.png", "length.png", "crossover.png"] {
            let file = std::fs::File::open(plots.join(name)).unwrap();
            let image = png::Decoder::new(std::io::BufReader::new(file)).read_info().unwrap();
            assert_eq!((image.info().width, image.info().height), (1200, 780));
        }
        assert_eq!(folder.names(), ["page.html", "plots", "report.json"]);
    }
}

/// One file with all data, which needs no other file.
fn check_page(page: &str, report: &Value) {
    for outside in ["http:", "https:", "src=", "href=", "@import", "url("] {
        assert!(!page.contains(outside), "the page looks for {outside}");
    }
    assert_eq!(page.matches("<svg").count(), 3);
    // A picture says whether its numbers are reliable.
    let marks = if report["noise"]["quiet"].as_bool().unwrap() { 0 } else { 3 };
    assert_eq!(page.matches("NOISY RUN").count(), marks);
    for part in [
        "<!doctype html>",
        "prefers-color-scheme: dark",
        "width=device-width",
        "Ceilings, measured",
        "before and after the cases",
        "</html>",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let escaped = |text: &Value| text.as_str().unwrap().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    for fact in ["/machine/adapter", "/machine/driver", "/timing/note", "/version"] {
        let fact = escaped(report.pointer(fact).unwrap());
        assert!(page.contains(&fact), "{fact}");
    }
    for case in report["cases"].as_array().unwrap() {
        assert!(page.contains(case["name"].as_str().unwrap()), "{case:#}");
    }
}

/// The measurements of a case. Its share of a ceiling changes when the ceiling is measured again.
fn without_rates(mut case: Value) -> Value {
    case["parts"].as_array_mut().unwrap().iter_mut().for_each(|part| part["rate"] = Value::Null);
    case
}

#[test]
fn a_run_goes_on_from_its_report() {
    let folder = Folder::new();
    let report = folder.path("report.json");
    assert_succeeds(&bench("cpu", &["--json", text(&report)]));
    // As if the run had been interrupted after the first case.
    let mut partial = json(&report);
    let cases = partial["cases"].as_array_mut().unwrap();
    cases.truncate(1);
    let first = cases[0].clone();
    partial["noise"] = Value::Null;
    std::fs::write(&report, serde_json::to_vec(&partial).unwrap()).unwrap();
    let stdout = assert_succeeds(&bench("cpu", &["--resume", text(&report)]));
    assert!(stdout.contains("hip-2x1x4096x128"), "{stdout}");
    let whole = json(&report);
    assert_eq!(whole["cases"].as_array().unwrap().len(), 3);
    assert_eq!(without_rates(whole["cases"][0].clone()), without_rates(first));
    assert!(whole["noise"].is_object());
    // Nothing is left to run: the same report again.
    assert_succeeds(&bench("cpu", &["--resume", text(&report)]));
    let again = json(&report);
    for (then, now) in whole["cases"].as_array().unwrap().iter().zip(again["cases"].as_array().unwrap()) {
        assert_eq!(without_rates(then.clone()), without_rates(now.clone()));
    }

    let other = ["bench", "--quick", "--cases", "decode", "--backend", "cpu", "--resume", text(&report)];
    assert_fails(&wattn(&other), "its filter is");
    assert_fails(&wattn(&["bench", "--backend", "cpu", "--cases", CASES, "--resume", text(&report)]), "its scope is");
}

#[test]
fn reports_side_by_side() {
    let folder = Folder::new();
    let [first, second, bad] = ["a.json", "b.json", "bad.json"].map(|name| folder.path(name));
    assert_succeeds(&bench("cpu", &["--json", text(&first)]));
    // Twice as fast, and one case less.
    let mut report = json(&first);
    for part in
        report["cases"].as_array_mut().unwrap().iter_mut().flat_map(|case| case["parts"].as_array_mut().unwrap())
    {
        let samples = &mut part["samples"];
        samples["median"] = Value::from(samples["median"].as_f64().unwrap() / 64.0);
        samples["spread"] = Value::from(0.0);
    }
    report["cases"].as_array_mut().unwrap().pop();
    std::fs::write(&second, serde_json::to_vec(&report).unwrap()).unwrap();
    let stdout = assert_succeeds(&wattn(&["bench", "compare", text(&first), text(&second)]));
    for part in ["gqa/16-4x1x8192x128 dense", "64.000  faster", "in the first only", "6 compared: ", "ratio"] {
        assert!(stdout.contains(part), "{part}: {stdout}");
    }
    let back = assert_succeeds(&wattn(&["bench", "compare", text(&second), text(&first)]));
    assert!(back.contains("SLOWER") && back.contains("in the second only"), "{back}");
    let same = assert_succeeds(&wattn(&["bench", "compare", text(&first), text(&first)]));
    assert!(same.contains("0 faster, 0 slower, 11 within noise"), "{same}");

    report["schema"] = Value::from(9);
    std::fs::write(&bad, serde_json::to_vec(&report).unwrap()).unwrap();
    assert_fails(&wattn(&["bench", "compare", text(&first), text(&bad)]), "schema 9, this version reads up to 2");
    std::fs::write(&bad, "no json").unwrap();
    assert_fails(&wattn(&["bench", "compare", text(&bad), text(&first)]), "bad.json: no benchmark report");
    assert_fails(&wattn(&["bench", "compare", text(&first)]), "required arguments");
    assert_fails(&wattn(&["bench", "compare", text(&first), "no/such/file"]), "cannot read no/such/file");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = Folder::new();
    let no_report = folder.path("no_report");
    std::fs::write(&no_report, "{}").unwrap();
    for (args, part) in [
        (vec!["--backend", "cpu", "--resume", text(&no_report)], "no benchmark report"),
        (vec!["--backend", "oracle"], "[possible values: auto, gpu, cpu]"),
        (vec!["--backend", "cpu", "--tier", "baseline"], "--adapter, --tier and --tuning are for a GPU"),
        (vec!["--backend", "cpu", "--cases", "no-such-case"], "no case has \"no-such-case\""),
        (vec!["--adapter", "Voodoo 2"], "Voodoo 2"),
        (vec!["--seconds", "-1"], "from 0 to 3600"),
        (vec!["--seconds", "soon"], "from 0 to 3600"),
        (vec!["--json", "no/such/folder/x.json"], "its folder does not exist"),
        (vec!["--html", "no/such/folder/x.html"], "its folder does not exist"),
        (vec!["--plots", "/dev/null/plots"], "cannot write /dev/null/plots"),
        (vec!["--resume", "no/such/file"], "its folder does not exist"),
        (vec!["--frobnicate"], "--frobnicate"),
    ] {
        let mut all = vec!["bench", "--quick"];
        all.extend(&args);
        assert_fails(&wattn(&all), part);
    }
}
