//! `wattn tune`: the kept table, its use by other commands, and refusals.

#[path = "common/cli.rs"]
mod program;

use std::path::Path;

use program::{Folder, assert_fails, assert_succeeds, assert_tells, text, wattn_in};
use serde_json::Value;

const SMALL: [&str; 10] =
    ["tune", "--backend", "gpu", "--shape", "1,20,90,2,1,16,16", "--causal", "--candidate-seconds", "0", "--most", "2"];

#[test]
fn tilings_are_kept_taken_exported_and_imported() {
    let (folder, other) = (Folder::new(), Folder::new());
    let [cache, table] = ["cache", "table.json"].map(|name| folder.path(name));
    let stdout = assert_succeeds(&wattn_in(&cache, &[&SMALL[..], &["--export", text(&table)]].concat()));
    assert!(stdout.contains("(1 tried)") && stdout.contains("f32 16/16 causal"), "{stdout}");
    let kept = std::fs::read(cache.join("wattn/tuning.json")).unwrap();
    assert_eq!(std::fs::read(&table).unwrap(), kept);
    let json: Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!((&json["schema"], json["devices"][0]["attention"].as_array().unwrap().len()), (&Value::from(1), 1));
    let seconds = |name| json["devices"][0]["attention"][0][name].as_f64().unwrap();
    assert!(seconds("seconds") > 0.0 && seconds("seconds") <= seconds("untuned_seconds"));

    // `--export` alone writes the kept table, without a device.
    let again = folder.path("again.json");
    let args = ["tune", "--export", text(&again)];
    assert!(assert_succeeds(&wattn_in(&cache, &args)).contains(": 1 classes"));
    assert_eq!(std::fs::read(&again).unwrap(), kept);
    assert_eq!(wattn_in(&cache, &["tune", "--export", "-"]).stdout, kept);
    let (_, stderr) = assert_tells(&wattn_in(&folder.path("empty"), &args));
    assert!(stderr.contains("nothing was measured before"), "{stderr}");

    // A second run has nothing to do.
    let stdout = assert_succeeds(&wattn_in(&cache, &SMALL));
    assert!(stdout.contains("measured before"), "{stdout}");

    // The program says where it computes; other folders have no tilings until they import the table.
    let recall = |cache: &Path, more: &[&str]| {
        let args = ["recall", "--backend", "gpu", "--length", "64", "--heads", "1", "--head-dim", "16"];
        assert_succeeds(&wattn_in(cache, &[&args[..], more].concat()))
    };
    let is_tuned = |stdout: String| stdout.contains(", tuned");
    assert!(is_tuned(recall(&cache, &[])));
    assert!(!is_tuned(recall(&cache, &["--no-tune"])));
    assert!(!is_tuned(recall(&cache, &["--no-cache"])));
    let cache = other.path("cache");
    assert!(!is_tuned(recall(&cache, &[])));
    assert!(is_tuned(recall(&cache, &["--tuning", text(&table)])));
    let stdout = assert_succeeds(&wattn_in(&cache, &["tune", "--import", text(&table)]));
    assert!(stdout.contains(": 1 classes"), "{stdout}");
    assert!(is_tuned(recall(&cache, &[])));
}

#[test]
fn a_run_ends_when_its_time_is_over_and_keeps_what_it_has() {
    let folder = Folder::new();
    let [cache, table] = ["cache", "table.json"].map(|name| folder.path(name));
    // Zero seconds: the case is not even begun.
    let cases = ["tune", "--backend", "gpu", "--quick", "--cases", "gqa/16-4,gqa/16-1x", "--candidate-seconds", "0"];
    let none = [&cases[..], &["--seconds", "0", "--no-cache", "--export", text(&table)]].concat();
    let stdout = assert_succeeds(&wattn_in(&cache, &none));
    assert_eq!(stdout.matches("left out: the time is over").count(), 2, "{stdout}");
    assert!(stdout.contains("2 classes were left out: the time was over"), "{stdout}");
    let kept: Value = serde_json::from_slice(&std::fs::read(&table).unwrap()).unwrap();
    assert_eq!(kept["devices"], Value::Array(vec![]));
}

#[test]
fn a_run_that_is_killed_loses_no_case_that_was_finished() {
    use std::io::{BufRead as _, BufReader};
    let folder = Folder::new();
    let [cache, table] = ["cache", "table.json"].map(|name| folder.path(name));
    let cases = ["tune", "--backend", "gpu", "--quick", "--cases", "gqa/", "--candidate-seconds", "0", "--most", "1"];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wattn"));
    command.args(cases).args(["--no-cache", "--export", text(&table)]).env("XDG_CACHE_HOME", &cache);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.find(|line| line.as_ref().unwrap().contains(" tried)")).unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let kept: Value = serde_json::from_slice(&std::fs::read(&table).unwrap()).unwrap();
    assert!(!kept["devices"][0]["attention"].as_array().unwrap().is_empty(), "{first}");
}

#[test]
fn tables_that_are_none_are_named() {
    let folder = Folder::new();
    let (cache, file) = (folder.path("cache"), folder.path("broken.json"));
    std::fs::write(&file, "{").unwrap();
    let run = |args: &[&str]| wattn_in(&cache, args);
    assert_fails(&run(&["tune", "--import", text(&file)]), "broken.json: no table of tilings");
    assert_fails(&run(&["tune", "--import", "/nowhere"]), "/nowhere");
    let demo = ["recall", "--backend", "gpu", "--length", "64", "--heads", "1", "--head-dim", "16"];
    assert_fails(&run(&[&demo[..], &["--tuning", text(&file)]].concat()), "no table of tilings");
    // A case that is kept already is passed over, with a note.
    std::fs::create_dir_all(cache.join("wattn")).unwrap();
    std::fs::write(cache.join("wattn/tuning.json"), r#"{"schema":7}"#).unwrap();
    let output = run(&demo);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("is ignored") && stderr.contains("schema 7"), "{stderr}");
}

#[test]
fn what_cannot_be_tuned_is_refused() {
    let folder = Folder::new();
    let cache = folder.path("cache");
    let fails = |more: &[&str], part| assert_fails(&wattn_in(&cache, &[&["tune"], more].concat()), part);
    fails(&["--backend", "cpu"], "[possible values: auto, gpu]");
    fails(&["--backend", "gpu", "--tier", "baseline"], "no --tier");
    fails(&["--backend", "gpu", "--no-cache", "--shape", "1,1,8,1,1,8,8"], "--export must say");
    fails(&["--backend", "gpu", "--cases", "nothing-like-it"], "no case has nothing-like-it");
    fails(&["--backend", "gpu", "--causal"], "are for --shape");
    fails(&["--backend", "gpu", "--dtype", "f16"], "--shape");
    fails(&["--seconds", "-1"], "from 0 to 3600");
    fails(&["--export", "/nowhere/table.json"], "/nowhere");
    // No temporary file stays behind.
    assert!(!cache.join("wattn/tuning.json").exists());
}
