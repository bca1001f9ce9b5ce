//! JSON as Python writes it: `NaN`, `Infinity` and `-Infinity` are numbers.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::error::{LmError, LmResult};

/// The key of an object that stands for a number that JSON lacks; transformers writes the same.
const FLOAT: &str = "__float__";

/// Parses the object in a file; errors refer to it as `file`.
pub(super) fn object(file: &str, text: &str) -> LmResult<Map<String, Value>> {
    let format = |reason: String| LmError::Format { file: file.to_owned(), reason };
    match serde_json::from_str(&plain(text)).map_err(|error| format(error.to_string()))? {
        Value::Object(object) if !object.contains_key(FLOAT) => Ok(object),
        _ => Err(format("must be a JSON object".to_owned())),
    }
}

/// A value for messages: numbers that JSON lacks by name, a long value shortened.
pub(super) fn shown(value: &Value) -> String {
    const MOST: usize = 80;
    let text = match value.get(FLOAT) {
        Some(Value::String(name)) => name.clone(),
        _ => value.to_string(),
    };
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

/// Whether a value is infinite.
pub(super) fn is_infinite(value: &Value) -> bool {
    value.get(FLOAT).is_some_and(|name| name != "NaN")
}

/// The text, with numbers that JSON lacks or f64 cannot hold replaced by objects.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let len = match next {
            '"' => string_len(rest),
            '-' | '0'..='9' | 'A'..='Z' | 'a'..='z' => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            }
            _ => next.len_utf8(),
        };
        let (word, after) = rest.split_at(len);
        match special(word) {
            // Writing to a String cannot fail.
            Some(name) => _ = write!(plain, "{{\"{FLOAT}\":\"{name}\"}}"),
            None => plain.push_str(word),
        }
        rest = after;
    }
    plain
}

fn special(word: &str) -> Option<&'static str> {
    let number = || word.parse().ok().filter(|_| word.ends_with(|c: char| c.is_ascii_digit()));
    match word {
        "NaN" => Some("NaN"),
        "Infinity" => Some("Infinity"),
        "-Infinity" => Some("-Infinity"),
        _ => match number() {
            Some(f64::INFINITY) => Some("Infinity"),
            Some(f64::NEG_INFINITY) => Some("-Infinity"),
            _ => None,
        },
    }
}

/// Bytes of the string at the beginning of a text, quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_are_read() {
        let text = r#"{"a": [Infinity,-Infinity , NaN, 1e999, -1e999, 1e-999], "Infinity \" NaN": "NaN, é", "b": {"c":Infinity}}"#;
        let object = object("x.json", text).unwrap();
        let shown: Vec<String> = object["a"].as_array().unwrap().iter().map(shown).collect();
        assert_eq!(shown, ["Infinity", "-Infinity", "NaN", "Infinity", "-Infinity", "0.0"]);
        assert_eq!(object["Infinity \" NaN"], "NaN, é");
        assert!(is_infinite(&object["b"]["c"]) && is_infinite(&object["a"][1]) && !is_infinite(&object["a"][2]));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in
            ["", "[]", "3", "Infinity", "{", "{\"a\": Infinit}", "{\"a\": \"Infinity}", "{\"a\": inf}", "{\"a\": nan}"]
        {
            let error = object("x.json", text).unwrap_err();
            assert!(matches!(&error, LmError::Format { file, .. } if file == "x.json"), "{text}: {error}");
        }
    }
}
