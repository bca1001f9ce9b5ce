//! The files of the `wattn` command: refusals before anything is read or written, and how files are written.

#[path = "common/cli.rs"]
mod program;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use program::{Entry, Folder, assert_fails, assert_succeeds, entry, painted, text, wattn, write_file};
use safetensors::tensor::{Dtype, SafeTensors};
use wattn::AttentionShape;

const SHAPE: AttentionShape = AttentionShape {
    batch_size: 2,
    seq_len_q: 3,
    seq_len_kv: 5,
    num_q_heads: 2,
    num_kv_heads: 1,
    head_dim: 8,
    head_dim_v: 8,
};

/// q, k and v, and further tensors of the file.
fn write_input(path: &Path, more: Vec<Entry<'_>>) {
    let tensors = [painted::<f32>(SHAPE.q(), 7), painted(SHAPE.k(), 11), painted(SHAPE.v(), 13)];
    let names = ["q", "k", "v"].into_iter().zip(&tensors);
    let entries = names.map(|(name, tensor)| entry(name, Dtype::F32, tensor)).chain(more).collect::<Vec<_>>();
    write_file(path, &entries);
}

fn attend(input: &Path, output: &Path, more: &[&str]) -> Output {
    let args = ["attend", "--input", text(input), "--output", text(output), "--backend", "cpu"];
    wattn(&[&args[..], more].concat())
}

/// The program with bytes on its stdin.
fn wattn_reading(args: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wattn"));
    let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");
    command.args(args).env("XDG_CACHE_HOME", cache);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A run that is refused early reads nothing more.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

type Encode = fn(i128) -> Vec<u8>;

/// Every type of integers, its range, and the bytes of a number.
const INTEGERS: [(Dtype, [i128; 2], Encode); 8] = [
    (Dtype::I8, [i8::MIN as i128, i8::MAX as i128], |n| vec![n as u8]),
    (Dtype::U8, [0, u8::MAX as i128], |n| vec![n as u8]),
    (Dtype::I16, [i16::MIN as i128, i16::MAX as i128], |n| (n as i16).to_le_bytes().to_vec()),
    (Dtype::U16, [0, u16::MAX as i128], |n| (n as u16).to_le_bytes().to_vec()),
    (Dtype::I32, [i32::MIN as i128, i32::MAX as i128], |n| (n as i32).to_le_bytes().to_vec()),
    (Dtype::U32, [0, u32::MAX as i128], |n| (n as u32).to_le_bytes().to_vec()),
    (Dtype::I64, [i64::MIN as i128, i64::MAX as i128], |n| (n as i64).to_le_bytes().to_vec()),
    (Dtype::U64, [0, u64::MAX as i128], |n| (n as u64).to_le_bytes().to_vec()),
];

#[test]
fn lengths_are_whole_numbers_of_any_type() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    let mut first: Option<Vec<u8>> = None;
    for (dtype, [least, most], encode) in INTEGERS {
        let lens = |lens: [i128; 2]| vec![("seq_lens_kv", dtype, vec![2], lens.map(encode).concat())];
        write_input(&input, lens([2, 5]));
        assert_succeeds(&attend(&input, &output, &[]));
        let result = std::fs::read(&output).unwrap();
        assert_eq!(first.get_or_insert_with(|| result.clone()), &result, "{dtype:?}");
        for bad in [6, least, most].into_iter().filter(|bad| !(0..=5).contains(bad)) {
            write_input(&input, lens([5, bad]));
            let message = format!("`seq_lens_kv[1]` = {bad}: must be from 0 to seq_len_kv = 5");
            assert_fails(&attend(&input, &output, &[]), &message);
        }
    }
}

#[test]
fn lists_are_whole_numbers_of_any_type() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    let options = ["--attention", "blocks", "--block-q", "3", "--block-size", "2"];
    for (dtype, [least, most], encode) in INTEGERS.into_iter().filter(|(_, [least, _], _)| *least < 0) {
        let lists = |entry: i128, count: i128| {
            let indices = [0, entry, 0, -1].repeat(2).into_iter().flat_map(encode).collect();
            let counts = [2, 1, 2, count].into_iter().flat_map(encode).collect();
            vec![("block_indices", dtype, vec![2, 2, 1, 2], indices), ("block_counts", dtype, vec![2, 2, 1], counts)]
        };
        write_input(&input, lists(2, 1));
        assert_succeeds(&attend(&input, &output, &options));
        write_input(&input, lists(least, 1));
        assert_fails(
            &attend(&input, &output, &options),
            &format!("`block_indices[1]` = {least}: must be the first key"),
        );
        write_input(&input, lists(2, least));
        assert_fails(&attend(&input, &output, &options), &format!("`block_counts[3]` = {least}"));
        if most > u32::MAX.into() {
            write_input(&input, lists(2, most));
            assert_fails(&attend(&input, &output, &options), &format!("`block_counts[3]` = {most}"));
        }
    }
}

