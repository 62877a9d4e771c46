//! BERT (Devlin et al. 2018): the encoder of all-MiniLM, bge, e5 and most small embedding models.

use serde::Deserialize;

use super::{Dimensions, Encoder};
use crate::error::{Error, Result};
use crate::ops::{Activation, Backend, Epilogue, Heads, LinearSpec, Load, Ops};
use crate::plan::MicroBatch;

/// The keys of `config.json` that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    #[serde(default = "default_type_vocab_size")]
    type_vocab_size: usize,
    #[serde(default = "default_layer_norm_eps")]
    layer_norm_eps: f32,
    #[serde(default = "default_hidden_act")]
    hidden_act: String,
    #[serde(default)]
    position_embedding_type: Option<String>,
}

fn default_type_vocab_size() -> usize {
    2
}

fn default_layer_norm_eps() -> f32 {
    1e-12
}

fn default_hidden_act() -> String {
    "gelu".to_owned()
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self> {
        let config =
            Self::deserialize(config).map_err(|e| Error::config("config", e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        for (field, value, most) in [
            ("hidden_size", self.hidden_size, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("vocab_size", self.vocab_size, 1 << 24),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 22),
            ("type_vocab_size", self.type_vocab_size, 1 << 10),
        ] {
            if value == 0 || value > most {
                return Err(Error::config(field, format!("is {value}, allowed are 1 to {most}")));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(Error::config(
                "num_attention_heads",
                format!(
                    "hidden_size {} is not a multiple of {}",
                    self.hidden_size, self.num_attention_heads
                ),
            ));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps >= 0.0) {
            return Err(Error::config("layer_norm_eps", format!("is {}", self.layer_norm_eps)));
        }
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => Ok(()),
            Some(other) => Err(Error::UnsupportedModel {
                reason: format!(
                    "BERT with position_embedding_type {other:?}; only \"absolute\" is"
                ),
            }),
        }
    }

    pub(super) fn dimensions(&self) -> Dimensions {
        Dimensions {
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings,
        }
    }
}

/// A BERT encoder with its weights in backend `B`.
pub(super) struct Bert<B: Backend> {
    word: B::Table,
    position: B::Table,
    token_type: B::Table,
    embedding_norm: B::Norm,
    layers: Vec<Layer<B>>,
    heads: Heads,
    activation: Activation,
}

struct Layer<B: Backend> {
    qkv: B::Linear,
    attention_output: B::Linear,
    attention_norm: B::Norm,
    intermediate: B::Linear,
    output: B::Linear,
    output_norm: B::Norm,
}

impl<B: Backend> Bert<B> {
    pub(super) fn load(from: &mut impl Load<B>, config: &Config) -> Result<Self> {
        let (hidden, inner, eps) =
            (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        // Checkpoints saved with a task's head on top carry the encoder under "bert.".
        let bert =
            if from.contains("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        let embeddings = format!("{bert}embeddings");
        let layer = |from: &mut _, i: usize| -> Result<Layer<B>> {
            let from: &mut dyn Load<B> = from;
            let layer = format!("{bert}encoder.layer.{i}");
            let qkv = LinearSpec::fused(
                &format!("{layer}.attention.self"),
                "qkv",
                &["query", "key", "value"],
                3 * hidden,
                hidden,
            );
            let dense = |part: &str, rows, columns| {
                LinearSpec::new(format!("{layer}.{part}.dense"), rows, columns)
            };
            Ok(Layer {
                qkv: from.linear(&qkv)?,
                attention_output: from.linear(&dense("attention.output", hidden, hidden))?,
                attention_norm: from.norm(
                    &format!("{layer}.attention.output.LayerNorm"),
                    hidden,
                    eps,
                )?,
                intermediate: from.linear(&dense("intermediate", inner, hidden))?,
                output: from.linear(&dense("output", hidden, inner))?,
                output_norm: from.norm(&format!("{layer}.output.LayerNorm"), hidden, eps)?,
            })
        };
        let mut table =
            |name: &str, rows| from.table(&format!("{embeddings}.{name}"), rows, hidden);
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            token_type: table("token_type_embeddings", config.type_vocab_size)?,
            embedding_norm: from.norm(&format!("{embeddings}.LayerNorm"), hidden, eps)?,
            layers: (0..config.num_hidden_layers).map(|i| layer(from, i)).collect::<Result<_>>()?,
            heads: Heads {
                count: config.num_attention_heads,
                head_dim: hidden / config.num_attention_heads,
            },
            activation: Activation::parse(&config.hidden_act)?,
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for Bert<B> {
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let embedded = ops.embedding(&[
            (&self.word, &batch.ids),
            (&self.position, &batch.positions),
            (&self.token_type, &batch.type_ids),
        ])?;
        let mut hidden = ops.layer_norm(embedded, &self.embedding_norm)?;
        for layer in &self.layers {
            // In a block of their own: memory of what is done with serves what comes next.
            let attended = {
                let qkv = ops.linear(&hidden, &layer.qkv, Epilogue::None)?;
                ops.attention(&qkv, self.heads, &batch.offsets)?
            };
            let attended =
                ops.linear(&attended, &layer.attention_output, Epilogue::Add(&hidden))?;
            hidden = ops.layer_norm(attended, &layer.attention_norm)?;

            let inner =
                ops.linear(&hidden, &layer.intermediate, Epilogue::Activate(self.activation))?;
            let output = ops.linear(&inner, &layer.output, Epilogue::Add(&hidden))?;
            hidden = ops.layer_norm(output, &layer.output_norm)?;
        }
        Ok(hidden)
    }
}
