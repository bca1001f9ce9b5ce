//! Mistakes in the options of sparse attention, and sparse attention in `recall`.

#[path = "common/cli.rs"]
mod program;

use program::{Folder, assert_fails, assert_succeeds, entry, painted, text, wattn, write_file};
use safetensors::tensor::Dtype;

#[test]
fn mistakes_in_options_give_one_clear_line() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    let tensors = [painted::<f32>([1, 4, 2, 8], 7), painted([1, 64, 1, 8], 11), painted([1, 64, 1, 8], 13)];
    let entries: Vec<_> =
        ["q", "k", "v"].into_iter().zip(&tensors).map(|(name, tensor)| entry(name, Dtype::F32, tensor)).collect();
    write_file(&input, &entries);
    let hip: &[(&[&str], &str)] = &[
        (&["--hip-k", "33"], "top_k = 33: must be a multiple of block_size_k"),
        (&["--hip-k", "0"], "top_k = 0"),
        (&["--hip-k", "-2"], "--hip-k"),
        (&["--hip-k", "4294967296"], "--hip-k"),
        (&["--hip-k", "2097152"], "top_k = 2097152"),
        (&["--hip-block-q", "0"], "block_size_q = 0"),
        (&["--hip-stride-q", "0"], "stride_q = 0"),
        (&["--hip-stride-q", "65"], "stride_q = 65: must be at most block_size_q"),
        (&["--hip-block-k", "129"], "block_size_k = 129"),
        (&["--hip-stride-k", "3"], "stride_k = 3: must be at most block_size_k"),
        (&["--hip-refresh", "0"], "refresh_interval = 0"),
        (&["--sink", "15"], "sink_size = 15: must be a multiple of block_size_k"),
        (&["--window", "255"], "window_size = 255: must be a multiple of block_size_k"),
        (&["--dense-below", "4294967295"], "dense_below = 4294967295"),
        (&["--selection-scale", "nan"], "selection_scale = NaN"),
        (&["--selection-scale=-inf"], "selection_scale = -inf"),
        (&["--hip-representative", "middle"], "--hip-representative"),
        (&["--hip-align-groups", "yes"], "--hip-align-groups"),
        (&["--granularity", "head"], "--granularity"),
        (&["--non-causal", "--sink", "16"], "sink_size = 16: must be 0 where the mask is not causal"),
        (&["--non-causal", "--window", "64"], "window_size = 64: must be 0"),
        (&["--non-causal", "--hip-refresh", "2"], "refresh_interval = 2"),
        (&["--non-causal", "--causal"], "--causal"),
        (&["--window-left", "4"], "--window-left is for --attention dense; hip has --window"),
        (&["--window-right", "0"], "--window-right is for --attention dense; hip has --window"),
        (&["--preset", "3K"], "--preset is for --attention infinite-hip, not hip"),
        (&["--stage-chunks", "8"], "--stage-chunks is for --attention infinite-hip, not hip"),
        (&["--stage-k", "8"], "--stage-k is for"),
        (&["--stage-final", "8"], "--stage-final is for"),
        (&["--stage-stride-q", "1"], "--stage-stride-q is for"),
        (&["--stage-refresh", "1"], "--stage-refresh is for"),
        (&["--stage-representative", "first"], "--stage-representative is for"),
        (&["--head-reduction", "max"], "--head-reduction is for"),
        (&["--block-q", "64"], "--block-q is for --attention infinite-hip or blocks, not hip"),
        (&["--block-size", "2"], "--block-size is for --attention blocks, not hip"),
    ];
    let infinite: &[(&[&str], &str)] = &[
        (&["--preset", "4K"], "--preset"),
        (&["--preset", "5K", "--stage-k", "8192"], "--preset 5K sets all stages, --stage-k would change one"),
        (&["--preset", "5K", "--stage-final", "512"], "--stage-final would change one"),
        (&["--stage-chunks", "32,8", "--stage-k", "64,32"], "--stage-k needs 1 number for 2 stages"),
        (&["--stage-chunks", "32", "--stage-stride-q", "4,1"], "--stage-stride-q needs 1 number for 1 stage of"),
        (&["--stage-chunks", "64,32,16,8"], "--stage-k needs 3 numbers for 4 stages of --stage-chunks, none given"),
        (&["--stage-chunks", "32,,8"], "--stage-chunks"),
        (&["--stage-chunks", "32,12,4"], "keep = 8192: must be a multiple of the stage's chunk_size"),
        (&["--stage-chunks", "32,24,8", "--stage-k", "3200,2400"], "chunk_size = 24: must divide"),
        (&["--stage-chunks", "256", "--stage-final", "256"], "chunk_size = 256: must be at most 128"),
        (&["--stage-final", "2047"], "keep = 2047: must be a multiple"),
        (&["--stage-stride-q", "4,0,1"], "stride_q = 0"),
        (&["--stage-refresh", "16,5,4"], "refresh_interval = 16: must be a multiple of the next stage's"),
        (&["--sink", "4"], "sink_size = 4: must be a multiple of the last stage's chunk_size"),
        (&["--block-q", "2"], "stride_q = 4: must be at most block_size_q"),
        (&["--stage-representative", "last"], "--stage-representative"),
        (&["--head-reduction", "sum"], "--head-reduction"),
        (&["--non-causal"], "--non-causal is for --attention hip or blocks, not infinite-hip"),
        (&["--window-left", "4"], "--window-left is for --attention dense; infinite-hip has --window"),
        (&["--hip-k", "64"], "--hip-k is for --attention hip, not infinite-hip"),
        (&["--hip-block-q", "64"], "--hip-block-q is for"),
        (&["--hip-stride-q", "1"], "--hip-stride-q is for"),
        (&["--hip-block-k", "2"], "--hip-block-k is for"),
        (&["--hip-stride-k", "1"], "--hip-stride-k is for"),
        (&["--hip-representative", "last"], "--hip-representative is for"),
        (&["--hip-align-groups", "on"], "--hip-align-groups is for"),
        (&["--hip-refresh", "8"], "--hip-refresh is for"),
    ];
    let dense: &[(&[&str], &str)] = &[
        (&["--sink", "16"], "--sink is for --attention hip or infinite-hip or blocks, not dense"),
        (&["--window", "16"], "--window is for"),
        (&["--granularity", "layer"], "--granularity is for"),
        (&["--selection-scale", "1"], "--selection-scale is for --attention hip or infinite-hip, not dense"),
        (&["--dense-below", "1"], "--dense-below is for"),
        (&["--non-causal"], "--non-causal is for"),
        (&["--captured-mass"], "dense alone captures everything"),
        (&["--attention", "sparse"], "--attention"),
    ];
    let files = ["attend", "--input", text(&input), "--output", text(&output), "--backend", "cpu"];
    for (attention, cases) in
        [(&["--attention", "hip"][..], hip), (&["--attention", "infinite-hip"], infinite), (&[], dense)]
    {
        for (flags, part) in cases {
            println!("{attention:?} {flags:?}");
            assert_fails(&wattn(&[&files[..], attention, flags].concat()), part);
            assert_eq!(folder.names(), ["in"]);
        }
    }
}

