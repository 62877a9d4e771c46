//! From a text to token ids.
//!
//! The work is Hugging Face's `tokenizers`. What is decided here is the length: the padding and the
//! truncation that a `tokenizer.json` bakes in (128 for all-MiniLM-L6-v2, whose own limit is 256) are
//! switched off, texts are cut to the limit of the model as Hugging Face does, and the length before
//! the cut is kept, so that nothing is cut in silence.

mod spans;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tokenizers::{Encoding, TruncationDirection};

use crate::error::{Error, Result};
use crate::open::TokenizerSource;

pub use spans::Token;

/// A text as the model reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, special tokens included, no more than the model's limit.
    pub ids: Vec<u32>,
    /// Segment of each token; all 0 for most models.
    pub type_ids: Vec<u32>,
    /// Number of tokens before truncation, special tokens included.
    pub full_length: usize,
}

impl Tokens {
    /// Whether the text was longer than the limit and was cut.
    pub fn truncated(&self) -> bool {
        self.ids.len() < self.full_length
    }
}

/// A model's tokenizer with the model's own limits.
pub(crate) struct Tokenizer {
    inner: tokenizers::Tokenizer,
    direction: TruncationDirection,
    lower_case: bool,
    vocab_size: usize,
    limit: usize,
}

/// Reads a `tokenizer.json`.
fn read(path: &Path) -> Result<tokenizers::Tokenizer> {
    let json = std::fs::read(path).map_err(Error::io(path))?;
    let invalid = |reason| Error::Tokenizer { reason: format!("{}: {reason}", path.display()) };
    // First of all, because `tokenizers` panics on some of what is no JSON.
    serde_json::from_slice::<serde::de::IgnoredAny>(&json).map_err(|e| invalid(e.to_string()))?;
    guarded(|| tokenizers::Tokenizer::from_bytes(&json)).map_err(invalid)
}

impl Tokenizer {
    /// Ids are below `vocab_size`, texts are cut to `limit` tokens and lower-cased beforehand where
    /// `lower_case` says so.
    pub(crate) fn open(
        source: TokenizerSource,
        vocab_size: usize,
        limit: usize,
        lower_case: bool,
    ) -> Result<Self> {
        let (mut inner, origin) = match source {
            TokenizerSource::File(path) => (read(&path)?, path.display().to_string()),
            TokenizerSource::Built(built) => (*built, "the vocabulary".to_owned()),
        };
        let invalid = |reason| Error::Tokenizer { reason: format!("{origin}: {reason}") };
        let direction =
            inner.get_truncation().map_or(TruncationDirection::Right, |baked| baked.direction);
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| invalid(e.to_string()))?;
        let tokenizer = Self { inner, direction, lower_case, vocab_size, limit };
        let special = tokenizer.special_tokens()?;
        if special > limit {
            return Err(Error::argument(
                "max_seq_length",
                format!("is {limit}, the tokenizer's special tokens alone are {special}"),
            ));
        }
        Ok(tokenizer)
    }

    /// Longest input in tokens, special tokens included.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The tokens of `prompt` followed by `text`; `index` is the text's position, for errors.
    pub(crate) fn encode(&self, prompt: &str, text: &str, index: usize) -> Result<Tokens> {
        let encoding = if prompt.is_empty() {
            self.encoding(text)
        } else {
            self.encoding(&[prompt, text].concat())
        }
        .map_err(|reason| Error::Tokenizer { reason: format!("text {index}: {reason}") })?;
        let full_length = encoding.len();
        let (ids, type_ids) = self.truncate(&encoding);
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            return Err(Error::Tokenizer {
                reason: format!(
                    "text {index} has the token {id}, the model knows tokens below {}; \
                     the tokenizer does not belong to the model",
                    self.vocab_size
                ),
            });
        }
        Ok(Tokens { ids, type_ids, full_length })
    }

    /// Tokens of a prompt that stand before the text, special tokens included.
    pub(crate) fn prompt_length(&self, prompt: &str) -> Result<usize> {
        if prompt.is_empty() {
            return Ok(0);
        }
        let encoding = self
            .encoding(prompt)
            .map_err(|reason| Error::Tokenizer { reason: format!("prompt: {reason}") })?;
        // As in sentence-transformers, the one closing token does not stand before the text.
        let closed = encoding.get_special_tokens_mask().last() == Some(&1);
        Ok(encoding.len() - usize::from(closed))
    }

    /// The text that token ids stand for.
    pub(crate) fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        guarded(|| self.inner.decode(ids, skip_special_tokens))
            .map_err(|reason| Error::Tokenizer { reason })
    }

    fn encoding(&self, text: &str) -> Result<Encoding, String> {
        // Without offsets into the text, which cost time.
        if self.lower_case {
            let text = text.to_lowercase();
            guarded(|| self.inner.encode_fast(text.as_str(), true))
        } else {
            guarded(|| self.inner.encode_fast(text, true))
        }
    }

    /// Cuts the text and keeps the special tokens around it, as Hugging Face does.
    fn truncate(&self, encoding: &Encoding) -> (Vec<u32>, Vec<u32>) {
        let (ids, type_ids) = (encoding.get_ids(), encoding.get_type_ids());
        let excess = ids.len().saturating_sub(self.limit);
        if excess == 0 {
            return (ids.to_vec(), type_ids.to_vec());
        }
        let special = encoding.get_special_tokens_mask();
        let leading = special.iter().take_while(|&&special| special == 1).count();
        let trailing = special.iter().rev().take_while(|&&special| special == 1).count();
        let cut = match self.direction {
            TruncationDirection::Right => ids.len() - trailing - excess..ids.len() - trailing,
            TruncationDirection::Left => leading..leading + excess,
        };
        let keep = |values: &[u32]| [&values[..cut.start], &values[cut.end..]].concat();
        (keep(ids), keep(type_ids))
    }

    /// How many special tokens surround a text.
    fn special_tokens(&self) -> Result<usize> {
        let encoding = self.encoding("").map_err(|reason| Error::Tokenizer { reason })?;
        Ok(encoding.get_special_tokens_mask().iter().filter(|&&special| special == 1).count())
    }
}

