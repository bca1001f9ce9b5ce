//! Data flows one way, and a stage imports only earlier ones (architecture.md): read from the `use` lines and paths of `src`. Exceptions
//! are listed here, and the test fails for an entry that nothing needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The stages of the library, in the order of the table in architecture.md: each imports what stands before it.
const STAGES: &[&str] = &[
    "dtype",
    "error",
    "kept_file",
    "setters",
    "pending",
    "parallel",
    "tensor",
    "shader",
    "problem",
    "caps",
    "wanted",
    "kernels",
    "plan",
    "device",
    "ops",
    "cpu",
    "quality",
    "engine",
    "sparse",
    "lm",
    "bench",
    "tune",
];

/// The stages of the program, in the order in which they may import.
const PROGRAM: &[&str] =
    &["failure", "files", "progress", "args", "engine", "info", "attend", "recall", "lm", "bench", "tune", "demo"];

/// Imports that break the rule: from, to. The list should become shorter.
const EXCEPTIONS: &[(&str, &str)] = &[
    // Tuning and calibration travel in the caps.
    ("caps", "plan"),
    ("caps", "wanted"),
    // The module that carries a walk's state takes the place of the one that does not.
    ("shader", "kernels"),
];

/// Files of one stage that import each other. (Items that a folder's own file offers to the files below do not count.) The list should
/// become shorter.
const PAIRS: &[(&str, &str)] = &[
    ("bench::clock", "bench::pulse"),
    ("bench::crossover", "bench::report"),
    ("bench::report", "bench::steady"),
    ("bench::samples", "bench::steady"),
    ("bench::samples", "bench::warm_up"),
    // A context keeps pipelines, and tries its matrices as it opens.
    ("device::check_matrices", "device::context"),
    ("device::context", "device::pipeline"),
    ("plan::nearby", "plan::tuned"),
    ("plan::attend::rows", "plan::attend::tiling"),
    ("plan::select::matrix", "plan::select::tiling"),
    ("plan::attend::columns", "plan::attend::tiling"),
    ("plan::attend::matrix", "plan::attend::tiling"),
    ("plan::attend::staged", "plan::attend::tiling"),
    ("ops::select", "ops::select_operators"),
    // A problem has a method, and the method's functions take the problem.
    ("problem::hip", "problem::select"),
    ("problem::infinite_hip", "problem::select"),
    ("problem::select", "problem::selector"),
    ("problem::attend", "problem::blocks"),
    ("problem::attend", "problem::modify"),
];

/// Wings of one stage that share nothing, so that each can find the others' faults.
const APART: &[&str] = &["cpu::path", "cpu::twins", "cpu::oracle"];

/// A module of a crate: its path, such as `plan::tiling`; empty for the crate itself.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// The paths in the module's code, from the root of the crate.
    paths: BTreeSet<String>,
    /// The paths that its `use` lines give to names.
    names: BTreeMap<String, String>,
}

struct Crate {
    modules: BTreeMap<String, Module>,
}

impl Crate {
    /// The modules of a folder, of which `root` is the crate's own file.
    fn read(folder: &Path, root: &str, apart: &[&str]) -> Self {
        let mut modules = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(at) = folders.pop() {
            for entry in fs::read_dir(&at).unwrap() {
                let file = entry.unwrap().path();
                let inside = file.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                if file.is_dir() && !apart.contains(&inside.as_str()) {
                    folders.push(file);
                } else if file.is_file() && inside.ends_with(".rs") && !apart.contains(&inside.as_str()) {
                    let stem = inside.trim_end_matches(".rs").trim_end_matches("/mod");
                    let path = if inside == root { String::new() } else { stem.replace('/', "::") };
                    let text = code(&fs::read_to_string(&file).unwrap());
                    modules.insert(path.clone(), Module::read(&file, &path, &text));
                }
            }
        }
        Self { modules }
    }

    /// The module that defines the item at a path, followed through re-exports.
    fn home(&self, path: &str, depth: u32) -> Option<String> {
        let mut at = String::new();
        let segments: Vec<&str> = path.split("::").filter(|segment| !segment.is_empty()).collect();
        for (index, segment) in segments.iter().enumerate() {
            let below = join(&at, segment);
            if self.modules.contains_key(&below) {
                at = below;
                continue;
            }
            let module = &self.modules[&at];
            let rest = || segments[index + 1..].join("::");
            if depth == 0 {
                return Some(at);
            }
            if let Some(target) = module.names.get(*segment) {
                return self.home(&join(target, &rest()), depth - 1);
            }
            return Some(at);
        }
        Some(at)
    }