#[test]
fn no_output_replaces_what_is_read_or_written_beside_it() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    write_input(&input, vec![]);
    let before = std::fs::read(&input).unwrap();
    assert_fails(&attend(&input, &input, &[]), "--output and --input are the same file");
    let roundabout = folder.dir.path().join(".").join("in");
    assert_fails(&attend(&input, &roundabout, &[]), "--output and --input are the same file");
    assert_fails(&attend(&input, &output, &["--json", text(&input)]), "--json and --input are the same file");
    assert_fails(&attend(&input, &output, &["--json", text(&output)]), "--json and --output are the same file");
    assert_fails(&attend(&input, Path::new("-"), &["--json", "-"]), "--json and --output are the same file");
    let [png, json] = ["picture", "json"].map(|name| folder.path(name));
    std::fs::write(folder.path("poem"), "to be or not to be").unwrap();
    let poem = text(&folder.path("poem")).to_owned();
    let recall = |more: &[&str]| wattn(&[&["recall", &poem, "--backend", "cpu"], more].concat());
    assert_fails(&recall(&["--json", &poem]), "--json and the text are the same file");
    assert_fails(&recall(&["--json", text(&json), "--png", text(&json)]), "--json and --png are the same file");
    assert_fails(&wattn(&["tune", "--import", text(&png), "--export", text(&png)]), "--export and --import");
    let bench = ["bench", "--quick", "--cases", "decode/", "--json", text(&json), "--html", text(&json)];
    assert_fails(&wattn(&bench), "--html and --json are the same file");
    assert_eq!(std::fs::read(&input).unwrap(), before);
    assert_eq!(folder.names(), ["in", "poem"]);
}

#[cfg(unix)]
#[test]
fn files_keep_their_modes_and_links_stay_links() {
    use std::os::unix::fs::{PermissionsExt, symlink};

    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    write_input(&input, vec![]);
    assert_succeeds(&attend(&input, &output, &[]));
    // With the mode of any other new file.
    std::fs::write(folder.path("other"), "").unwrap();
    assert_eq!(mode(&output), mode(&folder.path("other")));
    let expected = std::fs::read(&output).unwrap();
    for wanted in [0o600, 0o644, 0o660] {
        std::fs::write(&output, "old").unwrap();
        std::fs::set_permissions(&output, PermissionsExt::from_mode(wanted)).unwrap();
        assert_succeeds(&attend(&input, &output, &[]));
        assert_eq!((mode(&output), std::fs::read(&output).unwrap()), (wanted, expected.clone()));
    }
    // Through two links, to a file that exists and to one that does not.
    std::fs::create_dir(folder.path("far")).unwrap();
    symlink("far/hop", folder.path("link")).unwrap();
    symlink("target", folder.path("far/hop")).unwrap();
    for _ in 0..2 {
        assert_succeeds(&attend(&input, &folder.path("link"), &[]));
        assert!(folder.path("link").is_symlink() && folder.path("far/hop").is_symlink());
        assert_eq!(std::fs::read(folder.path("far/target")).unwrap(), expected);
    }
    symlink("in", folder.path("to the input")).unwrap();
    assert_fails(&attend(&input, &folder.path("to the input"), &[]), "are the same file");
    std::fs::set_permissions(&output, PermissionsExt::from_mode(0o444)).unwrap();
    assert_fails(&attend(&input, &output, &[]), "read-only");
    assert_eq!(folder.names(), ["far", "in", "link", "other", "out", "to the input"]);
}

#[test]
fn a_dash_is_stdin_and_stdout() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    write_input(&input, vec![("another", Dtype::U8, vec![3], vec![1, 2, 3])]);
    let bytes = std::fs::read(&input).unwrap();
    assert_succeeds(&attend(&input, &output, &[]));
    let expected = std::fs::read(&output).unwrap();

    let piped = wattn_reading(&["attend", "--input", "-", "--output", "-", "--backend", "cpu"], &bytes);
    assert_eq!((piped.status.code(), &piped.stdout), (Some(0), &expected));
    assert!(String::from_utf8_lossy(&piped.stderr).contains("full attention of f32 inputs"));
    let quiet = wattn_reading(&["attend", "--input", "-", "--output", "-", "--backend", "cpu", "--quiet"], &bytes);
    assert_eq!((&quiet.stdout, quiet.stderr.len()), (&expected, 0));

    let json = attend(&input, &output, &["--json", "-"]);
    let summary: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(summary["dtype"], "f32");
    let info: serde_json::Value = serde_json::from_slice(&wattn(&["info", "--json", "-"]).stdout).unwrap();
    assert!(info["adapters"].is_array());
    let recall = wattn_reading(&["recall", "-", "--backend", "cpu", "--png", "-"], b"to be or not to be, to be");
    assert!(recall.stdout.starts_with(b"\x89PNG"), "{}", String::from_utf8_lossy(&recall.stderr));

    for cut in [7, 60, bytes.len() - 1] {
        let args = ["attend", "--input", "-", "--output", text(&output), "--backend", "cpu"];
        assert_fails(&wattn_reading(&args, &bytes[..cut]), "not a safetensors file");
    }
    let longer = [&bytes[..], &[0]].concat();
    let args = ["attend", "--input", "-", "--output", text(&output), "--backend", "cpu"];
    assert_fails(&wattn_reading(&args, &longer), "not a safetensors file: its size is not what its header says");
}

