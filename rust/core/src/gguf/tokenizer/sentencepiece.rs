//! SentencePiece's BPE: Gemma's and Llama's tokenizers.
//!
//! The file has a score for each token and no merges; Hugging Face derives merges from the scores, and
//! so does this.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges};
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper};

use super::byte_level;
use super::vocabulary::{Kind, Vocabulary};
use super::{Pieces, failed, template};
use crate::error::Result;

const SPACE: &str = "\u{2581}";

/// With `prefix`, texts begin with a space unless the file says otherwise.
pub(super) fn pieces(vocabulary: &Vocabulary<'_>, prefix: bool) -> Result<Pieces> {
    let mut vocab = vocabulary.map(|_, token, kind| as_trained(token, kind));
    // A tab may only be there as a byte; tokens of several tabs are made from it.
    if let Some(&tab) = vocab.get("<0x09>") {
        vocab.entry("\t".to_owned()).or_insert(tab);
    }
    let mut added = vocabulary.added(|_, token, kind| as_trained(token, kind));
    let merges = if let Some(merges) = byte_level::merges(vocabulary)? {
        merges
    } else {
        let (merges, whole) = derive_merges(vocabulary)?;
        let whole = whole.into_iter().map(|token| AddedToken::from(token, false).normalized(false));
        added.extend(whole);
        merges
    };
    let unknown = vocabulary.unknown.or_else(|| vocabulary.find("<unk>"));
    let mut model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(true)
        .byte_fallback(vocabulary.iter().any(|(_, _, kind)| kind == Kind::Byte));
    if let Some(unknown) = unknown {
        model = model.unk_token(vocabulary.token(unknown).to_owned());
    }

    let prefix = vocabulary.flag("add_space_prefix")?.unwrap_or(prefix);
    let (open, close) = (vocabulary.opening(true)?, vocabulary.closing(false)?);
    Ok(Pieces {
        model: model.build().map_err(failed)?.into(),
        normalizer: Some(normalizer(prefix).map_err(failed)?),
        pre_tokenizer: None,
        template: template(vocabulary, open, close)?,
        decoder: decoder(prefix).map_err(failed)?,
        added,
    })
}

/// A token's text in the model: the converter writes plain spaces in those that users define.
fn as_trained(token: &str, kind: Kind) -> Cow<'_, str> {
    if kind == Kind::UserDefined && token.contains(' ') {
        Cow::Owned(token.replace(' ', SPACE))
    } else {
        Cow::Borrowed(token)
    }
}

fn normalizer(prefix: bool) -> tokenizers::Result<NormalizerWrapper> {
    let spaces = Replace::new(" ", SPACE)?;
    Ok(if prefix {
        Normalizers::new(vec![Prepend::new(SPACE.to_owned()).into(), spaces.into()]).into()
    } else {
        spaces.into()
    })
}

fn decoder(prefix: bool) -> tokenizers::Result<DecoderWrapper> {
    let spaces = Replace::new(SPACE, " ")?;
    let mut decoders: Vec<DecoderWrapper> =
        vec![spaces.into(), ByteFallback::default().into(), Fuse::default().into()];
    if prefix {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    Ok(Decoders::new(decoders).into())
}

/// Characters of the longest token for which merges are looked for, which takes the square of its
/// length; trained ones have some thirty.
const LONGEST: usize = 256;

/// A pair of tokens that make up a third.
struct Merge<'a> {
    score: f64,
    left: &'a str,
    right: &'a str,
    lengths: (usize, usize),
}

/// The merges that follow from the scores, in the order in which Hugging Face's conversion has them,
/// and the tokens that no merge makes: these were found in the text as they are.
fn derive_merges(vocabulary: &Vocabulary<'_>) -> Result<(Merges, Vec<String>)> {
    let scores = vocabulary.scores()?;
    let texts: Vec<_> = vocabulary.iter().map(|(_, token, kind)| as_trained(token, kind)).collect();
    let mut ids: HashMap<&str, usize> = HashMap::with_capacity(texts.len());
    for (id, text) in texts.iter().enumerate() {
        ids.entry(text).or_insert(id);
    }
    if let Some(&tab) = ids.get("<0x09>") {
        ids.entry("\t").or_insert(tab);
    }
    let mut merges = Vec::with_capacity(texts.len());
    let mut whole = Vec::new();
    for (((id, _, kind), text), score) in vocabulary.iter().zip(&texts).zip(scores) {
        // The converter gives a score of its own to tokens that were trained with none. The sum makes
        // one of both zeros.
        let score = if kind == Kind::Normal { score + 0.0 } else { 0.0 };
        let from = merges.len();
        let length = text.chars().count();
        let splits = text.char_indices().enumerate().skip(1);
        for (position, (at, _)) in splits.filter(|_| length <= LONGEST) {
            let (left, right) = text.split_at(at);
            if let (Some(left_id), Some(right_id)) = (ids.get(left), ids.get(right)) {
                let lengths = (position, length - position);
                merges.push(((left_id, right_id), Merge { score, left, right, lengths }));
            }
        }
        if merges.len() == from && length > 1 && kind == Kind::Normal && !vocabulary.is_special(id)
        {
            whole.push(text.clone().into_owned());
        }
        merges[from..].sort_by_key(|&(ids, _)| ids);
    }
    // The sort keeps the order of equals.
    merges.sort_by(|(_, a), (_, b)| {
        b.score.total_cmp(&a.score).then_with(|| Reverse(a.lengths).cmp(&Reverse(b.lengths)))
    });
    let pairs = merges.into_iter().map(|(_, m)| (m.left.to_owned(), m.right.to_owned()));
    Ok((pairs.collect(), whole))
}
