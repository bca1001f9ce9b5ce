//! Unrolls the loops that a shader marks. Back ends of naga emit no unroll hint and some drivers keep small arrays in
//! memory unless every index is a constant; the text stays valid WGSL and means the same without this pass.

use std::collections::BTreeMap;

/// The markers, at the end of the loop's first line.
const ALWAYS: &str = "{ // unroll";
const IN_REGISTERS: &str = "{ // unroll in registers";

/// Where a device keeps the small arrays of an invocation. GPUs keep them in registers if every index is a constant. Software devices
/// have a stack and a dozen vector registers, and unrolled arrays give their compiler hundreds of live vectors: lavapipe 25.0 took 11 s
/// instead of 3 s for code of the same speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Arrays {
    Registers,
    Memory,
}

/// Replaces every loop `for (var i = 0u; i < BOUND; i++) { // unroll` by its iterations, with the loop variable replaced by its
/// value; loops marked `// unroll in registers` only where small arrays are kept in registers. `BOUND` is a literal or one of
/// `constants`, optionally divided or multiplied by another.
///
/// # Panics
/// On a marked loop of another form: all marked texts are the crate's own, and a test assembles each.
pub(super) fn unroll(source: &str, constants: &BTreeMap<&'static str, u32>, arrays: Arrays) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut out = String::with_capacity(source.len() * 4);
    expand(&lines, constants, arrays, &mut out);
    out
}

fn expand(lines: &[&str], constants: &BTreeMap<&'static str, u32>, arrays: Arrays, out: &mut String) {
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let marked = line.ends_with(ALWAYS) || (line.ends_with(IN_REGISTERS) && arrays == Arrays::Registers);
        if !marked {
            out.push_str(line);
            out.push('\n');
            at += 1;
            continue;
        }
        let header = Header::parse(line, constants);
        let body_end = at + closing_brace(&lines[at..]);
        let mut text = String::new();
        expand(&lines[at + 1..body_end], constants, arrays, &mut text);
        let body = bare(&text);
        // A block is needed only around declarations, which must not repeat. Without one the block would slow down compilation: naga makes
        // two jumps of each.
        let [open, close] = if declares(&body) { ["{\n", "}\n"] } else { [""; 2] };
        for value in header.begin..header.end {
            out.push_str(open);
            replace_identifier(&body, header.variable, &format!("{value}u"), out);
            out.push_str(close);
        }
        at = body_end + 1;
    }
}

/// Removes comments and indentation, since drivers get each unrolled line many times. Marks of loops that stay are kept.
fn bare(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    for line in text.lines().map(str::trim) {
        let code =
            if line.ends_with(IN_REGISTERS) { line } else { line.split("//").next().unwrap_or_default().trim_end() };
        if !code.is_empty() {
            bare.push_str(code);
            bare.push('\n');
        }
    }
    bare
}

/// Whether some line outside all blocks of a text declares a name.
fn declares(text: &str) -> bool {
    let mut depth = 0;
    text.lines().any(|line| {
        let outside = depth == 0;
        depth += line.matches('{').count() as i32 - line.matches('}').count() as i32;
        outside && ["let ", "var ", "const "].iter().any(|keyword| line.starts_with(keyword))
    })
}

/// Index of the line that closes the block opened on the first line. The closing brace of a marked loop is on a line of its own.
fn closing_brace(lines: &[&str]) -> usize {
    let mut depth = 0i32;
    for (index, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        depth += code.matches('{').count() as i32 - code.matches('}').count() as i32;
        if depth == 0 {
            assert_eq!(line.trim(), "}", "an unrolled loop closes on a line of its own");
            return index;
        }
    }
    panic!("an unrolled loop is not closed: {}", lines[0]);
}

struct Header<'a> {
    variable: &'a str,
    begin: u32,
    end: u32,
}

impl<'a> Header<'a> {
    fn parse(line: &'a str, constants: &BTreeMap<&'static str, u32>) -> Self {
        Self::try_parse(line.trim(), constants).unwrap_or_else(|| panic!("cannot unroll this loop: {line}"))
    }

