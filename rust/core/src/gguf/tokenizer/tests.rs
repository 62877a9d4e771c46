use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::{any, prop_assert_eq, proptest};
use proptest::sample::select;
use serde::Deserialize;
use tokenizers::Tokenizer;

use super::*;
use crate::fixtures::hf;
use crate::gguf::file::GgufFile;
use crate::gguf::fixtures::{Writer, all_files, gguf};

/// A committed GGUF file of each model, and the Hugging Face folder that it was made from.
const MODELS: [(&str, &str); 10] = [
    ("bert-F16", "bert"),
    ("bert-mean-F16", "bert-mean"),
    ("distilbert-F16", "distilbert"),
    ("gemma3-embedding-F16", "gemma3-embedding"),
    ("modernbert-F16", "modernbert"),
    ("qwen2-F16", "qwen2"),
    ("qwen2-bidir-F16", "qwen2-bidir"),
    ("qwen3-F16", "qwen3"),
    ("roberta-F16", "roberta"),
    ("xlm-roberta-F16", "xlm-roberta"),
];

/// What is easily got wrong.
const HARD: &[&str] = &[
    " ",
    "  ",
    "   leading, and trailing    ",
    "\t\t\ttabs\t",
    "\n\n\n\nlines\r\n\r\n",
    "a\u{0}b\u{1}c\u{7f}d\u{ad}e\u{200b}f\u{feff}",
    "non\u{a0}breaking\u{3000}wide\u{2003}em",
    "▁ ▁▁ a▁b ▁▁▁▁",
    "## ##a a## # #",
    "I'M we'LL 'RE don't 'x ''",
    "1 12 123 1234 12345.67 ٣٤ ½ Ⅳ",
    "İstanbul ıI ẞß ŒœǅǄ ΣΑΣ",
    "e\u{301}\u{302} A\u{30a} \u{1100}\u{1161}\u{11a8} 각 ㄱ \u{212b} \u{1e9b}\u{323}",
    "[MASK]   [MASK]x [MASK] a[MASK]b",
    "a <mask> b  <mask>",
    "[CLS][SEP] [PAD][UNK] [unused0] [PAD434]",
    "<s></s><unk><pad> <s>NOTUSED",
    "<bos><eos><0x0A><unused1>",
    "<|endoftext|><|im_start|>user\n<|im_end|>",
    "|||EMAIL_ADDRESS||| and    four",
    "👩‍👩‍👧‍👦 🇩🇪 ✊🏿 ❤️",
    "क्षि தமிழ் ไทย עברית العربية",
    "\u{fb01}\u{2460}\u{ff21}\u{ff11} ｶﾞ ㌔",
    "x.y,z;(q)[r]{s}<t>«u»“v”—w…",
    "𝔘𝔫𝔦 𐐀 \u{10ffff} \u{e000}",
];

fn of_gguf(path: &Path) -> Tokenizer {
    tokenizer(GgufFile::open(path).unwrap().metadata()).unwrap()
}

fn of_hugging_face(model: &str) -> Tokenizer {
    let mut tokenizer = Tokenizer::from_file(hf(model).join("tokenizer.json")).unwrap();
    tokenizer.with_padding(None).with_truncation(None).unwrap();
    tokenizer
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, true).unwrap().get_ids().to_vec()
}

/// Whether the two must agree: the merges of spaces in the fixture of Gemma are in an order of its own,
/// and the GGUF file does not say that spaces are looked for as they are.
fn comparable(file: &str, text: &str) -> bool {
    let spaces = text.replace(' ', "▁");
    !file.starts_with("gemma3") || !spaces.contains("▁▁▁▁") && !text.contains("▁▁")
}

#[derive(Deserialize)]
struct Expected {
    texts: Vec<String>,
    hf_token_ids: Vec<Vec<u32>>,
}

#[test]
fn ids_are_those_of_hugging_face() {
    for path in all_files() {
        let json = std::fs::read(path.with_extension("json")).unwrap();
        let expected: Expected = serde_json::from_slice(&json).unwrap();
        assert_eq!(expected.texts.len(), 15);
        let tokenizer = of_gguf(&path);
        let closed =
            tokenizer.encode("", true).unwrap().get_special_tokens_mask().last() == Some(&1);
        for (text, expected) in expected.texts.iter().zip(expected.hf_token_ids) {
            let mut found = ids(&tokenizer, text);
            // Expected are those that are left after the cut, which keeps the closing token.
            let excess = found.len().saturating_sub(expected.len());
            assert!(excess == 0 || expected.len() >= 48);
            let end = found.len() - usize::from(closed);
            found.drain(end - excess..end);
            assert_eq!(found, expected, "{}: {text:?}", path.display());
        }
    }
}

