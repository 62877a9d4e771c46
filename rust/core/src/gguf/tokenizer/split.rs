//! How texts are split before byte-level BPE: files give a name, Hugging Face has expressions.

use tokenizers::SplitDelimiterBehavior::Isolated;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, Result};

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LETTERS_OF_DEEPSEEK: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\x{1F7D}ᾀ-ᾴᾶ-ᾼ\x{1FBE}ῂ-ῄῆ-ῌῐ-\x{1FD3}ῖ-\x{1FDB}ῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\x{2126}ℨ\x{212A}-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const LETTERS_OF_DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;
const CJK: &str = "[\u{4e00}-\u{9fa5}\u{800}-\u{4e00}\u{ac00}-\u{d7ff}]+";
const DIGIT: &str = r"\p{N}";

/// A way of splitting, with what else the models of that name have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Splitting {
    /// Names in files.
    names: &'static [&'static str],
    /// One expression after the other.
    patterns: &'static [&'static str],
    /// Whether GPT-2's own expression comes after these.
    gpt2: bool,
    /// Whether accents are composed first.
    pub(super) compose: bool,
    /// Whether a word that is a token stays whole, whatever the merges say.
    pub(super) whole_words: bool,
    /// What is around a text unless the file says otherwise.
    pub(super) around: Around,
}

/// Which tokens are put around a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Around {
    Nothing,
    Opening,
    /// Both, in models of BERT's kind; the mask then takes the space before it.
    Both,
}

const PLAIN: Splitting = Splitting {
    names: &[],
    patterns: &[],
    gpt2: false,
    compose: false,
    whole_words: false,
    around: Around::Nothing,
};
const GPT2: Splitting = Splitting { gpt2: true, ..PLAIN };
const ENCODER: Splitting = Splitting { around: Around::Both, ..GPT2 };

const ALL: &[Splitting] = &[
    Splitting { names: &["gpt-2", "default", "phi-2", "mpt"], ..GPT2 },
    Splitting { names: &["olmo"], compose: true, ..GPT2 },
    Splitting {
        names: &[
            "roberta-bpe",
            "jina-v1-en",
            "jina-v2-code",
            "jina-v2-de",
            "jina-v2-es",
            "jina-de",
            "jina-es",
        ],
        ..ENCODER
    },
    Splitting { names: &["modern-bert", "modernbert"], compose: true, ..ENCODER },
    Splitting {
        names: &["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2"],
        patterns: &[QWEN2],
        compose: true,
        ..PLAIN
    },
    Splitting { names: &["qwen35"], patterns: &[QWEN35], compose: true, ..PLAIN },
    Splitting {
        names: &["llama-bpe", "llama3", "llama-v3", "lfm2", "jina-v5-nano"],
        patterns: &[LLAMA3],
        whole_words: true,
        around: Around::Opening,
        ..PLAIN
    },
    Splitting { names: &["smaug-bpe", "dbrx"], patterns: &[LLAMA3], ..PLAIN },
    Splitting { names: &["gpt-4o"], patterns: &[GPT4O], ..PLAIN },
    Splitting {
        names: &["starcoder", "refact", "command-r", "smollm", "codeshell"],
        patterns: &[DIGIT],
        ..GPT2
    },
    Splitting {
        names: &["deepseek-llm"],
        patterns: &[
            r"[\r\n]",
            LETTERS_OF_DEEPSEEK,
            r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
            r"\s+$",
            CJK,
            DIGIT,
        ],
        ..PLAIN
    },
    Splitting {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, DIGIT],
        ..PLAIN
    },
    Splitting {
        names: &["deepseek-v3"],
        patterns: &[
            r"\p{N}{1,3}",
            "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
            LETTERS_OF_DEEPSEEK3,
        ],
        ..PLAIN
    },
];

impl Splitting {
    /// The one of that name.
    pub(super) fn of(name: &str) -> Option<Self> {
        ALL.iter().find(|splitting| splitting.names.contains(&name)).copied()
    }

    /// All names.
    pub(super) fn names() -> Vec<&'static str> {
        ALL.iter().flat_map(|splitting| splitting.names).copied().collect()
    }

    /// As the library does it; with `space`, every text begins with one.
    pub(super) fn pre_tokenizer(self, space: bool) -> Result<PreTokenizerWrapper> {
        let bytes = ByteLevel::new(space, true, self.gpt2);
        if self.patterns.is_empty() {
            return Ok(bytes.into());
        }
        let split = |pattern: &&str| -> Result<PreTokenizerWrapper> {
            Ok(Split::new(SplitPattern::Regex((*pattern).to_owned()), Isolated, false)?.into())
        };
        let splits = self.patterns.iter().map(split);
        let all = splits.chain([Ok(bytes.into())]).collect::<Result<_>>()?;
        Ok(Sequence::new(all).into())
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::*;

    fn split(name: &str, text: &str) -> Vec<String> {
        let mut pieces = PreTokenizedString::from(text);
        let splitting = Splitting::of(name).unwrap();
        splitting.pre_tokenizer(false).unwrap().pre_tokenize(&mut pieces).unwrap();
        pieces
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(_, (start, end), _)| text[start..end].to_owned())
            .collect()
    }

    #[test]
    fn every_name_has_one_splitting_that_works() {
        let mut names = Splitting::names();
        for name in &names {
            assert_eq!(split(name, "two words").len(), 2, "{name}");
            assert_eq!(split(name, "a\n").concat(), "a\n", "{name}");
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(Splitting::of("viking").is_none());
    }

    #[test]
    fn names_differ_in_numbers_words_and_lines() {
        let text = "we'LL 12345 中文ab\n";
        assert_eq!(split("gpt-2", text), ["we", "'", "LL", " 12345", " 中文ab", "\n"]);
        assert_eq!(
            split("qwen2", text),
            ["we", "'LL", " ", "1", "2", "3", "4", "5", " 中文ab", "\n"]
        );
        assert_eq!(split("llama-bpe", text), ["we", "'LL", " ", "123", "45", " 中文ab", "\n"]);
        assert_eq!(
            split("deepseek-llm", text),
            ["we", "'", "LL", " ", "1", "2", "3", "4", "5", " ", "中文", "ab", "\n"]
        );
        assert_eq!(
            split("deepseek-v3", text),
            ["we", "'LL", " ", "123", "45", " ", "中文", "ab", "\n"]
        );
    }
}
