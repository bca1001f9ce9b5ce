//! Text that arrives token by token: the pieces together are the text of all tokens, however spaces are marked.

use proptest::prelude::*;
use serde_json::{Value, json};
use wattn::lm::{LmError, TextStream, TextTokenizer};

/// The tokenizer of the small model: pieces of bytes.
fn bytes() -> TextTokenizer {
    TextTokenizer::from_json(include_str!("../examples/llm/model/tokenizer.json")).unwrap()
}

const WORDS: [&str; 8] = ["▁", "▁hello", "▁world", "ing", ".", "\u{4e2d}", "▁é", "▁▁"];
const FIRST_BYTE: u32 = 3;
const FIRST_WORD: u32 = FIRST_BYTE + 256;

/// The form of Llama 2, Mistral and TinyLlama: words begin with their space, and bytes stand for text without a word.
fn sentence_pieces(decoder: &Value) -> String {
    let mut names = vec!["<unk>".to_owned(), "<s>".to_owned(), "</s>".to_owned()];
    names.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    names.extend(WORDS.map(str::to_owned));
    let vocab: serde_json::Map<String, Value> =
        names.into_iter().zip(0u32..).map(|(name, id)| (name, id.into())).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true})
    };
    let model = json!({"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false, "vocab": vocab, "merges": []});
    let all = json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(1, "<s>"), special(2, "</s>")], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": decoder, "model": model});
    all.to_string()
}

fn stripped_json() -> String {
    sentence_pieces(&json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}))
}

fn stripped() -> TextTokenizer {
    TextTokenizer::from_json(&stripped_json()).unwrap()
}

fn metaspace() -> TextTokenizer {
    let json =
        sentence_pieces(&json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}));
    TextTokenizer::from_json(&json).unwrap()
}

/// The text of a stream, and its pieces.
fn streamed(mut stream: TextStream<'_>, tokens: &[u32]) -> (String, Vec<String>) {
    let mut pieces: Vec<String> = tokens.iter().map(|&token| stream.push(token).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    (pieces.concat(), pieces)
}

#[test]
fn words_keep_the_space_before_them() {
    let [hello, world, ing] = [1, 2, 3].map(|at| FIRST_WORD + at);
    for tokenizer in [stripped(), metaspace()] {
        let tokens = [hello, world, world, ing, 1, world];
        let (text, pieces) = streamed(TextStream::new(&tokenizer), &tokens);
        assert_eq!(pieces, ["hello", " world", " world", "ing", "", " world", ""]);
        assert_eq!(text, tokenizer.decode(&tokens).unwrap());
        // After a prompt the first word has its space too, whatever special tokens the prompt has.
        for prompt in [&[1, hello][..], &[hello], &[hello, 2], &[1, hello, 2, 2]] {
            let stream = TextStream::after(&tokenizer, prompt).unwrap();
            assert_eq!(streamed(stream, &[world, ing]).0, " worlding", "{prompt:?}");
        }
        for nothing in [&[][..], &[1], &[1, 2]] {
            let stream = TextStream::after(&tokenizer, nothing).unwrap();
            assert_eq!(streamed(stream, &[world, world]).0, "world world", "{nothing:?}");
        }
    }
}

#[test]
fn half_characters_are_shown_at_the_end() {
    let byte = |byte: u8| FIRST_BYTE + u32::from(byte);
    let tokenizer = stripped();
    let hello = FIRST_WORD + 1;
    // A character appears as soon as its bytes are complete, one after another.
    let tokens: Vec<u32> = [hello].into_iter().chain("中é🦀".bytes().map(byte)).collect();
    let (text, pieces) = streamed(TextStream::new(&tokenizer), &tokens);
    assert_eq!(text, "hello中é🦀");
    assert_eq!(pieces, ["hello", "", "", "中", "", "é", "", "", "", "🦀", ""]);
    // A character that is cut off, and one that continues with a wrong byte.
    let (text, _) = streamed(TextStream::new(&tokenizer), &[hello, byte(0xe4), byte(0xb8)]);
    assert_eq!(text, "hello\u{fffd}\u{fffd}");
    let (text, _) = streamed(TextStream::new(&tokenizer), &[hello, byte(0xe4), hello]);
    assert_eq!(text, "hello\u{fffd} hello");
    // Invalid bytes are shown before the end.
    let (_, pieces) = streamed(TextStream::new(&tokenizer), &[byte(0xff); 40]);
    assert!(pieces[..39].concat().chars().count() > 20, "{pieces:?}");
    // Returned text is not taken back where a later byte makes all of it invalid.
    let tokens: Vec<u32> = "中".bytes().map(byte).chain([byte(0xff), hello]).collect();
    assert_eq!(streamed(TextStream::new(&tokenizer), &tokens).0, "中\u{fffd} hello");
    let tokenizer = bytes();
    let crab = tokenizer.encode("a 🦀").unwrap();
    let (text, _) = streamed(TextStream::new(&tokenizer), &crab);
    assert_eq!(text, "a 🦀");
    let (text, _) = streamed(TextStream::new(&tokenizer), &crab[..crab.len() - 1]);
    assert_eq!(text, "a \u{fffd}");
}

/// Settings of a training run say nothing about a prompt.
#[test]
fn truncation_and_padding_are_not_obeyed() {
    let mut json: Value = serde_json::from_str(include_str!("../examples/llm/model/tokenizer.json")).unwrap();
    json["truncation"] = json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 100}, "direction": "Left", "pad_to_multiple_of": 8, "pad_id": 1,
        "pad_type_id": 0, "pad_token": "!"});
    let (plain, changed) = (bytes(), TextTokenizer::from_json(&json.to_string()).unwrap());
    for text in ["", "# A trait", "A trait tells the Rust compiler about functionality a particular type has"] {
        assert_eq!(changed.encode(text).unwrap(), plain.encode(text).unwrap());
        assert_eq!(changed.encode_prompt(text).unwrap(), plain.encode_prompt(text).unwrap());
        assert_eq!(changed.encode_with_ends(text).unwrap(), plain.encode_with_ends(text).unwrap());
    }
}