    fn try_parse(line: &'a str, constants: &BTreeMap<&'static str, u32>) -> Option<Self> {
        let (head, _) = line.strip_prefix("for (var ")?.split_once(") { //")?;
        let mut parts = head.split("; ");
        let (variable, begin) = parts.next()?.split_once(" = ")?;
        let (tested, bound) = parts.next()?.split_once(" < ")?;
        let stepped = parts.next()?.strip_suffix("++")?;
        if tested != variable || stepped != variable || parts.next().is_some() {
            return None;
        }
        let literal = |text: &str| text.strip_suffix('u')?.parse::<u32>().ok();
        let value = |text: &str| literal(text).or_else(|| constants.get(text).copied());
        let end = match (bound.split_once(" / "), bound.split_once(" * ")) {
            (Some((dividend, divisor)), _) => value(dividend)? / value(divisor)?,
            (_, Some((a, b))) => value(a)? * value(b)?,
            _ => value(bound)?,
        };
        Some(Self { variable, begin: literal(begin)?, end })
    }
}

/// Copies `text` with whole-word occurrences of `name` replaced, except after a dot (a field of the same name).
fn replace_identifier(text: &str, name: &str, value: &str, out: &mut String) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = text;
    let mut previous = '\n';
    while let Some(found) = rest.find(name) {
        let before = rest[..found].chars().next_back().unwrap_or(previous);
        let after = rest[found + name.len()..].chars().next().unwrap_or('\n');
        out.push_str(&rest[..found]);
        let whole = !is_word(before) && before != '.' && !is_word(after);
        out.push_str(if whole { value } else { name });
        previous = name.chars().next_back().unwrap_or('\n');
        rest = &rest[found + name.len()..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compact(source: &str) -> String {
        unroll(source, &BTreeMap::from([("N", 2), ("M", 8)]), Arrays::Memory)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn nested_loops_become_their_iterations() {
        let source = "for (var r = 0u; r < N; r++) { // unroll\n  for (var c = 1u; c < M / 4u; c++) { // unroll\n    \
                      a[r][c] = x.r + rr;\n  }\n}\n";
        assert_eq!(compact(source), "a[0u][1u] = x.r + rr; a[1u][1u] = x.r + rr;");
    }

    #[test]
    fn what_declares_names_becomes_blocks() {
        let source = "for (var r = 0u; r < N; r++) { // unroll\n  if a {\n let x = r;\n f(x);\n }\n}\nfor (var r = 0u; r < N; r++) \
                      { // unroll\n  let x = r;\n  f(x);\n}\n";
        let expected =
            "if a { let x = 0u; f(x); } if a { let x = 1u; f(x); } { let x = 0u; f(x); } { let x = 1u; f(x); }";
        assert_eq!(compact(source), expected);
    }

    #[test]
    fn bounds_are_products_and_quotients() {
        let source = "for (var i = 2u; i < M / N; i++) { // unroll\nf(i);\n}\nfor (var i = 5u; i < N * 3u; i++) { // unroll\ng(i);\n}\n";
        assert_eq!(compact(source), "f(2u); f(3u); g(5u);");
    }

    #[test]
    fn unmarked_loops_stay() {
        let source = "for (var r = 0u; r < N; r++) {\n f(r);\n}";
        assert_eq!(compact(source), "for (var r = 0u; r < N; r++) { f(r); }");
    }

    #[test]
    fn loops_over_arrays_unroll_where_those_are_registers() {
        let source = "for (var r = 0u; r < N; r++) { // unroll in registers\nf(r);\n}\n";
        assert_eq!(unroll(source, &BTreeMap::from([("N", 2)]), Arrays::Memory), source);
        let unrolled = unroll(source, &BTreeMap::from([("N", 2)]), Arrays::Registers);
        assert_eq!(unrolled.replace('\n', " "), "f(0u); f(1u); ");
    }

    #[test]
    #[should_panic(expected = "cannot unroll")]
    fn an_unknown_bound_is_an_error() {
        compact("for (var r = 0u; r < UNKNOWN; r++) { // unroll\n}");
    }
}