/// Calls into `tokenizers`, which panics on some inputs that its own files can hold.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the tokenizer failed on this input".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::*;

    fn data(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(path)
    }

    #[derive(Deserialize)]
    struct Expected {
        texts: Vec<String>,
        max_seq_length: usize,
        input_ids: Vec<Vec<u32>>,
        untruncated_lengths: Vec<usize>,
    }

    fn expected(model: &str) -> Expected {
        let json = std::fs::read(data(&format!("hf/{model}/texts.json"))).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn open(model: &str, limit: usize) -> Tokenizer {
        let path = data(&format!("hf/{model}/tokenizer.json"));
        Tokenizer::open(TokenizerSource::File(path.clone()), 1 << 24, limit, false).unwrap()
    }

    #[test]
    fn ids_are_those_of_hugging_face() {
        for model in ["bert", "bert-mean"] {
            let expected = expected(model);
            let tokenizer = open(model, expected.max_seq_length);
            for (i, text) in expected.texts.iter().enumerate() {
                let tokens = tokenizer.encode("", text, i).unwrap();
                assert_eq!(tokens.ids, expected.input_ids[i], "{model}, text {i}");
                assert_eq!(tokens.type_ids, vec![0; tokens.ids.len()]);
                assert_eq!(tokens.full_length, expected.untruncated_lengths[i]);
                assert_eq!(tokens.truncated(), tokens.full_length > expected.max_seq_length);
            }
        }
    }

    #[test]
    fn a_prompt_is_put_before_the_text() {
        let tokenizer = open("bert", 48);
        let joined = tokenizer.encode("", "Hello world", 0).unwrap();
        assert_eq!(tokenizer.encode("Hello ", "world", 0).unwrap(), joined);
        let text_and_closing = tokenizer.encode("", "world", 0).unwrap().ids.len() - 1;
        assert_eq!(tokenizer.prompt_length("Hello ").unwrap(), joined.ids.len() - text_and_closing);
        assert_eq!(tokenizer.prompt_length("").unwrap(), 0);
    }

    #[test]
    fn a_cut_keeps_the_special_tokens() {
        let full = open("bert", 48).encode("", "one two three four five six", 0).unwrap().ids;
        let cut = open("bert", 4).encode("", "one two three four five six", 0).unwrap();
        assert_eq!(cut.ids, [&full[..3], &full[full.len() - 1..]].concat());
        assert_eq!(cut.full_length, full.len());
    }

    #[test]
    fn lower_case_is_applied_before_tokenization() {
        let path = data("hf/bert-mean/tokenizer.json");
        let lower =
            Tokenizer::open(TokenizerSource::File(path.clone()), 1 << 24, 48, true).unwrap();
        let cased = open("bert-mean", 48);
        assert_eq!(
            lower.encode("", "UPPER Lower", 0).unwrap(),
            cased.encode("", "upper lower", 0).unwrap()
        );
    }

    #[test]
    fn a_token_outside_the_table_is_an_error_where_it_occurs() {
        let path = data("hf/bert/tokenizer.json");
        let known = open("bert", 48).encode("", "Hello world", 0).unwrap().ids;
        let largest = known.iter().max().unwrap();
        let tokenizer =
            Tokenizer::open(TokenizerSource::File(path.clone()), *largest as usize, 48, false)
                .unwrap();
        assert!(tokenizer.encode("", "", 0).is_ok());
        let error = tokenizer.encode("", "Hello world", 7).unwrap_err();
        assert_eq!(error.code(), "tokenizer");
        assert!(error.to_string().contains("text 7"), "{error}");
    }

    #[test]
    fn decoding_gives_the_text_back() {
        let tokenizer = open("bert", 48);
        let ids = tokenizer.encode("", "hello world", 0).unwrap().ids;
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), "hello world");
        assert_ne!(tokenizer.decode(&ids, false).unwrap(), "hello world");
        assert!(tokenizer.decode(&[u32::MAX], false).is_ok());
    }

    #[test]
    fn what_is_not_a_tokenizer_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("tokenizer.json");
        let open = || {
            Tokenizer::open(TokenizerSource::File(missing.clone()), 10, 10, false)
                .map(drop)
                .unwrap_err()
        };
        assert_eq!(open().code(), "io");
        for bad in ["", "{}", "[1, 2]", "{\"version\": \"1.0\", \"model\": {\"type\": \"X\"}}"] {
            std::fs::write(&missing, bad).unwrap();
            assert_eq!(open().code(), "tokenizer", "{bad}");
        }
    }
}