    /// The imports of each module.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<String>> {
        let homes = |(path, module): (&_, &Module)| {
            let homes = module.paths.iter().filter_map(|of| self.home(of, 8)).filter(|home| home != path);
            homes.collect::<BTreeSet<_>>()
        };
        self.modules.iter().map(|(path, module)| (path.as_str(), homes((path, module)))).collect()
    }
}

/// A path below another.
fn join(above: &str, below: &str) -> String {
    match (above, below) {
        ("", path) | (path, "") => path.to_owned(),
        _ => format!("{above}::{below}"),
    }
}

/// A text without comments, strings, and its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let (mut out, mut chars, mut inside) = (String::new(), text.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' if inside => drop(chars.next()),
            '"' => inside = !inside,
            '/' if !inside && chars.peek() == Some(&'/') => {
                chars.by_ref().find(|&c| c == '\n');
                out.push('\n');
            }
            // A quote as a character.
            '\'' if !inside && chars.peek() == Some(&'"') => drop((chars.next(), chars.next())),
            _ if !inside => out.push(c),
            _ => {}
        }
    }
    out
}

/// The paths of a tree `a::{b, c::{self, d as e}}`, each with its name.
fn flatten(tree: &str, above: &str, found: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let whole = if path == "self" { above.to_owned() } else { join(above, path.trim()) };
        let last = whole.rsplit("::").next().unwrap().to_owned();
        found.push((whole, if name.is_empty() { last } else { name.trim().to_owned() }));
        return;
    };
    let above = join(above, tree[..open].trim().trim_end_matches("::"));
    let inner = &tree[open + 1..tree.rfind('}').unwrap()];
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[begin..at].trim().is_empty() {
                    flatten(&inner[begin..at], &above, found);
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

impl Module {
    fn read(file: &Path, path: &str, text: &str) -> Self {
        let mut module = Self { file: file.to_owned(), ..Self::default() };
        let absolute = |of: &str| -> Option<String> {
            let (mut at, mut rest) = (path.to_owned(), of);
            if let Some(rest) = of.strip_prefix("crate::") {
                return Some(rest.to_owned());
            }
            let own = rest.strip_prefix("self::");
            rest = own.unwrap_or(rest);
            let mut above = own.is_some();
            while let Some(next) = rest.strip_prefix("super::") {
                at = at.rsplit_once("::").map_or(String::new(), |(above, _)| above.to_owned());
                (rest, above) = (next, true);
            }
            above.then(|| join(&at, rest))
        };
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        // Modules that the file declares: a `use` may begin with their names.
        let children: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_suffix(';')?.split_once("mod ").map(|(_, name)| name))
            .collect();
        for (at, _) in text.match_indices("use ") {
            if at > 0 && text[..at].ends_with(is_word) {
                continue;
            }
            let tree = &text[at + 4..at + text[at..].find(';').unwrap_or(text.len() - at)];
            let mut found = Vec::new();
            flatten(tree, "", &mut found);
            for (of, name) in found {
                let first = of.split("::").next().unwrap();
                let whole = absolute(&of).or_else(|| children.contains(first).then(|| join(path, &of)));
                if let Some(whole) = whole {
                    module.names.insert(name, whole.clone());
                    module.paths.insert(whole);
                }
            }
        }
        // Paths in the code itself.
        for begin in ["crate::", "super::"] {
            for (at, _) in text.match_indices(begin) {
                if at > 0 && text[..at].ends_with(|c| is_word(c) || c == ':') {
                    continue;
                }
                let end = text[at..].find(|c: char| !is_word(c) && c != ':').map_or(text.len(), |len| at + len);
                if let Some(whole) = absolute(text[at..end].trim_end_matches(':')).filter(|whole| !whole.is_empty()) {
                    module.paths.insert(whole);
                }
            }
        }
        module
    }
}

fn library() -> Crate {
    Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "lib.rs", &["bin"])
}

fn program() -> Crate {
    Crate::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/wattn"), "main.rs", &[])
}

