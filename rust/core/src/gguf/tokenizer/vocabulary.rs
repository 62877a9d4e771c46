//! What every kind of tokenizer has: tokens, their kinds, and the special ones among them.

use std::borrow::Cow;

use tokenizers::AddedToken;
use tokenizers::models::bpe::Vocab;

use super::failed;
use crate::error::{Error, Result};
use crate::gguf::metadata::Metadata;
use crate::gguf::values::Strings;

const TOKENS: &str = "tokenizer.ggml.tokens";
const KINDS: &str = "tokenizer.ggml.token_type";

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Kind {
    fn of(number: i64) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => Self::Normal,
        }
    }
}

/// A file's vocabulary.
pub(super) struct Vocabulary<'a> {
    pub(super) metadata: &'a Metadata,
    tokens: &'a Strings,
    kinds: Vec<Kind>,
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) separator: Option<u32>,
    pub(super) class: Option<u32>,
    pub(super) mask: Option<u32>,
    padding: Option<u32>,
}

impl<'a> Vocabulary<'a> {
    pub(super) fn read(metadata: &'a Metadata) -> Result<Self> {
        let tokens = metadata.strings(TOKENS)?.filter(|tokens| tokens.len() > 0);
        let tokens = tokens.ok_or_else(|| failed("the GGUF file has no vocabulary"))?;
        if u32::try_from(tokens.len()).is_err() {
            return Err(Error::config(TOKENS, format!("are {}", tokens.len())));
        }
        let kinds = match metadata.integers(KINDS)? {
            Some(kinds) if kinds.len() != tokens.len() => {
                let reason = format!("are {} for {} tokens", kinds.len(), tokens.len());
                return Err(Error::config(KINDS, reason));
            }
            Some(kinds) => kinds.into_iter().map(Kind::of).collect(),
            None => vec![Kind::Normal; tokens.len()],
        };
        // Some files name tokens that they do not have; llama.cpp takes that for none, too.
        let id = |name: &str| -> Result<Option<u32>> {
            let id = metadata.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
            Ok(id.filter(|&id| id < tokens.len()).map(|id| id as u32))
        };
        // Not all files name the mask, which takes the space before it where it is found.
        let find = |text: &str| tokens.iter().position(|token| token == text).map(|id| id as u32);
        let mask = id("mask")?.or_else(|| find("<mask>")).or_else(|| find("[MASK]"));
        Ok(Self {
            bos: id("bos")?,
            eos: id("eos")?,
            unknown: id("unknown")?,
            // The format has it misspelt.
            separator: id("seperator")?.or(id("separator")?),
            class: id("cls")?,
            mask,
            padding: id("padding")?,
            metadata,
            tokens,
            kinds,
        })
    }

    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// A token's text as it is in the file.
    pub(super) fn token(&self, id: u32) -> &'a str {
        self.tokens.get(id as usize).unwrap_or_default()
    }

    pub(super) fn kind(&self, id: u32) -> Kind {
        self.kinds.get(id as usize).copied().unwrap_or(Kind::Unused)
    }

    /// Ids, texts and kinds of all tokens.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &'a str, Kind)> {
        let tokens = (0..).zip(self.tokens.iter());
        tokens.zip(&self.kinds).map(|((id, token), &kind)| (id, token, kind))
    }

    /// The first token with that text.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.iter().find(|(_, token, _)| *token == text).map(|(id, ..)| id)
    }

    /// Whether a token is not made from text: of a control kind, or named as special.
    pub(super) fn is_special(&self, id: u32) -> bool {
        let named =
            [self.bos, self.eos, self.unknown, self.separator, self.class, self.mask, self.padding];
        matches!(self.kind(id), Kind::Control | Kind::Unknown) || named.contains(&Some(id))
    }

    /// Tokens that are found in a text before anything else; `text` is how the model writes a token.
    pub(super) fn added(
        &self,
        text: impl Fn(u32, &'a str, Kind) -> Cow<'a, str>,
    ) -> Vec<AddedToken> {
        self.iter()
            .filter(|&(id, _, kind)| kind == Kind::UserDefined || self.is_special(id))
            .map(|(id, token, kind)| {
                AddedToken::from(text(id, token, kind), self.is_special(id)).normalized(false)
            })
            .collect()
    }

    /// Tokens by text, as the library wants them; of two alike the first counts.
    pub(super) fn map(&self, text: impl Fn(u32, &'a str, Kind) -> Cow<'a, str>) -> Vocab {
        let mut map = Vocab::with_capacity(self.len());
        for (id, token, kind) in self.iter() {
            map.entry(text(id, token, kind).into_owned()).or_insert(id);
        }
        map
    }

    /// A flag of the tokenizer.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>> {
        self.metadata.flag(&format!("tokenizer.ggml.{name}"))
    }

    /// The token before a text, if the file or else the tokenizer's kind asks for one.
    pub(super) fn opening(&self, default: bool) -> Result<Option<u32>> {
        self.around("add_bos_token", default, self.bos.or(self.class))
    }

    /// The token after a text.
    pub(super) fn closing(&self, default: bool) -> Result<Option<u32>> {
        self.around("add_eos_token", default, self.eos.or(self.separator))
    }

    fn around(&self, flag: &str, default: bool, token: Option<u32>) -> Result<Option<u32>> {
        match (self.flag(flag)?, token) {
            (Some(true), None) => {
                let key = format!("tokenizer.ggml.{flag}");
                Err(Error::config(key, "is set, but the file does not say which token that is"))
            }
            (asked, token) => Ok(token.filter(|_| asked.unwrap_or(default))),
        }
    }

    /// A score for each token.
    pub(super) fn scores(&self) -> Result<Vec<f64>> {
        const KEY: &str = "tokenizer.ggml.scores";
        match self.metadata.floats(KEY)? {
            Some(scores) if scores.len() != self.len() => {
                Err(Error::config(KEY, format!("are {} for {} tokens", scores.len(), self.len())))
            }
            Some(scores) if scores.iter().any(|score| score.is_nan()) => {
                Err(Error::config(KEY, "are not all numbers"))
            }
            Some(scores) => Ok(scores),
            None => Err(Error::config(KEY, "are missing; this kind of tokenizer needs them")),
        }
    }
}