const POEM: &str = "The king was in his counting-house, counting out his money. The queen was in the parlour, eating \
                    bread and honey. The maid was in the garden, hanging out the clothes. ";

/// Rows of a PNG, `[height][width][3]`.
fn pixels(path: &std::path::Path) -> (png::Info<'static>, Vec<u8>) {
    let mut reader = png::Decoder::new(std::fs::File::open(path).unwrap()).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size()];
    reader.next_frame(&mut bytes).unwrap();
    (reader.info().clone(), bytes)
}

#[test]
fn recall_compares_in_one_table_and_draws_the_mask() {
    let folder = Folder::new();
    let (file, png, json) = (folder.path("poem"), folder.path("mask.png"), folder.path("report.json"));
    std::fs::write(&file, POEM.repeat(6)).unwrap();
    let recall = |backend: &str, extra: &[&str]| {
        let args = ["recall", text(&file), "--backend", backend, "--json", text(&json), "--heads", "2"];
        let args = [&args[..], &["--dense-below", "0"]].concat();
        let stdout = assert_succeeds(&wattn(&[&args[..], extra].concat()));
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        (stdout, report)
    };
    let flags = ["--attention", "infinite-hip,dense,hip,hip", "--hip-k", "64", "--hip-block-q", "16", "--window", "32"];
    let stages =
        ["--sink", "16", "--stage-chunks", "16,4", "--stage-k", "128", "--stage-final", "64", "--block-q", "16"];
    let flags = [&flags[..], &stages].concat();
    let mut reports = Vec::new();
    for backend in ["oracle", "cpu", "gpu"] {
        let (stdout, report) = recall(backend, &[&flags[..], &["--mask-png", text(&png)]].concat());
        let rows = report["attentions"].as_array().unwrap().clone();
        let names: Vec<&str> = rows.iter().map(|row| row["attention"].as_str().unwrap()).collect();
        assert_eq!(names, ["dense", "infinite-hip", "hip"]);
        let number = |row: usize, key: &str| rows[row][key].as_f64().unwrap();
        assert_eq!(number(0, "captured_mass"), 1.0);
        assert_eq!(number(0, "bits_per_byte"), report["bits_per_byte"].as_f64().unwrap());
        let len = (POEM.len() * 6 - 1) as f64;
        assert_eq!(number(0, "keys_per_query"), (len + 1.0) / 2.0);
        for row in [1, 2] {
            // Sinks, window and selected blocks together: a text of a thousand bytes is longer.
            let keys = number(row, "keys_per_query");
            assert!((48.0..=16.0 + 32.0 + 64.0).contains(&keys), "{keys}");
            let mass = number(row, "captured_mass");
            assert!(mass > 0.05 && mass < 1.0, "{mass}");
            assert!(number(row, "bits_per_byte") > number(0, "bits_per_byte"), "what was not read cannot help");
        }
        assert!(stdout.contains("attention     bits per byte    top-1   seconds  captured mass  keys per query"));
        assert!(stdout.contains("hard for"), "the loss must be explained: {stdout}");
        let free = |line: &str| line.contains("picture") || line.contains(" tier");
        assert!(stdout.lines().all(|line| line.chars().count() <= 80 || free(line)), "{stdout}");
        reports.push(rows);

        let (info, bytes) = pixels(&png);
        assert_eq!(bytes.len(), (info.width * info.height * 3) as usize);
        // Window, unread keys and the future have their colours, and selected keys have shades.
        for color in [[232, 93, 36], [236, 239, 243], [255, 255, 255]] {
            let count = bytes.chunks_exact(3).filter(|pixel| *pixel == color).count();
            assert!(count > 500, "{count} pixels of {color:?}");
        }
        let blue = bytes.chunks_exact(3).filter(|pixel| pixel[2] > pixel[0] + 40).count();
        assert!(blue > 500, "{blue} pixels of selected keys");
    }
    for (oracle, other) in reports[1..].iter().flat_map(|rows| reports[0].iter().zip(rows)) {
        for key in ["bits_per_byte", "captured_mass"] {
            let [a, b] = [oracle, other].map(|row| row[key].as_f64().unwrap());
            // Six equal stanzas tie, and rounding decides which of them is read; the predictions hardly depend on it.
            assert!((a - b).abs() < 0.02, "{key}: {a} {b}");
        }
    }
    // Chunks of whole query blocks change nothing but rounding for HiP.
    let hip = ["--attention", "hip", "--hip-k", "64", "--hip-block-q", "16", "--window", "32"];
    let whole = recall("cpu", &hip).1["attentions"][1]["keys_per_query"].clone();
    let chunked = recall("cpu", &[&hip[..], &["--chunk", "96"]].concat()).1["attentions"][1]["keys_per_query"].clone();
    assert_eq!(whole, chunked);
}

