//! Where the tokens of a text stand in it.

use std::ops::Range;

use tokenizers::Encoding;

use super::{Tokenizer, guarded};
use crate::error::{Error, Result};

/// A token of a text, and where it stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its number in the vocabulary.
    pub id: u32,
    /// The part of the text that it stands for; of one that the tokenizer adds, such as `[CLS]`, its name.
    pub text: String,
    /// That part in bytes, a prompt counted in; `None` of one that the tokenizer adds.
    pub span: Option<Range<usize>>,
}

impl Tokenizer {
    /// All tokens of `prompt` followed by `text`, however many; `index` is the text's position, for errors.
    pub(crate) fn spans(
        &self,
        prompt: &str,
        text: &str,
        add_special_tokens: bool,
        index: usize,
    ) -> Result<Vec<Token>> {
        let whole = [prompt, text].concat();
        let encoding = if self.lower_case {
            let lower = whole.to_lowercase();
            guarded(|| self.inner.encode(lower.as_str(), add_special_tokens))
        } else {
            guarded(|| self.inner.encode(whole.as_str(), add_special_tokens))
        }
        .map_err(|reason| Error::Tokenizer { reason: format!("text {index}: {reason}") })?;
        let origins = if self.lower_case { origins(&whole) } else { None };
        Ok(tokens(&encoding, &whole, origins.as_deref()))
    }
}

fn tokens(encoding: &Encoding, whole: &str, origins: Option<&[Range<usize>]>) -> Vec<Token> {
    let ids = encoding.get_ids().iter().zip(encoding.get_tokens());
    let places = encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask());
    ids.zip(places)
        .map(|((&id, name), (&(start, stop), &special))| {
            if special == 1 {
                return Token { id, text: name.clone(), span: None };
            }
            let span = match origins {
                Some(origins) => original(origins, start..stop),
                None => start..stop,
            };
            // A token may be a part of a character.
            let bytes = whole.as_bytes().get(span.clone()).unwrap_or_default();
            Token { id, text: String::from_utf8_lossy(bytes).into_owned(), span: Some(span) }
        })
        .collect()
}

/// For each byte of a text in small letters the character of the text that it comes from, if one has another length
/// there.
fn origins(text: &str) -> Option<Vec<Range<usize>>> {
    let length = |character: char| character.to_lowercase().map(char::len_utf8).sum::<usize>();
    if text.chars().all(|character| length(character) == character.len_utf8()) {
        return None;
    }
    let of_character = |(start, character): (usize, char)| {
        let origin = start..start + character.len_utf8();
        std::iter::repeat_n(origin, length(character))
    };
    Some(text.char_indices().flat_map(of_character).collect())
}

/// The part of the text that a part of it in small letters comes from.
fn original(origins: &[Range<usize>], span: Range<usize>) -> Range<usize> {
    let end = origins.last().map_or(0, |last| last.end);
    let start = origins.get(span.start).map_or(end, |origin| origin.start);
    let last = span.end.checked_sub(1).filter(|_| !span.is_empty());
    let stop = last.and_then(|last| origins.get(last)).map_or(start, |origin| origin.end);
    start..stop
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::open::TokenizerSource;

    fn open(model: &str, lower_case: bool) -> Tokenizer {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/hf");
        let path: PathBuf = data.join(model).join("tokenizer.json");
        Tokenizer::open(TokenizerSource::File(path), 1 << 24, 8, lower_case).unwrap()
    }

    const TEXTS: [&str; 5] = [
        "the cat sleeps on the mat, and then it sleeps on",
        "Zürich: 12 °C, çà et là",
        "  spaces \t and\nlines ",
        "日本語 👍🏽 e\u{301}",
        "",
    ];

    #[test]
    fn ids_are_those_of_the_whole_text() {
        for model in ["bert", "roberta", "xlm-roberta", "qwen3"] {
            let tokenizer = open(model, false);
            for (i, text) in TEXTS.iter().enumerate() {
                let tokens = tokenizer.spans("", text, true, i).unwrap();
                let encoding = tokenizer.encoding(text).unwrap();
                let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
                assert_eq!(ids, encoding.get_ids(), "{model}, text {i}");
                let inner = tokenizer.spans("", text, false, i).unwrap();
                assert!(inner.iter().all(|token| token.span.is_some()));
                let special = tokens.iter().filter(|token| token.span.is_none()).count();
                assert_eq!(inner.len() + special, tokens.len());
            }
        }
    }

    #[test]
    fn a_token_is_the_part_of_the_text_that_it_stands_for() {
        let tokenizer = open("bert", false);
        for text in TEXTS {
            let tokens = tokenizer.spans("query: ", text, true, 0).unwrap();
            let whole = format!("query: {text}");
            let mut end = 0;
            for token in &tokens {
                let Some(span) = token.span.clone() else {
                    assert!(["[CLS]", "[SEP]"].contains(&token.text.as_str()));
                    continue;
                };
                assert_eq!(token.text, whole[span.clone()]);
                assert!(whole[end..span.start].trim().is_empty(), "{token:?} of {text:?}");
                end = span.end;
            }
            // This tokenizer takes accents away.
            assert!(whole[end..].trim_matches([' ', '\u{301}']).is_empty(), "end of {text:?}");
        }
    }

    #[test]
    fn small_letters_of_other_lengths_lead_back_to_the_text() {
        let tokenizer = open("bert", true);
        // In small letters the first is three bytes long, two in the text; the second the other way round.
        for text in ["İİ the CAT", "ȺȺ the CAT", "the CAT"] {
            let tokens = tokenizer.spans("", text, false, 0).unwrap();
            assert!(tokens.iter().all(|token| token.text == text[token.span.clone().unwrap()]));
            let last: String =
                tokens.iter().rev().take(1).map(|token| token.text.clone()).collect();
            assert!(text.ends_with(&last) && !last.is_empty(), "{tokens:?}");
            let letters: String = tokens.iter().map(|token| token.text.as_str()).collect();
            assert!(letters.ends_with("theCAT"), "{letters}");
        }
    }

    #[test]
    fn origins_are_as_many_as_bytes_in_small_letters() {
        for text in ["İa", "ȺΣ", "ẞ ΑΣ Σ", "K"] {
            let origins = origins(text).map(|origins| origins.len());
            assert!(origins.is_none() || origins == Some(text.to_lowercase().len()), "{text}");
        }
        assert_eq!(origins("ASCII and Ü"), None);
        assert_eq!(origins("İa"), Some(vec![0..2, 0..2, 0..2, 2..3]));
    }
}
