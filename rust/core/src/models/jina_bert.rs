//! Jina BERT v2 (Günther et al. 2023): BERT with ALiBi in both directions instead of positions, and a gated
//! feed-forward network.

use serde::Deserialize;

use super::{Dimensions, Encoder, check_epsilon, check_sizes, heads, prefix, unsupported};
use crate::error::Result;
use crate::ops::{
    Activation, Attention, Backend, DistanceBias, Epilogue, Heads, LinearSpec, Load, NormSpec, Ops,
};
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
    type_vocab_size: usize,
    layer_norm_eps: f32,
    feed_forward_type: String,
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self> {
        let config: Self = super::parse(config)?;
        check_sizes(&[
            ("hidden_size", config.hidden_size, 1 << 16),
            ("num_hidden_layers", config.num_hidden_layers, 1 << 10),
            ("num_attention_heads", config.num_attention_heads, 1 << 10),
            ("intermediate_size", config.intermediate_size, 1 << 20),
            ("vocab_size", config.vocab_size, 1 << 24),
            ("max_position_embeddings", config.max_position_embeddings, 1 << 22),
            ("type_vocab_size", config.type_vocab_size, 1 << 10),
        ])?;
        check_epsilon("layer_norm_eps", config.layer_norm_eps)?;
        heads(config.hidden_size, config.num_attention_heads)?;
        config.activation()?;
        Ok(config)
    }

    /// That of the gate.
    fn activation(&self) -> Result<Activation> {
        match self.feed_forward_type.as_str() {
            "geglu" => Ok(Activation::Gelu),
            "reglu" => Ok(Activation::Relu),
            other => Err(unsupported(format!(
                "Jina BERT with feed_forward_type {other:?}; known are geglu and reglu"
            ))),
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

/// A Jina BERT encoder with its weights in backend `B`.
pub(super) struct JinaBert<B: Backend> {
    word: B::Table,
    token_type: B::Table,
    embedding_norm: B::Norm,
    bias: DistanceBias,
    layers: Vec<Layer<B>>,
    heads: Heads,
    activation: Activation,
}

struct Layer<B: Backend> {
    qkv: B::Linear,
    attention_output: B::Linear,
    attention_norm: B::Norm,
    gate: B::Linear,
    up: B::Linear,
    down: B::Linear,
    output_norm: B::Norm,
}

impl<B: Backend> JinaBert<B> {
    pub(super) fn load(from: &mut impl Load<B>, config: &Config) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let root = prefix(from, &["bert."], "embeddings.word_embeddings.weight");
        let norm = |name: String| NormSpec::layer(name, hidden, config.layer_norm_eps);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let layer = format!("{root}encoder.layer.{i}");
            let attention = format!("{layer}.attention");
            let parts = ["query", "key", "value"];
            let mlp = format!("{layer}.mlp");
            // The upper half of one matrix goes through the activation and gates the lower one.
            let half = |name, rows| {
                LinearSpec::rows_of(&mlp, "gated_layers", name, rows, hidden).with_bias(false)
            };
            layers.push(Layer {
                qkv: from.linear(&LinearSpec::fused(
                    &format!("{attention}.self"),
                    "qkv",
                    &parts,
                    3 * hidden,
                    hidden,
                ))?,
                attention_output: from.linear(&LinearSpec::new(
                    format!("{attention}.output.dense"),
                    hidden,
                    hidden,
                ))?,
                attention_norm: from.norm(&norm(format!("{attention}.output.LayerNorm")))?,
                gate: from.linear(&half("gate", 0..inner))?,
                up: from.linear(&half("up", inner..2 * inner))?,
                down: from.linear(&LinearSpec::new(format!("{mlp}.wo"), hidden, inner))?,
                output_norm: from.norm(&norm(format!("{mlp}.layernorm")))?,
            });
        }
        let embeddings = format!("{root}embeddings");
        let mut table =
            |name: &str, rows| from.table(&format!("{embeddings}.{name}"), rows, hidden);
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            token_type: table("token_type_embeddings", config.type_vocab_size)?,
            embedding_norm: from.norm(&norm(format!("{embeddings}.LayerNorm")))?,
            bias: DistanceBias::alibi(config.num_attention_heads),
            layers,
            heads: heads(hidden, config.num_attention_heads)?,
            activation: config.activation()?,
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for JinaBert<B> {
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let attention = Attention { bias: Some(&self.bias), ..Attention::of(self.heads) };
        let embedded =
            ops.embedding(&[(&self.word, &batch.ids), (&self.token_type, &batch.type_ids)])?;
        let mut hidden = ops.norm(embedded, &self.embedding_norm)?;
        for layer in &self.layers {
            let attended = {
                let qkv = ops.linear(&hidden, &layer.qkv, Epilogue::None)?;
                ops.attention(&qkv, &attention, &batch.offsets)?
            };
            let attended =
                ops.linear(&attended, &layer.attention_output, Epilogue::Add(&hidden))?;
            hidden = ops.norm(attended, &layer.attention_norm)?;

            let gate = ops.linear(&hidden, &layer.gate, Epilogue::Activate(self.activation))?;
            let gated = ops.linear(&hidden, &layer.up, Epilogue::Multiply(&gate))?;
            let output = ops.linear(&gated, &layer.down, Epilogue::Add(&hidden))?;
            hidden = ops.norm(output, &layer.output_norm)?;
        }
        Ok(hidden)
    }
}
