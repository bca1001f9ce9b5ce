//! Names in WGSL: those that a text declares at its top level, and the same text under other names.

use std::collections::BTreeMap;

/// Names and what replaces them.
pub(super) type Names = BTreeMap<String, String>;

/// Words, and single characters between them; comments are left out.
fn tokens(wgsl: &str) -> impl Iterator<Item = &str> {
    let mut rest = wgsl;
    core::iter::from_fn(move || {
        loop {
            rest = rest.trim_start();
            if rest.starts_with("//") {
                rest = rest.split_once('\n').map_or("", |(_, after)| after);
            } else if rest.starts_with("/*") {
                rest = after_block_comment(rest);
            } else {
                break;
            }
        }
        let first = rest.chars().next()?;
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (token, after) = rest.split_at(if word == 0 { first.len_utf8() } else { word });
        rest = after;
        Some(token)
    })
}

/// What follows a comment `/* */`, which may hold others.
fn after_block_comment(text: &str) -> &str {
    let mut depth = 0;
    let mut rest = text;
    loop {
        let Some(at) = rest.find("/*").into_iter().chain(rest.find("*/")).min() else { return "" };
        depth += if rest[at..].starts_with("/*") { 1 } else { -1 };
        rest = &rest[at + 2..];
        if depth == 0 {
            return rest;
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names that a text declares outside of functions and structs.
pub(super) fn declared(wgsl: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut depth = 0i32;
    let mut all = tokens(wgsl);
    while let Some(token) = all.next() {
        match token {
            "{" => depth += 1,
            "}" => depth -= 1,
            "fn" | "struct" | "alias" | "const" | "override" if depth == 0 => found.extend(all.next()),
            "var" if depth == 0 => {
                let mut next = all.next();
                if next == Some("<") {
                    all.by_ref().find(|&token| token == ">");
                    next = all.next();
                }
                found.extend(next);
            }
            _ => {}
        }
    }
    found
}

/// A name of a module that is taken for a tensor: `widen` is `widen_k`, `Elem4` is `KElem4`, `TABLE` is `TABLE_K`.
pub(super) fn name_for(name: &str, tensor: &str) -> String {
    let is_constant = !name.contains(char::is_lowercase);
    if is_constant {
        return format!("{name}_{}", tensor.to_uppercase());
    }
    if !name.starts_with(char::is_uppercase) {
        return format!("{name}_{tensor}");
    }
    let mut letters = tensor.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}{name}", letters.as_str())
}

/// `text` with whole words replaced, except after a dot (a field of the same name).
pub(super) fn renamed(text: &str, names: &Names) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut rest = text;
    let mut previous = '\n';
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let name = names.get(word).filter(|_| previous != '.');
        out.push_str(name.map_or(word, String::as_str));
        previous = word.chars().next_back().unwrap_or(previous);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_found_outside_of_blocks() {
        let text = "
            // fn of_a_comment() {}
            /* const IN = 1; /* fn inner() */ const STILL = 2; */
            alias Elem4 = vec2<u32>; struct Place { const_of: u32, fn_at: u32, }
            const WIDTH = 4u; override SCALE: f32;
            @group(0) @binding(TABLE_BINDING) var<storage, read> table: array<f32>;
            var<private> kept: array<vec4<f32>, 4>; var<workgroup>shared_sums: f32;
            @must_use fn widen(elem: Elem4) -> vec4<f32> { var local = 1; const INNER = 2; return table[0]; }
            fn last() {}";
        let expected = ["Elem4", "Place", "WIDTH", "SCALE", "table", "kept", "shared_sums", "widen", "last"];
        assert_eq!(declared(text), expected);
        assert_eq!(declared("/* never ends"), [""; 0]);
        assert_eq!(declared("fn"), [""; 0]);
    }

    #[test]
    fn names_follow_the_case_of_their_kind() {
        let of = |name| name_for(name, "k");
        assert_eq!([of("widen"), of("Elem4"), of("TABLE_4"), of("x")], ["widen_k", "KElem4", "TABLE_4_K", "x_k"]);
        assert_eq!([name_for("widen", "summary"), name_for("Elem4", "summary")], ["widen_summary", "SummaryElem4"]);
    }

    #[test]
    fn whole_words_are_renamed_and_fields_are_not() {
        let names = Names::from([("a".to_owned(), "b".to_owned()), ("b".to_owned(), "c".to_owned())]);
        assert_eq!(renamed("a + b.a * aa - a_b(a)\u{e4} a.x", &names), "b + c.a * aa - a_b(b)\u{e4} b.x");
    }
}