/// A file that refers to a missing part is an error that names the part, wherever that shows.
#[test]
fn contradictions_are_errors() {
    let mut json: Value = serde_json::from_str(&stripped_json()).unwrap();
    json["post_processor"] = json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [1],
        "tokens": ["<s>"]}}, "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]});
    let encode = |json: &Value| TextTokenizer::from_json(&json.to_string()).and_then(|t| t.encode_prompt("a"));
    assert_eq!(encode(&json).unwrap()[0], 1);
    for changed in [
        json!({}),
        json!({"<s>": {"id": "x", "ids": [], "tokens": []}}),
        json!({"": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}),
    ] {
        json["post_processor"]["special_tokens"] = changed;
        assert!(
            encode(&json).is_ok_and(|tokens| tokens[0] != 1) || matches!(encode(&json), Err(LmError::Tokenizer(_)))
        );
    }
    for text in ["", "{", "[1]", "{\"version\": \u{0}}"] {
        assert!(matches!(TextTokenizer::from_json(text), Err(LmError::Tokenizer(_))), "{text:?}");
    }
}

/// The bytes of a token, and the tokens.
fn piece() -> impl Strategy<Value = Vec<u32>> {
    let characters = prop::sample::select(vec!["中", "é", "🦀", "a"]);
    prop_oneof![
        8 => (0..WORDS.len() as u32).prop_map(|word| vec![FIRST_WORD + word]),
        2 => characters.prop_map(|text| text.bytes().map(|byte| FIRST_BYTE + u32::from(byte)).collect()),
        1 => Just(vec![2]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Any change of a few bytes: an error, or a tokenizer that reads and writes; never a panic.
    #[test]
    fn broken_tokenizers_never_panic(at in any::<prop::sample::Index>(), bytes: [u8; 3], len in 0..4usize, fresh: bool) {
        let mut text = if fresh {
            stripped_json().into_bytes()
        } else {
            include_bytes!("golden/lm/qwen3_f16/tokenizer.json").to_vec()
        };
        let at = at.index(text.len());
        text.splice(at..(at + len).min(text.len()), bytes[..len.min(3)].iter().copied());
        if let Ok(text) = String::from_utf8(text) && let Ok(tokenizer) = TextTokenizer::from_json(&text) {
            let tokens = tokenizer.encode_prompt("hello world t5 中").unwrap_or_default();
            let mut stream = TextStream::after(&tokenizer, &tokens).unwrap();
            for token in tokens.into_iter().chain([0, 1, 5, 300, u32::MAX]) {
                let _ = stream.push(token);
            }
            let _ = stream.finish();
        }
    }

    #[test]
    fn pieces_are_the_text_of_bytes(tokens in prop::collection::vec(1..2048u32, 0..40), split: prop::sample::Index) {
        let tokenizer = bytes();
        let whole = tokenizer.decode(&tokens).unwrap();
        prop_assert_eq!(streamed(TextStream::new(&tokenizer), &tokens).0, &whole[..]);
        let (prompt, rest) = tokens.split_at(split.index(tokens.len() + 1));
        let before = tokenizer.decode(prompt).unwrap();
        if !before.ends_with(char::REPLACEMENT_CHARACTER) {
            let after = streamed(TextStream::after(&tokenizer, prompt).unwrap(), rest).0;
            prop_assert_eq!(before + &after, whole);
        }
    }

    #[test]
    fn pieces_are_the_text_of_words(pieces in prop::collection::vec(piece(), 0..30), split: prop::sample::Index) {
        let tokenizer = stripped();
        let tokens = pieces.concat();
        let whole = tokenizer.decode(&tokens).unwrap();
        prop_assert_eq!(streamed(TextStream::new(&tokenizer), &tokens).0, &whole[..]);
        let (prompt, rest) = pieces.split_at(split.index(pieces.len() + 1));
        let before = tokenizer.decode(&prompt.concat()).unwrap();
        // After a prompt without any text the text begins.
        if !before.is_empty() {
            let after = streamed(TextStream::after(&tokenizer, &prompt.concat()).unwrap(), &rest.concat()).0;
            prop_assert_eq!(before + &after, whole);
        }
    }
}
