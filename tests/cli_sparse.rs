//! Sparse attention through the `wattn` command: the specification's golden vectors from file to file, mistakes in every option, and the
//! table and picture of `recall`.

#[path = "common/cli.rs"]
mod program;

use std::path::Path;

use program::{Entry, Folder, assert_fails, assert_succeeds, entry, f32s, text, wattn, write_file};
use safetensors::tensor::{Dtype, SafeTensors};
use wattn::HostTensor;

/// Back ends that must find the same lists.
const BACKENDS: &[&str] = &["oracle", "cpu", "gpu"];

/// Case G1 of the specification, 6.7: q, k and v of small integers.
fn g1() -> [HostTensor; 3] {
    let mut x = 1u32;
    let mut draw = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((x >> 24) % 7) as f32 - 3.0
    };
    [[1, 16, 2, 8], [1, 512, 1, 8], [1, 512, 1, 8]].map(|shape| {
        let len = shape.iter().product::<u32>();
        HostTensor::new(shape, (0..len).map(|_| draw()).collect()).unwrap()
    })
}

fn g1_entries() -> Vec<Entry<'static>> {
    let [q, k, v] = g1();
    assert_eq!(q.row(0, 0, 0), [1.0, 0.0, 0.0, 2.0, 2.0, 0.0, -1.0, -1.0], "the specification says so");
    assert_eq!(v.row(0, 511, 0), [-1.0, -1.0, 0.0, 3.0, -1.0, 1.0, 2.0, -1.0], "the specification says so");
    vec![entry("q", Dtype::F32, &q), entry("k", Dtype::F32, &k), entry("v", Dtype::F32, &v)]
}

/// The last query alone, as in decoding.
fn g1_decode_entries() -> Vec<Entry<'static>> {
    let [q, k, v] = g1();
    let last = HostTensor::new([1, 1, 2, 8], q.data()[15 * 16..].to_vec()).unwrap();
    vec![entry("q", Dtype::F32, &last), entry("k", Dtype::F32, &k), entry("v", Dtype::F32, &v)]
}

