//! The tokenizer that a GGUF file describes, rebuilt as Hugging Face has it.
//!
//! llama.cpp tokenizes by itself, and not always alike: it drops parts of Hangul syllables and does
//! not compose accents. Models were trained on Hugging Face's ids, so their tokenizer is built from
//! the same vocabulary. [`vocabulary`] reads what all kinds have; [`wordpiece`], [`byte_level`],
//! [`unigram`] and [`sentencepiece`] each build one kind.

mod byte_level;
mod sentencepiece;
mod split;
#[cfg(test)]
mod tests;
mod unigram;
mod vocabulary;
mod wordpiece;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::processors::template::{SpecialToken, TemplateProcessing};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer,
};
use vocabulary::Vocabulary;

use super::metadata::Metadata;
use crate::error::{Error, Result};

/// Builds the tokenizer that the metadata describe.
///
/// # Errors
/// [`Error::UnsupportedModel`] for a kind of tokenizer or of splitting that is not known,
/// [`Error::Tokenizer`] or [`Error::InvalidConfig`] if the vocabulary is damaged.
pub(crate) fn tokenizer(metadata: &Metadata) -> Result<Tokenizer> {
    // The library panics on some of what a file can hold.
    catch_unwind(AssertUnwindSafe(|| build(metadata)))
        .unwrap_or_else(|_| Err(failed("the vocabulary of the GGUF file is damaged")))
}

fn build(metadata: &Metadata) -> Result<Tokenizer> {
    if let Some(json) = metadata.text("tokenizer.huggingface.json")? {
        // First of all, because the library panics on some of what is no JSON.
        serde_json::from_str::<serde::de::IgnoredAny>(json).map_err(failed)?;
        return Tokenizer::from_bytes(json).map_err(failed);
    }
    let vocabulary = Vocabulary::read(metadata)?;
    let model = metadata.text("tokenizer.ggml.model")?.unwrap_or_default();
    let pieces = match model {
        "bert" => wordpiece::pieces(&vocabulary),
        "gpt2" => byte_level::pieces(&vocabulary),
        "t5" => unigram::pieces(&vocabulary),
        "llama" => sentencepiece::pieces(&vocabulary, true),
        "gemma4" => sentencepiece::pieces(&vocabulary, false),
        _ => Err(Error::UnsupportedModel {
            reason: format!(
                "the GGUF file has a tokenizer of the kind {model:?}; supported are \"bert\" \
                 (WordPiece), \"gpt2\" (byte-level BPE), \"t5\" (Unigram), \"llama\" and \"gemma4\" \
                 (SentencePiece BPE)"
            ),
        }),
    }?;
    pieces.assemble()
}

/// What a kind of tokenizer is made of.
struct Pieces {
    model: ModelWrapper,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    template: Option<TemplateProcessing>,
    decoder: DecoderWrapper,
    added: Vec<AddedToken>,
}

impl Pieces {
    fn assemble(self) -> Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(self.model);
        tokenizer.with_normalizer(self.normalizer).map_err(failed)?;
        tokenizer.with_pre_tokenizer(self.pre_tokenizer);
        tokenizer.with_post_processor(self.template);
        tokenizer.with_decoder(Some(self.decoder));
        tokenizer.add_tokens(self.added).map_err(failed)?;
        Ok(tokenizer)
    }
}

/// The tokens around a text; `None` if there are none. Of two texts, which only BERT's kind is asked
/// for, the second is of type 1.
fn template(
    vocabulary: &Vocabulary<'_>,
    open: Option<u32>,
    close: Option<u32>,
) -> Result<Option<TemplateProcessing>> {
    let (single, pair) = match (open, close) {
        (None, None) => return Ok(None),
        (Some(_), None) => ("open:0 $A:0", "open:0 $A:0 $B:1"),
        (None, Some(_)) => ("$A:0 close:0", "$A:0 $B:1 close:1"),
        (Some(_), Some(_)) => ("open:0 $A:0 close:0", "open:0 $A:0 close:0 $B:1 close:1"),
    };
    let named = [("open", open), ("close", close)].into_iter();
    let special: Vec<SpecialToken> = named
        .filter_map(|(name, id)| id.map(|id| (name.to_owned(), id)))
        .map(|(name, id)| SpecialToken::new(name, vec![id], vec![vocabulary.token(id).to_owned()]))
        .collect::<tokenizers::Result<_>>()
        .map_err(failed)?;
    let builder = TemplateProcessing::builder()
        .try_single(single)
        .and_then(|builder| builder.try_pair(pair))
        .map_err(failed)?
        .special_tokens(special)
        .build();
    builder.map(Some).map_err(failed)
}

fn failed(reason: impl std::fmt::Display) -> Error {
    Error::Tokenizer { reason: reason.to_string() }
}