#[test]
fn recall_without_sparse_attention_says_nothing_of_it() {
    let folder = Folder::new();
    let (file, json) = (folder.path("poem"), folder.path("report.json"));
    std::fs::write(&file, POEM).unwrap();
    for flags in [&[][..], &["--attention", "dense"]] {
        let args = ["recall", text(&file), "--backend", "cpu", "--json", text(&json)];
        let stdout = assert_succeeds(&wattn(&[&args[..], flags].concat()));
        assert!(!stdout.contains("captured"), "{stdout}");
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert!(report.get("attentions").is_none());
    }
    let recall = |flags: &[&str]| wattn(&[&["recall", text(&file), "--backend", "cpu"], flags].concat());
    assert_fails(&recall(&["--mask-png", "x.png"]), "--mask-png draws what --attention hip or infinite-hip selects");
    assert_fails(&recall(&["--attention", "blocks"]), "[possible values: dense, hip, infinite-hip]");
    assert_fails(&recall(&["--attention", "hip,"]), "--attention");
    assert_fails(&recall(&["--hip-k", "2"]), "--hip-k is for --attention hip, not dense");
    assert_fails(
        &recall(&["--attention", "dense,hip", "--preset", "3K"]),
        "--preset is for --attention infinite-hip, not dense,hip",
    );
    assert_fails(&recall(&["--attention", "hip", "--hip-k", "3"]), "top_k = 3");
    assert_fails(&recall(&["--attention", "hip", "--mask-png", "no/such/folder.png"]), "its folder does not exist");
}

#[test]
fn recall_takes_the_smallest_texts() {
    let folder = Folder::new();
    let (file, png) = (folder.path("bytes"), folder.path("bytes.png"));
    for len in [2, 3, 17, 65] {
        std::fs::write(&file, &POEM.as_bytes()[..len]).unwrap();
        let args = ["recall", text(&file), "--backend", "cpu", "--dense-below", "0", "--mask-png", text(&png)];
        let args = [&args[..], &["--attention", "hip,infinite-hip"]].concat();
        let stdout = assert_succeeds(&wattn(&args));
        assert!(stdout.contains("captured mass"), "{stdout}");
        assert!(pixels(&png).1.iter().any(|&channel| channel < 255));
    }
}

#[test]
fn help_groups_the_options() {
    for command in ["attend", "recall"] {
        let stdout = assert_succeeds(&wattn(&[command, "--help"]));
        let at = |part: &str| stdout.find(part).unwrap_or_else(|| panic!("{command} lacks {part}: {stdout}"));
        let headings =
            ["Options:", "Sparse attention:", "HiP (--attention hip):", "InfiniteHiP (--attention infinite-hip):"];
        let places = headings.map(at);
        assert!(places.is_sorted(), "{places:?}");
        assert!(at("--json") < places[1] && at("--backend") < places[1], "other options come first");
        assert!(at("--sink <") > places[1] && at("--hip-k") > places[2] && at("--stage-chunks") > places[3]);
    }
    assert!(assert_succeeds(&wattn(&["recall", "--help"])).contains("Expect a loss here"));
}
