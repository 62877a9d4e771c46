//! DistilBERT (Sanh et al. 2019): BERT with half the layers and without token types.

use serde::Deserialize;

use super::{Dimensions, Encoder, check_sizes, heads, prefix};
use crate::error::Result;
use crate::ops::{
    Activation, Attention, Backend, Epilogue, Heads, LinearSpec, Load, NormSpec, Ops,
};
use crate::plan::MicroBatch;

/// Not in the configuration: the same for all.
const EPSILON: f32 = 1e-12;

/// The keys of `config.json` that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    hidden_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    activation: String,
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self> {
        let config: Self = super::parse(config)?;
        check_sizes(&[
            ("dim", config.dim, 1 << 16),
            ("n_layers", config.n_layers, 1 << 10),
            ("n_heads", config.n_heads, 1 << 10),
            ("hidden_dim", config.hidden_dim, 1 << 20),
            ("vocab_size", config.vocab_size, 1 << 24),
            ("max_position_embeddings", config.max_position_embeddings, 1 << 22),
        ])?;
        heads(config.dim, config.n_heads)?;
        Ok(config)
    }

    pub(super) fn dimensions(&self) -> Dimensions {
        Dimensions {
            hidden_size: self.dim,
            num_hidden_layers: self.n_layers,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings,
        }
    }
}

/// A DistilBERT encoder with its weights in backend `B`.
pub(super) struct DistilBert<B: Backend> {
    word: B::Table,
    position: B::Table,
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

impl<B: Backend> DistilBert<B> {
    pub(super) fn load(from: &mut impl Load<B>, config: &Config) -> Result<Self> {
        let (hidden, inner) = (config.dim, config.hidden_dim);
        let root = prefix(from, &["distilbert."], "embeddings.word_embeddings.weight");
        let norm = |name: String| NormSpec::layer(name, hidden, EPSILON);
        let mut layers = Vec::with_capacity(config.n_layers);
        for i in 0..config.n_layers {
            let layer = format!("{root}transformer.layer.{i}");
            let attention = format!("{layer}.attention");
            let parts = ["q_lin", "k_lin", "v_lin"];
            let linear =
                |part, rows, columns| LinearSpec::new(format!("{layer}.{part}"), rows, columns);
            layers.push(Layer {
                qkv: from.linear(&LinearSpec::fused(
                    &attention,
                    "qkv",
                    &parts,
                    3 * hidden,
                    hidden,
                ))?,
                attention_output: from.linear(&linear("attention.out_lin", hidden, hidden))?,
                attention_norm: from.norm(&norm(format!("{layer}.sa_layer_norm")))?,
                intermediate: from.linear(&linear("ffn.lin1", inner, hidden))?,
                output: from.linear(&linear("ffn.lin2", hidden, inner))?,
                output_norm: from.norm(&norm(format!("{layer}.output_layer_norm")))?,
            });
        }
        let embeddings = format!("{root}embeddings");
        let mut table =
            |name: &str, rows| from.table(&format!("{embeddings}.{name}"), rows, hidden);
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            embedding_norm: from.norm(&norm(format!("{embeddings}.LayerNorm")))?,
            layers,
            heads: heads(hidden, config.n_heads)?,
            activation: Activation::parse(&config.activation)?,
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for DistilBert<B> {
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let attention = Attention::of(self.heads);
        let embedded =
            ops.embedding(&[(&self.word, &batch.ids), (&self.position, &batch.positions)])?;
        let mut hidden = ops.norm(embedded, &self.embedding_norm)?;
        for layer in &self.layers {
            let attended = {
                let qkv = ops.linear(&hidden, &layer.qkv, Epilogue::None)?;
                ops.attention(&qkv, &attention, &batch.offsets)?
            };
            let attended =
                ops.linear(&attended, &layer.attention_output, Epilogue::Add(&hidden))?;
            hidden = ops.norm(attended, &layer.attention_norm)?;

            let inner =
                ops.linear(&hidden, &layer.intermediate, Epilogue::Activate(self.activation))?;
            let output = ops.linear(&inner, &layer.output, Epilogue::Add(&hidden))?;
            hidden = ops.norm(output, &layer.output_norm)?;
        }
        Ok(hidden)
    }
}