/// The folder or file of the crate's root that a module is in.
fn stage(path: &str) -> &str {
    path.split("::").next().unwrap()
}

/// Imports within a stage do not count, nor do imports of the crate's own file, which names everything.
fn check_stages(krate: &Crate, stages: &[&str], exceptions: &[(&str, &str)]) {
    let rank = |of: &str| stages.iter().position(|&stage| stage == of).unwrap_or_else(|| panic!("{of} is no stage"));
    let mut broken: BTreeMap<(String, String), BTreeSet<&Path>> = BTreeMap::new();
    for (path, homes) in krate.imports() {
        for home in homes {
            let (from, to) = (stage(path), stage(&home));
            if !from.is_empty() && !to.is_empty() && from != to && rank(to) > rank(from) {
                broken.entry((from.to_owned(), to.to_owned())).or_default().insert(&krate.modules[path].file);
            }
        }
    }
    for ((from, to), files) in &broken {
        assert!(exceptions.contains(&(from, to)), "{from} imports {to}, which comes later: {files:?}");
    }
    for &(from, to) in exceptions {
        assert!(
            broken.contains_key(&(from.to_owned(), to.to_owned())),
            "{from} no longer imports {to}: not an exception"
        );
    }
}

#[test]
fn the_library_imports_earlier_stages_only() {
    check_stages(&library(), STAGES, EXCEPTIONS);
}

#[test]
fn the_program_imports_earlier_stages_only() {
    check_stages(&program(), PROGRAM, &[("args", "recall")]);
}

/// Files of one stage that import each other.
fn pairs(krate: &Crate) -> BTreeSet<(String, String)> {
    let imports = krate.imports();
    let is_above = |above: &str, path: &str| path.strip_prefix(above).is_some_and(|rest| rest.starts_with("::"));
    let mut pairs = BTreeSet::new();
    for (&path, homes) in &imports {
        for home in homes.iter().filter(|home| home.as_str() > path && stage(home) == stage(path)) {
            if imports[home.as_str()].contains(path) && !is_above(path, home) {
                pairs.insert((path.to_owned(), home.clone()));
            }
        }
    }
    pairs
}

#[test]
fn files_of_a_stage_do_not_import_each_other() {
    let found: BTreeSet<_> = pairs(&library()).into_iter().chain(pairs(&program())).collect();
    let known = PAIRS.iter().map(|&(one, other)| (one.to_owned(), other.to_owned())).collect();
    assert_eq!(found, known, "left: what is there, right: what is listed");
}

#[test]
fn wings_share_nothing() {
    for (path, homes) in library().imports() {
        let wing = |of: &str| APART.iter().position(|wing| of == *wing || of.starts_with(&format!("{wing}::")));
        for home in homes.iter().filter(|home| wing(home).is_some()) {
            assert!(wing(path).is_none_or(|own| Some(own) == wing(home)), "{path} imports {home}");
        }
    }
}

#[test]
fn the_table_of_the_architecture_has_this_order() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/docs/architecture.md")).unwrap();
    let table = text.split_once("| place | holds |").unwrap().1.split_once("\n\n").unwrap().0;
    let places = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let names = places.flat_map(|cell| cell.split(',')).map(|name| name.trim_matches(['`', ' ']));
    let mut names: Vec<&str> = names.map(|name| name.trim_end_matches(".rs").split('/').next().unwrap()).collect();
    // A folder may have a line for each of its own.
    names.dedup();
    assert_eq!(names, STAGES);
}

/// The reader of imports finds each form of import.
#[test]
fn imports_are_read_as_the_compiler_does() {
    let text = code(
        "use crate::a::{b, c::{self, d as e}}; // use crate::comment;\nlet x = super::f::G::new(\"crate::string\");",
    );
    let module = Module::read(Path::new(""), "x::y", &text);
    let paths: Vec<&str> = module.paths.iter().map(String::as_str).collect();
    assert_eq!(paths, ["a", "a::b", "a::c", "a::c::d", "x::f::G::new"]);
    assert_eq!(module.names["e"], "a::c::d");
    let imports =
        library().imports().iter().map(|(path, of)| (path.to_string(), of.clone())).collect::<BTreeMap<_, _>>();
    // Through `pub use` of the crate and of a folder.
    assert!(imports["ops::attend"].contains("plan::attend"), "{:?}", imports["ops::attend"]);
}
