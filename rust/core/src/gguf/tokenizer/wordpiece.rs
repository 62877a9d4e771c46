//! BERT's tokenizer: words are cut into pieces, the longest first.

use std::borrow::Cow;

use tokenizers::decoders::wordpiece::WordPiece as Decoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::vocabulary::Vocabulary;
use super::{Pieces, failed, template};
use crate::error::{Error, Result};

/// What llama.cpp writes before a piece that begins a word.
const WORD_START: char = '\u{2581}';
/// What BERT writes before a piece that does not.
const CONTINUED: &str = "##";

pub(super) fn pieces(vocabulary: &Vocabulary<'_>) -> Result<Pieces> {
    if is_sentencepiece(vocabulary) {
        return Err(Error::UnsupportedModel {
            reason: "the GGUF file has a SentencePiece vocabulary that was written as one of WordPiece, as \
                     llama.cpp's converter does with CamemBERT's, and cannot tokenize a text; put the model's \
                     tokenizer.json beside the file"
                .to_owned(),
        });
    }
    let find = |named: Option<u32>, text: &str, what: &str| {
        let missing = || failed(format!("the vocabulary of the GGUF file has no {what} token"));
        named.or_else(|| vocabulary.find(text)).ok_or_else(missing)
    };
    let unknown = find(vocabulary.unknown, "[UNK]", "unknown")?;
    // Whatever the flags say, a text is always enclosed, by llama.cpp too.
    let open = find(vocabulary.class.or(vocabulary.bos), "[CLS]", "opening")?;
    let close = find(vocabulary.separator.or(vocabulary.eos), "[SEP]", "closing")?;
    let lower_case = match vocabulary.flag("normalizer.lowercase")? {
        Some(lower_case) => lower_case,
        None => !has_upper_case(vocabulary),
    };
    let strip_accents = vocabulary.flag("normalizer.strip_accents")?;

    let write = |id, token, _| as_bert_writes(token, vocabulary.is_special(id));
    let model = WordPiece::builder()
        .vocab(vocabulary.map(write))
        .unk_token(write(unknown, vocabulary.token(unknown), vocabulary.kind(unknown)).into())
        .continuing_subword_prefix(CONTINUED.to_owned())
        .max_input_chars_per_word(100)
        .build()
        .map_err(failed)?;
    Ok(Pieces {
        model: model.into(),
        normalizer: Some(BertNormalizer::new(true, true, strip_accents, lower_case).into()),
        pre_tokenizer: Some(BertPreTokenizer.into()),
        template: template(vocabulary, Some(open), Some(close))?,
        decoder: Decoder::new(CONTINUED.to_owned(), true).into(),
        added: vocabulary.added(write),
    })
}

/// Special tokens are written without marks.
fn as_bert_writes(token: &str, special: bool) -> Cow<'_, str> {
    match token.strip_prefix(WORD_START) {
        Some(start) => Cow::Borrowed(start),
        // Old files do not say which tokens are special.
        None if special || is_bracketed(token) => Cow::Borrowed(token),
        None => Cow::Owned([CONTINUED, token].concat()),
    }
}

/// Whether more than a tenth of the tokens begin with two marks, the second being SentencePiece's own before a
/// word. In a vocabulary of WordPiece it may be one character among many.
fn is_sentencepiece(vocabulary: &Vocabulary<'_>) -> bool {
    let marked = |token: &str| {
        token.strip_prefix(WORD_START).is_some_and(|rest| rest.starts_with(WORD_START))
    };
    vocabulary.iter().filter(|(_, token, _)| marked(token)).count() > vocabulary.len() / 10
}

fn is_bracketed(token: &str) -> bool {
    token.len() > 2 && token.starts_with('[') && token.ends_with(']')
}

/// Whether the vocabulary has capital letters, which would be useless if texts were lower-cased.
fn has_upper_case(vocabulary: &Vocabulary<'_>) -> bool {
    let of_text = |token: &str| !is_bracketed(token.trim_start_matches(WORD_START));
    vocabulary.iter().any(|(id, token, _)| {
        !vocabulary.is_special(id)
            && of_text(token)
            && token.bytes().any(|byte| byte.is_ascii_uppercase())
    })
}