fn integers(name: &'static str, shape: &[usize], data: &[i32]) -> Entry<'static> {
    (name, Dtype::I32, shape.to_vec(), bytemuck::cast_slice(data).to_vec())
}

const G1_HIP: [&str; 17] = [
    "--attention=hip",
    "--hip-k=64",
    "--hip-block-q=16",
    "--hip-stride-q",
    "2",
    "--hip-block-k",
    "2",
    "--hip-stride-k",
    "1",
    "--sink",
    "16",
    "--window",
    "64",
    "--hip-align-groups",
    "off",
    "--selection-scale",
    "1",
];

const G1_INFINITE: [&str; 15] = [
    "--attention",
    "infinite-hip",
    "--stage-chunks=32,8,4",
    "--stage-k=128,64",
    "--stage-final=32",
    "--stage-refresh=1,1,1",
    "--block-q=16",
    "--sink",
    "16",
    "--window",
    "64",
    "--selection-scale",
    "1",
    "--stage-representative",
    "center",
];

const G1_HIP_LISTS: [[i32; 32]; 2] = [
    [
        16, 20, 42, 44, 90, 92, 98, 120, 122, 146, 170, 184, 188, 208, 218, 220, 232, 234, 270, 300, 302, 324, 342,
        352, 354, 356, 376, 378, 430, 434, 436, 438,
    ],
    [
        28, 30, 32, 38, 70, 74, 94, 104, 118, 124, 126, 128, 132, 134, 232, 242, 258, 272, 298, 300, 302, 334, 340,
        350, 374, 378, 404, 408, 410, 434, 436, 438,
    ],
];

/// The output of `attend`.
struct Written {
    out: Vec<f32>,
    lse: Vec<f32>,
    /// `(shape, numbers)`.
    indices: Option<(Vec<usize>, Vec<i32>)>,
    counts: Option<(Vec<usize>, Vec<i32>)>,
    mass: Option<Vec<f32>>,
}

fn read(path: &Path) -> Written {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name| file.tensor(name).ok().map(|tensor| f32s(&tensor));
    let integers = |name| {
        let tensor = file.tensor(name).ok()?;
        assert_eq!(tensor.dtype(), Dtype::I32, "{name}");
        let numbers = tensor.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
        Some((tensor.shape().to_vec(), numbers))
    };
    Written {
        out: floats("out").unwrap(),
        lse: floats("lse").unwrap(),
        indices: integers("block_indices"),
        counts: integers("block_counts"),
        mass: floats("captured_mass"),
    }
}

/// Runs `attend` on these tensors; `(output tensors, stdout)`.
fn attend(entries: &[Entry<'_>], backend: &str, flags: &[&str]) -> (Written, String) {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    write_file(&input, entries);
    let args = ["attend", "--input", text(&input), "--output", text(&output), "--backend", backend];
    let stdout = assert_succeeds(&wattn(&[&args[..], flags].concat()));
    (read(&output), stdout)
}

/// Runs `attend` on these tensors and expects one line that contains `part`, and no output.
#[track_caller]
fn refuses(entries: &[Entry<'_>], flags: &[&str], part: &str) {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    write_file(&input, entries);
    let args = ["attend", "--input", text(&input), "--output", text(&output), "--backend", "cpu"];
    let result = wattn(&[&args[..], flags].concat());
    println!("{flags:?}: {}", String::from_utf8_lossy(&result.stderr));
    assert_fails(&result, part);
    assert_eq!(folder.names(), ["in"]);
}

/// The golden numbers have seven decimals; f32 arithmetic adds a few roundings of numbers below 16.
#[track_caller]
fn assert_close(got: &[f32], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (got, expected) in got.iter().zip(expected) {
        assert!((f64::from(*got) - expected).abs() < 1e-5, "{what}: {got} is not {expected}");
    }
}

/// Query 15 is the last of 16, with 2 heads of width 8.
const LAST: usize = 15 * 2;

#[test]
fn hip_gives_the_golden_lists_and_attention() {
    for backend in BACKENDS {
        let flags = [&G1_HIP[..], &["--captured-mass"]].concat();
        let (written, stdout) = attend(&g1_entries(), backend, &flags);
        let lists = G1_HIP_LISTS.concat();
        assert_eq!(written.indices.unwrap(), (vec![1, 2, 1, 32], lists), "{backend}");
        assert_eq!(written.counts.unwrap(), (vec![1, 2, 1], vec![32, 32]), "{backend}");
        let out = [1.8282639, -1.0322369, -1.0978727, 1.2857005, -0.9562683, -0.7530978, 0.3391248, -1.2152908];
        assert_close(&written.out[LAST * 8..][..8], &out, backend);
        assert_close(&written.lse[LAST..], &[13.5890694, 9.4257778], backend);
        let mass = written.mass.unwrap();
        assert_eq!(mass.len(), 16 * 2);
        assert_close(&mass[LAST..][..1], &[0.68935], backend);
        assert!(mass.iter().all(|mass| (0.0..1.00001).contains(mass)), "{mass:?}");
        assert!(stdout.contains("lists [1, 2, 1, 32] of blocks of 2 keys, one for each query head"), "{stdout}");
        assert!(stdout.contains("causal hip attention") && stdout.contains("captured mass: mean 0."), "{stdout}");
    }
}

#[test]
fn representatives_change_the_lists_as_the_specification_says() {
    let cases: [(&str, [i32; 32]); 3] = [
        ("center", G1_HIP_LISTS[0]),
        (
            "first",
            [
                16, 28, 34, 36, 42, 44, 102, 110, 124, 142, 146, 158, 170, 174, 232, 234, 264, 286, 300, 318, 352, 354,
                356, 376, 378, 396, 426, 430, 434, 436, 438, 444,
            ],
        ),
        (
            "last",
            [
                16, 20, 42, 54, 60, 64, 68, 80, 90, 108, 120, 122, 140, 154, 156, 158, 162, 208, 270, 284, 300, 324,
                342, 352, 354, 356, 376, 378, 424, 434, 436, 438,
            ],
        ),
    ];
    for backend in BACKENDS {
        for (name, list) in cases {
            let (written, _) = attend(&g1_entries(), backend, &[&G1_HIP[..], &["--hip-representative", name]].concat());
            assert_eq!(written.indices.unwrap().1[..32], list, "{backend} {name}");
        }
        let decode = ["--hip-stride-q", "1", "--hip-block-q", "64"];
        let flags: Vec<&str> = G1_HIP.iter().filter(|flag| !flag.contains("block-q")).copied().collect();
        let at = flags.iter().position(|&flag| flag == "--hip-stride-q").unwrap();
        let flags = [&flags[..at], &flags[at + 2..], &decode].concat();
        let list = [
            44, 46, 56, 60, 106, 108, 116, 118, 140, 192, 194, 206, 208, 228, 230, 240, 270, 300, 328, 334, 336, 346,
            350, 372, 376, 378, 396, 398, 426, 428, 430, 432,
        ];
        assert_eq!(attend(&g1_decode_entries(), backend, &flags).0.indices.unwrap().1[..32], list, "{backend}");
    }
}

#[test]
fn infinite_hip_gives_the_golden_lists_and_attention() {
    for backend in BACKENDS {
        let run = |entries: &[Entry<'_>], strides| {
            attend(entries, backend, &[&G1_INFINITE[..], &["--stage-stride-q", strides]].concat()).0
        };
        let written = run(&g1_entries(), "1,1,1");
        assert_eq!(
            written.indices.unwrap(),
            (vec![1, 1, 1, 8], vec![44, 60, 64, 316, 324, 336, 344, 348]),
            "{backend}"
        );
        assert_eq!(written.counts.unwrap(), (vec![1, 1, 1], vec![8]));
        let head_0 = [2.0486048, -1.3667563, -1.054141, 1.8548319, -1.4874518, -0.6564824, 0.7104481, -1.2396068];
        let head_1 = [1.261482, 0.1826464, 1.8633139, 0.4460839, 0.7618083, 0.2531256, 0.9918954, 0.1857985];
        assert_close(&written.out[LAST * 8..], &[head_0, head_1].concat(), backend);
        assert_close(&written.lse[LAST..], &[13.3873113, 8.0383211], backend);

        let written = run(&g1_entries(), "2,2,1");
        assert_eq!(written.indices.unwrap().1, [60, 304, 308, 312, 316, 324, 432, 436], "{backend}");

        let written = run(&g1_decode_entries(), "4,4,1");
        assert_eq!(written.indices.unwrap().1, [80, 92, 108, 152, 168, 172, 268, 376], "{backend}");
        let out = [-0.6989396, 0.010335, -0.2944407, -0.1420183, 0.6863083, -0.6001724, -0.3431705, -0.2768084];
        assert_close(&written.out[..8], &out, backend);
        assert_close(&written.lse[..1], &[12.8153054], backend);
    }
}

#[test]
fn granularity_and_reduction_shape_the_lists() {
    let shape = |flags: &[&str]| {
        let (written, _) = attend(&g1_entries(), "cpu", flags);
        let (shape, indices) = written.indices.unwrap();
        let (counts_shape, counts) = written.counts.unwrap();
        assert_eq!(shape[..3], counts_shape);
        // Ascending up to the count, -1 after it.
        for (list, count) in indices.chunks(shape[3]).zip(counts) {
            let (list, padding) = list.split_at(count as usize);
            assert!(list.windows(2).all(|pair| pair[0] < pair[1]) && list.iter().all(|&start| start >= 16), "{list:?}");
            assert!(padding.iter().all(|&start| start == -1), "{padding:?}");
        }
        shape
    };
    assert_eq!(shape(&[&G1_HIP[..], &["--granularity", "kv-head"]].concat()), [1, 1, 1, 32]);
    assert_eq!(shape(&[&G1_INFINITE[..], &["--granularity", "query-head"]].concat()), [1, 2, 1, 8]);
    // The union over two heads fits in this list, and is longer than either head's.
    assert_eq!(shape(&[&G1_INFINITE[..], &["--head-reduction", "union"]].concat()), [1, 1, 1, 16]);
    assert_eq!(shape(&["--attention", "infinite-hip", "--preset", "DEBUG", "--sink", "16"]), [1, 1, 1, 128]);
    // With fewer stages than three, the defaults are the first stages of the preset.
    assert_eq!(shape(&["--attention", "infinite-hip", "--stage-chunks", "64,16", "--sink", "16"]), [1, 1, 1, 128]);
}

/// Room for every key: sparse is dense, whatever the method, and everything is captured.
#[test]
fn keeping_everything_is_dense() {
    for backend in BACKENDS {
        let causal = attend(&g1_entries(), backend, &["--causal"]).0;
        let full = attend(&g1_entries(), backend, &[]).0;
        let cases: [(&[&str], &Written); 4] = [
            (&["--attention", "hip", "--hip-k", "512"], &causal),
            (&["--attention", "infinite-hip", "--causal"], &causal),
            (&["--attention", "hip", "--dense-below", "512", "--hip-k", "2"], &causal),
            (&["--attention", "hip", "--hip-k", "512", "--non-causal"], &full),
        ];
        for (flags, dense) in cases {
            let (sparse, stdout) = attend(&g1_entries(), backend, &[flags, &["--captured-mass"]].concat());
            let dense_out: Vec<f64> = dense.out.iter().map(|&x| x.into()).collect();
            let dense_lse: Vec<f64> = dense.lse.iter().map(|&x| x.into()).collect();
            assert_close(&sparse.out, &dense_out, &format!("{backend} {flags:?}"));
            assert_close(&sparse.lse, &dense_lse, &format!("{backend} {flags:?}"));
            assert!(sparse.mass.unwrap().iter().all(|mass| (mass - 1.0).abs() < 1e-5), "{backend} {flags:?}");
            assert!(stdout.contains("captured mass: mean 1.0000") || stdout.contains("mean 0.9999"), "{stdout}");
        }
        // Dense query blocks have no lists.
        let flags = ["--attention", "hip", "--dense-below", "512"];
        assert_eq!(attend(&g1_entries(), backend, &flags).0.counts.unwrap().1, [0, 0]);
        let flags = ["--attention", "hip", "--dense-below", "511"];
        assert!(attend(&g1_entries(), backend, &flags).0.counts.unwrap().1.iter().all(|&count| count > 0));
    }
}

const G1_BLOCKS: [&str; 6] = ["--attention", "blocks", "--block-size=2", "--block-q=16", "--sink=16", "--window=64"];

#[test]
fn lists_may_come_back_in() {
    for backend in BACKENDS {
        let (selected, _) = attend(&g1_entries(), backend, &G1_HIP);
        let mut entries = g1_entries();
        entries.push(integers("block_indices", &[1, 2, 1, 32], &G1_HIP_LISTS.concat()));
        entries.push(integers("block_counts", &[1, 2, 1], &[32, 32]));
        let (listed, stdout) = attend(&entries, backend, &G1_BLOCKS);
        assert_eq!((listed.out, listed.lse), (selected.out, selected.lse), "{backend}");
        assert!(listed.indices.is_none() && stdout.contains("causal blocks attention"), "{stdout}");
    }
}

#[test]
fn hostile_lists_give_one_clear_line() {
    let with = |shape: [usize; 4], indices: &[i32], counts: &[i32]| {
        let mut entries = g1_entries();
        entries.push(integers("block_indices", &shape, indices));
        entries.push(integers("block_counts", &shape[..3], counts));
        entries
    };
    let shape = [1, 2, 1, 3];
    let cases: [(&str, [i32; 6], [i32; 2], &str); 8] = [
        ("duplicate", [16, 20, 20, 30, -1, -1], [3, 1], "set 0, query block 0: entry 2 = 20: blocks must be ascending"),
        (
            "descending",
            [16, 20, 30, 40, 30, -1],
            [3, 2],
            "set 1, query block 0: entry 1 = 30: blocks must be ascending",
        ),
        ("overlap", [16, 17, -1, 40, -1, -1], [2, 1], "entry 1 = 17: blocks must be ascending"),
        ("past the keys", [16, 512, -1, 40, -1, -1], [2, 1], "entry 1 = 512: a block must begin below the length"),
        ("padding counted", [16, -1, -1, 40, -1, -1], [2, 1], "must begin below the length"),
        ("count too large", [16, 20, 22, 40, -1, -1], [4, 1], "a count must be at most max_blocks"),
        ("negative count", [16, 20, 22, 40, -1, -1], [-1, 1], "`block_counts[0]` = -1: must be how many"),
        ("negative start", [16, -7, 22, 40, -1, -1], [1, 1], "`block_indices[1]` = -7: must be the first key"),
    ];
    for (name, indices, counts, part) in cases {
        println!("{name}");
        refuses(&with(shape, &indices, &counts), &G1_BLOCKS, part);
    }
    // Entries past a count are never read.
    attend(&with(shape, &[16, 20, 20, 40, -1, 30], &[2, 1]), "cpu", &G1_BLOCKS);

    let good = with([1, 2, 1, 1], &[16, 20], &[1, 1]);
    let granular = [&G1_BLOCKS[..], &["--granularity", "layer"]].concat();
    refuses(&good, &granular, "`block_indices` has shape [1, 2, 1, 1], expected [1, 1, 1, 1]");
    refuses(&good, &["--attention=blocks", "--block-size=2"], "--attention blocks needs --block-q");
    refuses(&good, &["--attention=blocks", "--block-q=16"], "--attention blocks needs --block-size");
    refuses(&good, &["--attention=blocks", "--block-q=0", "--block-size=2"], "block_size_q = 0");
    refuses(&good, &["--attention=blocks", "--block-q=16", "--block-size=129"], "block_size = 129");
    refuses(&good, &[&G1_BLOCKS[..], &["--non-causal"]].concat(), "sink_size = 16: must be 0");
    refuses(&g1_entries(), &G1_BLOCKS, "`block_indices` and `block_counts` are needed");
    let mut short = g1_entries();
    short.extend([integers("block_indices", &[1, 2, 1, 1], &[16, 20]), integers("block_counts", &[2], &[1, 1])]);
    refuses(&short, &G1_BLOCKS, "`block_counts` has shape [2], expected [1, 2, 1]");
    let mut flat = g1_entries();
    flat.extend([integers("block_indices", &[2], &[16, 20]), integers("block_counts", &[1, 2, 1], &[1, 1])]);
    refuses(&flat, &G1_BLOCKS, "`block_indices` has 1 axes");
    let mut floats = g1_entries();
    floats.push(("block_indices", Dtype::F32, vec![1, 2, 1, 1], vec![0; 8]));
    floats.push(integers("block_counts", &[1, 2, 1], &[1, 1]));
    refuses(&floats, &G1_BLOCKS, "`block_indices` is F32, expected integers of 8 to 64 bits");
}

/// A negative scale prefers small products, like a softmax with it; with 0 all keys tie, and the first ones are taken.
#[test]
fn any_finite_scale_selects() {
    let options = ["--attention", "hip", "--hip-k", "32", "--hip-block-q", "16", "--sink", "16", "--window", "64"];
    for (name, scale) in [("--softmax-scale", "-1"), ("--softmax-scale", "0"), ("--selection-scale", "-0.5")] {
        let scaled = [&options[..], &[name, scale]].concat();
        let [oracle, cpu, gpu] = ["oracle", "cpu", "gpu"].map(|backend| attend(&g1_entries(), backend, &scaled).0);
        assert!(oracle.indices.is_some() && oracle.out.iter().all(|x| x.is_finite()), "{scale}");
        for (who, got) in [("cpu", &cpu), ("gpu", &gpu)] {
            assert_eq!((&got.indices, &got.counts), (&oracle.indices, &oracle.counts), "{who}, {name} {scale}");
            let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-4;
            assert!(!got.out.iter().zip(&oracle.out).any(far), "{who}, {name} {scale}");
        }
    }
}
