//! SentencePiece's Unigram: XLM-RoBERTa's tokenizer.

use std::borrow::Cow;

use tokenizers::PreTokenizerWrapper;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;

use super::vocabulary::{Kind, Vocabulary};
use super::{Pieces, failed, template};
use crate::error::Result;

const SPACE: char = '\u{2581}';
/// The converter loses this token's text where only the SentencePiece model is given.
const MASK: &str = "<mask>";

pub(super) fn pieces(vocabulary: &Vocabulary<'_>) -> Result<Pieces> {
    let write = |id, token, kind| match kind {
        Kind::Unused if vocabulary.mask == Some(id) => Cow::Borrowed(MASK),
        // No text has this: it is split at spaces before.
        Kind::Unused => Cow::Owned(format!("unused {id}")),
        _ => Cow::Borrowed(token),
    };
    let scores = vocabulary.scores()?;
    let tokens = vocabulary.iter().zip(scores);
    let vocab: Vec<(String, f64)> = tokens
        .map(|((id, token, kind), score)| {
            // The lowest score decides what an unknown character costs; places without a token have
            // one of the converter's making.
            (write(id, token, kind).into_owned(), if kind == Kind::Unused { 0.0 } else { score })
        })
        .collect();
    let unknown = vocabulary.unknown.or_else(|| vocabulary.find("<unk>"));
    let bytes = vocabulary.iter().any(|(_, _, kind)| kind == Kind::Byte);
    let model = Unigram::from(vocab, unknown.map(|id| id as usize), bytes).map_err(failed)?;

    let scheme = match vocabulary.flag("add_space_prefix")? {
        Some(false) => PrependScheme::Never,
        _ => PrependScheme::Always,
    };
    let metaspace = Metaspace::new(SPACE, scheme, true);
    let split: Vec<PreTokenizerWrapper> = vec![WhitespaceSplit.into(), metaspace.clone().into()];
    let normalizer = match vocabulary.metadata.bytes("tokenizer.ggml.precompiled_charsmap")? {
        Some(map) if !map.is_empty() => Some(Precompiled::from(map).map_err(failed)?.into()),
        _ => None,
    };
    let mut added = vocabulary.added(write);
    let mask = vocabulary.mask.map(|id| write(id, vocabulary.token(id), vocabulary.kind(id)));
    for token in &mut added {
        token.lstrip = mask.as_deref() == Some(token.content.as_str());
    }
    let (open, close) = (vocabulary.opening(false)?, vocabulary.closing(true)?);
    Ok(Pieces {
        model: model.into(),
        normalizer,
        pre_tokenizer: Some(Sequence::new(split).into()),
        template: template(vocabulary, open, close)?,
        decoder: metaspace.into(),
        added,
    })
}