#[test]
fn hard_texts_have_the_ids_and_the_decoding_of_hugging_face() {
    let mut wrong = Vec::new();
    for (file, model) in MODELS {
        let (found, expected) = (of_gguf(&gguf(&format!("{file}.gguf"))), of_hugging_face(model));
        for text in HARD.iter().filter(|text| comparable(file, text)) {
            let (a, b) = (ids(&found, text), ids(&expected, text));
            if a != b {
                wrong.push(format!("{file}: {text:?}\n  {a:?}\n  {b:?}"));
            }
            for skip in [false, true] {
                let (a, b) = (found.decode(&b, skip).unwrap(), expected.decode(&b, skip).unwrap());
                if a != b {
                    wrong.push(format!("{file}: {text:?} decoded\n  {a:?}\n  {b:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

proptest! {
    #[test]
    fn any_text_has_the_ids_of_hugging_face(
        parts in vec(select(HARD), 0..3),
        text in ".{0,40}",
        bytes in vec(any::<char>(), 0..20),
    ) {
        thread_local! {
            static BOTH: Vec<(&'static str, Tokenizer, Tokenizer)> = MODELS
                .iter()
                .map(|(file, model)| {
                    (*file, of_gguf(&gguf(&format!("{file}.gguf"))), of_hugging_face(model))
                })
                .collect();
        }
        let text = format!("{}{text}{}", parts.concat(), bytes.iter().collect::<String>());
        let differing = BOTH.with(|both| {
            both.iter()
                .filter(|(file, a, b)| comparable(file, &text) && ids(a, &text) != ids(b, &text))
                .map(|(file, ..)| *file)
                .collect::<Vec<_>>()
        });
        prop_assert_eq!(differing, Vec::<&str>::new(), "{:?}", text);
    }
}

/// The metadata of a tokenizer of that kind, with a few tokens.
fn small(model: &str, tokens: &[&str], kinds: &[i32]) -> Writer {
    Writer::new()
        .string("tokenizer.ggml.model", model)
        .strings("tokenizer.ggml.tokens", tokens)
        .i32s("tokenizer.ggml.token_type", kinds)
}

fn build_from(writer: &Writer) -> Result<Tokenizer> {
    tokenizer(GgufFile::from_bytes(&writer.bytes()).unwrap().metadata())
}

fn reason(writer: &Writer) -> String {
    build_from(writer).map(drop).unwrap_err().to_string()
}

#[test]
fn a_file_may_have_the_tokenizer_of_hugging_face() {
    const KEY: &str = "tokenizer.huggingface.json";
    let json = std::fs::read_to_string(hf("roberta").join("tokenizer.json")).unwrap();
    let found = build_from(&Writer::new().string(KEY, &json)).unwrap();
    assert_eq!(ids(&found, HARD[2]), ids(&of_hugging_face("roberta"), HARD[2]));
    assert!(reason(&Writer::new().string(KEY, "{}")).starts_with("tokenizer: "));
}

#[test]
fn old_files_of_bert_say_little() {
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁Paris", "▁paris", "s", "▁é"];
    let writer = Writer::new()
        .string("tokenizer.ggml.model", "bert")
        .strings("tokenizer.ggml.tokens", &tokens);
    let cased = build_from(&writer).unwrap();
    assert_eq!(ids(&cased, "Paris pariss é"), [2, 5, 6, 7, 8, 3]);
    // Without capital letters in the vocabulary, texts are lower-cased and lose their accents.
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁e", "▁paris", "s", "▁é"];
    let writer = Writer::new()
        .string("tokenizer.ggml.model", "bert")
        .strings("tokenizer.ggml.tokens", &tokens);
    let uncased = build_from(&writer).unwrap();
    assert_eq!(ids(&uncased, "Paris PARISs É"), [2, 6, 6, 7, 5, 3]);
    let kept = writer.flag("tokenizer.ggml.normalizer.strip_accents", false);
    assert_eq!(ids(&build_from(&kept).unwrap(), "É"), [2, 8, 3]);
}

#[test]
fn sentencepiece_written_as_wordpiece_is_refused() {
    let tokens = ["<s>", "<pad>", "</s>", "<unk>", "▁▁le", "▁▁chat", "▁s", "▁ment", "▁▁dort", "▁▁"];
    let camembert = small("bert", &tokens, &[3, 3, 3, 2, 1, 1, 1, 1, 1, 1])
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .u32("tokenizer.ggml.unknown_token_id", 3);
    assert!(reason(&camembert).contains("tokenizer.json beside"), "{}", reason(&camembert));
    // The mark as one character of WordPiece's.
    let mut tokens = vec!["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁▁"];
    tokens.extend(["▁a", "▁b", "▁c", "▁d", "▁e", "▁f"]);
    let bert = small("bert", &tokens, &[3, 3, 3, 3, 1, 1, 1, 1, 1, 1, 1]);
    assert_eq!(ids(&build_from(&bert).unwrap(), "a ▁"), [2, 5, 4, 3]);
}

#[test]
fn flags_and_ids_decide_what_is_around_a_text() {
    let bare = || {
        small("gpt2", &["<s>", "</s>", "a", "b", "ab"], &[3, 3, 1, 1, 1])
            .strings("tokenizer.ggml.merges", &["a b"])
            .string("tokenizer.ggml.pre", "gpt-2")
    };
    let whole =
        || bare().u32("tokenizer.ggml.bos_token_id", 0).u32("tokenizer.ggml.eos_token_id", 1);
    let encoded = |writer: &Writer| ids(&build_from(writer).unwrap(), "aba");
    let (bos, eos) = ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token");
    assert_eq!(encoded(&whole()), [4, 2]);
    assert_eq!(encoded(&whole().flag(bos, true)), [0, 4, 2]);
    assert_eq!(encoded(&whole().flag(eos, true)), [4, 2, 1]);
    assert_eq!(encoded(&whole().flag(bos, true).flag(eos, true)), [0, 4, 2, 1]);
    assert!(reason(&bare().flag(eos, true)).contains(eos));
    let outside = bare().u32("tokenizer.ggml.eos_token_id", 5).flag(eos, true);
    assert!(reason(&outside).contains(eos));
}

#[test]
fn a_mask_is_found_by_its_text() {
    let writer = small("gpt2", &["<s>", "</s>", "<mask>", "a", "Ġ"], &[3, 3, 3, 1, 1])
        .strings("tokenizer.ggml.merges", &[])
        .string("tokenizer.ggml.pre", "roberta-bpe")
        .u32("tokenizer.ggml.bos_token_id", 0)
        .u32("tokenizer.ggml.eos_token_id", 1);
    assert_eq!(ids(&build_from(&writer).unwrap(), "a <mask> a"), [0, 3, 2, 4, 3, 1]);
}

#[test]
fn models_of_llama_begin_with_a_space() {
    let tokens = ["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "▁a", "ab", "▁ab", "x  y"];
    let kinds = [2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 4];
    let scores = [0.0, 0.0, 0.0, 0.0, -9.0, -8.0, -7.0, -3.0, -2.0, -1.0, -1000.0];
    let writer = small("llama", &tokens, &kinds)
        .f32s("tokenizer.ggml.scores", &scores)
        .u32("tokenizer.ggml.bos_token_id", 1);
    let llama = build_from(&writer).unwrap();
    assert_eq!(ids(&llama, "ab aA"), [1, 9, 7, 3]);
    assert_eq!(llama.decode(&[1, 9, 7, 3], true).unwrap(), "ab aA");
    assert_eq!(ids(&llama, "c"), [1, 4, 0]);
    let gemma = build_from(&writer.flag("tokenizer.ggml.add_space_prefix", false)).unwrap();
    assert_eq!(ids(&gemma, "ab ab"), [1, 8, 9]);
}

#[test]
fn a_long_token_costs_no_time() {
    let long = "a".repeat(1 << 20);
    let writer = small("llama", &["<unk>", "a", &long], &[2, 1, 1])
        .f32s("tokenizer.ggml.scores", &[0.0; 3])
        .flag("tokenizer.ggml.add_space_prefix", false)
        .flag("tokenizer.ggml.add_bos_token", false);
    assert_eq!(ids(&build_from(&writer).unwrap(), "aa"), [1, 1]);
}

#[test]
fn damaged_vocabularies_are_refused() {
    let model = |model| small(model, &["a", "b", "c"], &[1, 1, 1]);
    let merges = |merges: &[&str]| model("gpt2").strings("tokenizer.ggml.merges", merges);
    let kinds = |model| small(model, &["a", "b", "c"], &[1]);
    for (writer, expected) in [
        (Writer::new(), "no vocabulary"),
        (small("bert", &[], &[]), "no vocabulary"),
        (model("rwkv"), "\"rwkv\""),
        (model("bert"), "no unknown token"),
        (kinds("bert"), "are 1 for 3 tokens"),
        (model("gpt2"), "tokenizer.ggml.merges"),
        (merges(&["ab"]), "have \"ab\""),
        (merges(&["a d"]), "out of vocabulary"),
        (merges(&["a aaaaaaaaaaaaaaaaaaaa"]), "out of vocabulary"),
        // The library panics on this one.
        (merges(&["a b"]), "damaged"),
        (merges(&[]).string("tokenizer.ggml.pre", "viking"), "\"viking\""),
        (model("llama"), "tokenizer.ggml.scores"),
        (model("t5").f32s("tokenizer.ggml.scores", &[0.0]), "are 1 for 3 tokens"),
        (model("t5").f32s("tokenizer.ggml.scores", &[f32::NAN; 3]), "not all numbers"),
        (
            model("t5").f32s("tokenizer.ggml.scores", &[0.0; 3]).array(
                "tokenizer.ggml.precompiled_charsmap",
                0,
                3,
                &[0xff; 3],
            ),
            "tokenizer",
        ),
    ] {
        let reason = reason(&writer);
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
}
