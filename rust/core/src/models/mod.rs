//! The architectures, one file each, and the table that finds them by name.

mod bert;
mod distilbert;
mod gemma3;
mod jina_bert;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod qwen;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::ops::{Backend, Heads, Load, Ops};
use crate::plan::MicroBatch;

/// A loaded model: token ids in, token vectors out.
pub(crate) trait Encoder<B: Backend, O: Ops<B>>: Send + Sync {
    /// The position of every token, where it is not just its place in the sequence.
    fn positions(&self, _batch: &MicroBatch) -> Option<Vec<u32>> {
        None
    }

    /// The last hidden state of every token, `[tokens, hidden_size]`.
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor>;
}

/// The sizes that the rest of the engine needs to know of an architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Width of a token vector.
    pub hidden_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Rows of the word embedding table; token ids are below it.
    pub vocab_size: usize,
    /// Longest sequence that the position embeddings allow.
    pub max_position_embeddings: usize,
}

macro_rules! architectures {
    ($($name:literal => $module:ident :: $model:ident),* $(,)?) => {
        /// Names of the supported architectures, as in Hugging Face's `model_type`.
        pub const ARCHITECTURES: &[&str] = &[$($name),*];

        /// The sizes in a configuration, checked for plausibility.
        ///
        /// # Errors
        /// If the architecture is unknown or the configuration does not fit it.
        pub(crate) fn dimensions(architecture: &str, config: &serde_json::Value) -> Result<Dimensions> {
            match architecture {
                $($name => Ok($module::Config::parse(config)?.dimensions()),)*
                other => Err(unknown(other)),
            }
        }

        /// Loads the weights of an architecture into a backend.
        pub(crate) fn load<B: Backend + 'static, O: Ops<B>>(
            architecture: &str,
            config: &serde_json::Value,
            from: &mut impl Load<B>,
        ) -> Result<Box<dyn Encoder<B, O>>> {
            match architecture {
                $($name => Ok(Box::new($module::$model::load(from, &$module::Config::parse(config)?)?)),)*
                other => Err(unknown(other)),
            }
        }

        /// Asks `from` for every weight of an architecture, in order, and keeps none: how a packer
        /// learns what to write.
        pub(crate) fn walk<B: Backend>(
            architecture: &str,
            config: &serde_json::Value,
            from: &mut impl Load<B>,
        ) -> Result<()> {
            match architecture {
                $($name => $module::$model::load(from, &$module::Config::parse(config)?).map(drop),)*
                other => Err(unknown(other)),
            }
        }
    };
}

architectures! {
    "bert" => bert::Bert,
    "camembert" => bert::Bert,
    "distilbert" => distilbert::DistilBert,
    "gemma3_text" => gemma3::Gemma3,
    "jina-bert-v2" => jina_bert::JinaBert,
    "modernbert" => modernbert::ModernBert,
    "mpnet" => mpnet::MpNet,
    "nomic_bert" => nomic_bert::NomicBert,
    "qwen2" => qwen::Qwen,
    "qwen3" => qwen::Qwen,
    "roberta" => bert::Bert,
    "xlm-roberta" => bert::Bert,
}

/// The architecture that a `config.json` describes: its `model_type`, but for checkpoints that say "bert" and
/// mean a relative with code of its own.
pub(crate) fn architecture(model_type: &str, config: &Value) -> String {
    let positions = config.get("position_embedding_type").and_then(Value::as_str);
    match (model_type, positions) {
        ("bert", Some("alibi")) => "jina-bert-v2".to_owned(),
        _ => model_type.to_owned(),
    }
}

fn unknown(architecture: &str) -> Error {
    unsupported(format!(
        "architecture {architecture:?}; this version runs {}",
        ARCHITECTURES.join(", ")
    ))
}

fn unsupported(reason: impl Into<String>) -> Error {
    Error::UnsupportedModel { reason: reason.into() }
}

/// The keys that an architecture needs.
fn parse<T: DeserializeOwned>(config: &Value) -> Result<T> {
    T::deserialize(config).map_err(|e| Error::config("config", e.to_string()))
}

/// Refuses sizes that are zero or absurd.
fn check_sizes(sizes: &[(&str, usize, usize)]) -> Result<()> {
    for &(field, value, most) in sizes {
        if value == 0 || value > most {
            return Err(Error::config(field, format!("is {value}, allowed are 1 to {most}")));
        }
    }
    Ok(())
}

fn check_epsilon(field: &str, epsilon: f32) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(Error::config(field, format!("is {epsilon}")))
}

/// A rotary embedding's base, which must be a number above one.
fn check_theta(field: &str, theta: f32) -> Result<()> {
    if theta.is_finite() && theta > 1.0 {
        return Ok(());
    }
    Err(Error::config(field, format!("is {theta}")))
}

/// Heads of equal width that together are as wide as the hidden state.
fn heads(hidden_size: usize, count: usize) -> Result<Heads> {
    if count > 0 && hidden_size.is_multiple_of(count) {
        return Ok(Heads::equal(count, hidden_size / count));
    }
    Err(Error::config(
        "num_attention_heads",
        format!("hidden_size {hidden_size} is not a multiple of {count}"),
    ))
}

/// The prefix under which a checkpoint has its encoder: none, or one of these where it was saved with a task's
/// head on top.
fn prefix<B: Backend>(from: &impl Load<B>, prefixes: &[&'static str], name: &str) -> &'static str {
    prefixes.iter().find(|prefix| from.contains(&format!("{prefix}{name}"))).copied().unwrap_or("")
}

/// Positions as RoBERTa and MPNet count them: from the one behind the padding token's id on, padding tokens
/// themselves having that id as position and not counting.
fn positions_behind_padding(batch: &MicroBatch, padding: u32) -> Vec<u32> {
    let mut positions = Vec::with_capacity(batch.ids.len());
    for bounds in batch.offsets.windows(2) {
        let mut last = padding;
        positions.extend(batch.ids[bounds[0]..bounds[1]].iter().map(|&id| {
            if id == padding {
                padding
            } else {
                last += 1;
                last
            }
        }));
    }
    positions
}

impl Dimensions {
    /// Refuses what leaves no position for a token.
    fn check(self) -> Result<()> {
        if self.max_position_embeddings == 0 {
            return Err(Error::config("max_position_embeddings", "leaves no position for a token"));
        }
        Ok(())
    }
}
