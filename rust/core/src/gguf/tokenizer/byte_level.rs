//! Byte-level BPE: GPT-2's, RoBERTa's, ModernBERT's, Qwen's and Llama 3's tokenizers.

use std::borrow::Cow;

use tokenizers::models::bpe::{BPE, Merges};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::split::{Around, Splitting};
use super::vocabulary::Vocabulary;
use super::{Pieces, failed, template};
use crate::error::{Error, Result};

const MERGES: &str = "tokenizer.ggml.merges";

pub(super) fn pieces(vocabulary: &Vocabulary<'_>) -> Result<Pieces> {
    let splitting = splitting(vocabulary)?;
    let merges = merges(vocabulary)?
        .ok_or_else(|| Error::config(MERGES, "are missing; byte-level BPE needs them"))?;
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.map(|_, token, _| Cow::Borrowed(token)), merges)
        .ignore_merges(splitting.whole_words)
        .build()
        .map_err(failed)?;
    let space = vocabulary.flag("add_space_prefix")?.unwrap_or(false);

    let encoder = splitting.around == Around::Both;
    let mut added = vocabulary.added(|_, token, _| Cow::Borrowed(token));
    let mask = vocabulary.mask.map(|id| vocabulary.token(id));
    for token in &mut added {
        token.lstrip = encoder && mask == Some(token.content.as_str());
        // ModernBERT looks for runs of spaces after the special tokens have taken theirs.
        token.normalized = encoder && !token.special;
    }
    let open = vocabulary.opening(splitting.around != Around::Nothing)?;
    let close = vocabulary.closing(encoder)?;
    Ok(Pieces {
        model: model.into(),
        normalizer: splitting.compose.then(|| NFC.into()),
        pre_tokenizer: Some(splitting.pre_tokenizer(space).map_err(failed)?),
        template: template(vocabulary, open, close)?,
        decoder: ByteLevel::new(true, true, true).into(),
        added,
    })
}

fn splitting(vocabulary: &Vocabulary<'_>) -> Result<Splitting> {
    let name = match vocabulary.metadata.text("tokenizer.ggml.pre")? {
        Some(name) => name,
        // Files older than the name: Qwen's are known by their architecture.
        None => match vocabulary.metadata.text("general.architecture")? {
            Some("qwen2" | "qwen3") => "qwen2",
            _ => "default",
        },
    };
    Splitting::of(name).ok_or_else(|| Error::UnsupportedModel {
        reason: format!(
            "the GGUF file's tokenizer splits texts as {name:?}, which is not known; known are {}",
            Splitting::names().join(", ")
        ),
    })
}

/// Pairs of tokens that become one, the first to be merged first.
pub(super) fn merges(vocabulary: &Vocabulary<'_>) -> Result<Option<Merges>> {
    let Some(merges) = vocabulary.metadata.strings(MERGES)? else { return Ok(None) };
    let split = |merge: &str| {
        // A token may begin with a space, but not end with one.
        let second = merge.char_indices().nth(1).map_or(merge.len(), |(second, _)| second);
        let space = second + merge[second..].find(' ')?;
        Some((merge[..space].to_owned(), merge[space + 1..].to_owned()))
    };
    merges
        .iter()
        .map(|merge| split(merge).ok_or_else(|| Error::config(MERGES, format!("have {merge:?}"))))
        .collect::<Result<_>>()
        .map(Some)
}
