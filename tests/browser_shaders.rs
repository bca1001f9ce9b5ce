//! The texts for a browser's compiler: a tier tells which variants the compiler cannot take, and no plan for a browser has one of them.
//! `tests/tint` feeds all others to Chrome's compiler. Needs no GPU.

#[path = "common/variants.rs"]
mod variants;

use std::collections::BTreeMap;
use std::io::Write as _;

use variants::{bench_kernels, devices_and_tiers, variants, variants_of};
use wattn::lm::LmVariant;
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, Hip, SelectionPlan, SelectionProblem, Tier,
};

/// A shader as a device gets it.
struct Text {
    name: String,
    wgsl: String,
}

/// Words of the code. Comments may hold any word.
fn has_word(wgsl: &str, is_meant: impl Fn(&str) -> bool) -> bool {
    let code = wgsl.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_')).any(is_meant)
}

/// Features in the text that no browser offers.
fn beyond_browsers(wgsl: &str) -> Option<&'static str> {
    if has_word(wgsl, |word| word == "u64" || word == "i64") {
        return Some("u64");
    }
    has_word(wgsl, |word| word.starts_with("coop")).then_some("matrices")
}

/// Every variant of every kernel, on every device.
fn texts() -> Vec<Text> {
    let mut texts: Vec<Text> = variants()
        .into_iter()
        .map(|variant| Text {
            name: format!("{} {} {}", variant.specialization.kernel().name(), variant.tier, variant.specialization),
            wgsl: variant.specialization.wgsl(),
        })
        .collect();
    let models = LmVariant::all().into_iter();
    texts.extend(
        models.map(|variant| Text { name: format!("{} {variant:?}", variant.kernel.name()), wgsl: variant.wgsl() }),
    );
    let rates = bench_kernels().into_iter();
    texts.extend(rates.map(|kernel| Text { name: format!("{} {kernel:?}", kernel.name()), wgsl: kernel.wgsl() }));
    texts
}

/// WATTN_DUMP_SHADERS=FILE writes every variant to FILE, one a line: its name, its text for a browser, and the reason why a browser cannot
/// take it.
#[test]
fn every_variant_is_for_browsers_or_says_what_is_not() {
    let file = std::env::var_os("WATTN_DUMP_SHADERS");
    let mut file = file.map(|path| std::io::BufWriter::new(std::fs::File::create(path).unwrap()));
    let (mut num_texts, mut beyond) = (0, BTreeMap::<&str, u32>::new());
    for Text { name, wgsl } in texts() {
        num_texts += 1;
        let needs = beyond_browsers(&wgsl);
        if let Some(needs) = needs {
            *beyond.entry(needs).or_default() += 1;
        }
        let subgroups = has_word(&wgsl, |word| word.starts_with("subgroup"));
        // naga has the operations without the directive; a browser wants the directive.
        let enable = if subgroups { "enable subgroups;\n" } else { "" };
        if let Some(file) = &mut file {
            let line = serde_json::json!({ "name": name, "needs": needs, "wgsl": format!("{enable}{wgsl}") });
            writeln!(file, "{line}").unwrap();
        }
    }
    println!("{num_texts} variants, of them not for browsers: {beyond:?}");
    assert_eq!(beyond.keys().copied().collect::<Vec<_>>(), ["matrices", "u64"]);
    assert!(num_texts > 2 * beyond.values().sum::<u32>(), "{num_texts} variants, {beyond:?}");
}

/// A plan for a device without SHADER_INT64 and without matrices uses neither, whatever else the device has.
#[test]
fn devices_without_u64_and_matrices_get_none() {
    let plain = |(caps, tier): &(DeviceCaps, Tier)| !caps.shader_int64 && !tier.matrix();
    let devices: Vec<_> = devices_and_tiers().into_iter().filter(plain).collect();
    let variants = variants_of(&devices);
    for variant in &variants {
        let needs = beyond_browsers(&variant.specialization.wgsl());
        assert_eq!(needs, None, "{} {}", variant.specialization.kernel().name(), variant.specialization);
    }
    println!("{} variants of {} devices and tiers", variants.len(), devices.len());
    assert!(variants.len() > 500, "{} variants", variants.len());
}

/// In a plan that loads pairs of f32 every such dispatch says so, and no other dispatch does.
#[test]
fn a_plan_says_that_it_has_u64() {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 1,
        seq_len_kv: 5000,
        num_q_heads: 4,
        num_kv_heads: 2,
        head_dim: 64,
        head_dim_v: 64,
    };
    for (caps, tier) in devices_and_tiers().into_iter().filter(|(_, tier)| !tier.matrix()) {
        for dtype in [DType::F32, DType::F16] {
            let problem = AttentionProblem::new(shape, dtype);
            let attention = AttentionPlan::with_tier(&problem, &caps, tier).unwrap();
            let problem = SelectionProblem::new(shape, dtype, Hip::decode());
            let selection = SelectionPlan::with_tier(&problem, &caps, tier).unwrap();
            for dispatch in attention.dispatches().iter().chain(selection.dispatches()) {
                let says = dispatch.to_string().ends_with(", f32 in pairs as u64");
                assert_eq!(says, beyond_browsers(&dispatch.specialization.wgsl()) == Some("u64"), "{dispatch}");
            }
            let says = attention.to_string().contains("f32 in pairs as u64");
            assert_eq!(
                says,
                caps.software && caps.shader_int64 && tier.subgroup() && dtype == DType::F32,
                "{attention}"
            );
        }
    }
}
