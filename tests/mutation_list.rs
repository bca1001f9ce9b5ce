//! The list of faults that `bash tests/mutations` writes into shaders and the CPU path still fits them: each text occurs once in its file,
//! an edited shader is valid WGSL, and the test that must fail exists.

#[path = "common/variants.rs"]
mod variants;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use naga::valid::{Capabilities, ValidationFlags, Validator};
use wattn::Specialization;

/// One entry of the list.
#[derive(Debug, Default)]
struct Mutation {
    name: String,
    file: String,
    test: String,
    from: Vec<String>,
    to: Vec<String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn mutations() -> Vec<Mutation> {
    let mut mutations: Vec<Mutation> = Vec::new();
    let list = fs::read_to_string(root().join("tests/mutations.list")).unwrap();
    for line in list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once(' ') {
            None => mutations.push(Mutation { name: line.to_owned(), ..Mutation::default() }),
            Some((field, rest)) => {
                let mutation = mutations.last_mut().unwrap();
                match field {
                    "file" => mutation.file = rest.to_owned(),
                    "test" => mutation.test = rest.to_owned(),
                    "-" => mutation.from.push(rest.to_owned()),
                    "+" => mutation.to.push(rest.to_owned()),
                    _ => panic!("{line}"),
                }
            }
        }
    }
    mutations
}

impl Mutation {
    fn is_shader(&self) -> bool {
        !self.file.starts_with("src/")
    }

    fn path(&self) -> PathBuf {
        if !self.is_shader() {
            return root().join(&self.file);
        }
        root().join("shaders").join(&self.file).with_extension("wgsl")
    }

    /// The file without and with the fault.
    fn texts(&self) -> (String, String) {
        let text = fs::read_to_string(self.path()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let (from, to) = (self.from.join("\n"), self.to.join("\n"));
        assert!(!from.is_empty() && from != to, "{}", self.name);
        assert_eq!(text.matches(&from).count(), 1, "{}: `{from}` in {}", self.name, self.file);
        let edited = text.replacen(&from, &to, 1);
        (text, edited)
    }
}

#[test]
fn every_mutation_fits_its_file_and_names_a_test() {
    let mutations = mutations();
    let names: BTreeSet<_> = mutations.iter().map(|mutation| &mutation.name).collect();
    assert_eq!(names.len(), mutations.len(), "a name stands twice");
    let shaders = mutations.iter().filter(|mutation| mutation.is_shader()).count();
    println!("{shaders} of shaders, {} of the CPU path", mutations.len() - shaders);
    assert!(shaders >= 30 && mutations.len() - shaders >= 12);
    for mutation in &mutations {
        mutation.texts();
        let words: Vec<&str> = mutation.test.split(' ').filter(|&word| word != "matrix").collect();
        let [binary, test] = words[..] else { panic!("{mutation:?}") };
        // A test of a file beside main.rs has its name in front.
        let (file, test) = test.split_once("::").unwrap_or(("main", test));
        let files = [format!("{binary}.rs"), format!("{binary}/{file}.rs")];
        let found = files.map(|file| root().join("tests").join(file));
        let text = found.iter().find_map(|path| fs::read_to_string(path).ok());
        let text = text.unwrap_or_else(|| panic!("{}: no test binary {binary}", mutation.name));
        assert!(text.contains(&format!("fn {test}()")), "{}: no test {test} in {binary}", mutation.name);
    }
}

/// A shader that does not compile would fail every test, and prove nothing.
#[test]
fn every_shader_with_a_fault_is_valid() {
    let mut variants: Vec<Specialization> =
        variants::variants().into_iter().map(|found| found.specialization).collect();
    #[cfg(feature = "lm")]
    variants.extend(wattn::lm::LmVariant::all().iter().map(wattn::lm::LmVariant::specialization));
    let variants: Vec<_> = variants.iter().map(|variant| (variant, variant.wgsl_rolled())).collect();
    for mutation in mutations().into_iter().filter(Mutation::is_shader) {
        let (text, edited) = mutation.texts();
        // Under the names of a tensor.
        let faulty = |(variant, wgsl): &(&Specialization, String)| {
            let taken = ["q", "k", "v", "sinks", "first", "second", "third"]
                .into_iter()
                .filter(|&tensor| variant.modules_for(tensor).next().is_some());
            let mut taken = taken.map(|tensor| [&text, &edited].map(|text| variant.renamed_for(tensor, text)));
            taken.find(|[text, _]| wgsl.contains(text)).map(|[text, edited]| wgsl.replacen(&text, &edited, 1))
        };
        let user = variants.iter().find(|(_, wgsl)| wgsl.contains(&text));
        let user = user.map(|(_, wgsl)| wgsl.replacen(&text, &edited, 1));
        let Some(wgsl) = user.or_else(|| variants.iter().find_map(faulty)) else {
            assert!(cfg!(not(feature = "lm")) && mutation.test.starts_with("gpu_lm"), "{}: no variant", mutation.name);
            continue;
        };
        let what = &mutation.name;
        let module = naga::front::wgsl::parse_str(&wgsl)
            .unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(&wgsl)));
        Validator::new(ValidationFlags::all(), Capabilities::all())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(&wgsl)));
    }
}