/// Tensors too large for memory, in files with holes, and endless files: all refused before they are read.
#[cfg(target_os = "linux")]
#[test]
fn what_is_too_large_is_refused_at_once() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    // q alone is 1 TiB; heads and lengths at their limits.
    for shapes in [
        [[1, 1 << 28, 4, 256], [1, 8, 4, 256], [1, 8, 4, 256]],
        [[1, 1, u32::MAX, 64], [1, 1, 1, 64], [1, 1, 1, 64]],
        [[1, 1, 8, 64], [1, (1 << 29) - 1, 8, 64], [1, (1 << 29) - 1, 8, 64]],
    ] {
        let mut end = 0u64;
        let tensors = ["q", "k", "v"].into_iter().zip(shapes).map(|(name, shape)| {
            let start = end;
            end += 4 * shape.iter().map(|&axis| u64::from(axis)).product::<u64>();
            format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
        });
        let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
        let mut file = std::fs::File::create(&input).unwrap();
        file.write_all(&[&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat()).unwrap();
        file.set_len(8 + header.len() as u64 + end).unwrap();
        for method in ["dense", "hip", "infinite-hip"] {
            let result =
                bounded(&["attend", "--input", text(&input), "--output", text(&output), "--attention", method]);
            assert_fails(&result, if method == "dense" { "do not fit into memory" } else { "" });
        }
    }
    for file in ["/dev/zero", "/dev/urandom"] {
        let result = bounded(&["attend", "--input", file, "--output", text(&output)]);
        assert_fails(&result, "not a safetensors file");
        assert_fails(&bounded(&["tune", "--import", file]), file);
        assert_fails(&bounded(&["bench", "compare", file, file]), "is larger than");
        let shape = ["recall", "--backend", "gpu", "--tuning", file];
        assert_fails(&wattn(&shape), file);
    }
    for args in [["bench", "--cases", ""], ["bench", "--cases", "decode/,"], ["tune", "--cases", ""]] {
        assert_fails(&bounded(&args), "--cases");
    }
    for shape in ["1,536870911,536870911,8,8,128,128", "1,536870911,536870911,1,1,128,128"] {
        let result = bounded(&["info", "--shape", shape]);
        assert_fails(&result, "rows of out, four columns each: ");
    }
    assert_fails(&bounded(&["info", "--shape", "4294967295,16,16,4294967295,1,256,256"]), "elements of q: ");
    assert_eq!(folder.names(), ["in"]);
}

/// The program with 100 MiB of memory and ten seconds.
#[cfg(target_os = "linux")]
fn bounded(args: &[&str]) -> Output {
    let mut command = Command::new("bash");
    command.args(["-c", "ulimit -v 300000 -d 100000 -t 10 && exec \"$@\"", "bash", env!("CARGO_BIN_EXE_wattn")]);
    command.args(args).env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache")).output().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure() {
    for args in [&["--help"][..], &["--version"], &["attend", "--help"], &["info"], &["completions", "bash"]] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattn"));
        let result = command.args(args).stdout(full).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(result.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8_lossy(&result.stderr);
        assert!(stderr.starts_with("error: cannot write stdout: "), "{args:?}: {stderr}");
        // The error cannot be reported anywhere; the program still does not panic.
        let full = || std::fs::File::create("/dev/full").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattn"));
        assert_eq!(command.args(args).stdout(full()).stderr(full()).output().unwrap().status.code(), Some(2));
    }
}

#[test]
fn threads_change_no_result() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    write_input(&input, vec![]);
    assert_succeeds(&attend(&input, &output, &["--threads", "1"]));
    let one = std::fs::read(&output).unwrap();
    assert_succeeds(&attend(&input, &output, &["--threads", "3"]));
    assert_eq!(std::fs::read(&output).unwrap(), one);
    assert!(SafeTensors::deserialize(&one).unwrap().tensor("out").is_ok());
    for bad in ["0", "1025", "many"] {
        assert_fails(&attend(&input, &output, &["--threads", bad]), "--threads");
    }
}
