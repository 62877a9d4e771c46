//! MPNet (Song et al. 2020), the encoder of all-mpnet-base-v2: BERT whose attention also learns a bias for the
//! distance between tokens, the same in all layers.

use serde::Deserialize;

use super::{
    Dimensions, Encoder, check_epsilon, check_sizes, heads, positions_behind_padding, prefix,
};
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
    relative_attention_num_buckets: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    #[serde(default = "default_pad_token_id")]
    pad_token_id: u32,
}

fn default_pad_token_id() -> u32 {
    1
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
            // Fewer have no room for single and for grown distances.
            ("relative_attention_num_buckets / 4", config.relative_attention_num_buckets / 4, 127),
        ])?;
        check_epsilon("layer_norm_eps", config.layer_norm_eps)?;
        heads(config.hidden_size, config.num_attention_heads)?;
        config.dimensions().check()?;
        Ok(config)
    }

    pub(super) fn dimensions(&self) -> Dimensions {
        let unused = self.pad_token_id as usize + 1;
        Dimensions {
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings.saturating_sub(unused),
        }
    }
}

/// An MPNet encoder with its weights in backend `B`.
pub(super) struct MpNet<B: Backend> {
    word: B::Table,
    position: B::Table,
    embedding_norm: B::Norm,
    bias: DistanceBias,
    layers: Vec<Layer<B>>,
    heads: Heads,
    activation: Activation,
    padding: u32,
}

struct Layer<B: Backend> {
    qkv: B::Linear,
    attention_output: B::Linear,
    attention_norm: B::Norm,
    intermediate: B::Linear,
    output: B::Linear,
    output_norm: B::Norm,
}

impl<B: Backend> MpNet<B> {
    pub(super) fn load(from: &mut impl Load<B>, config: &Config) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let root = prefix(from, &["mpnet."], "embeddings.word_embeddings.weight");
        let norm = |name: String| NormSpec::layer(name, hidden, config.layer_norm_eps);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let layer = format!("{root}encoder.layer.{i}");
            let attention = format!("{layer}.attention.attn");
            let linear =
                |part, rows, columns| LinearSpec::new(format!("{layer}.{part}"), rows, columns);
            layers.push(Layer {
                qkv: from.linear(&LinearSpec::fused(
                    &attention,
                    "qkv",
                    &["q", "k", "v"],
                    3 * hidden,
                    hidden,
                ))?,
                attention_output: from.linear(&linear("attention.attn.o", hidden, hidden))?,
                attention_norm: from.norm(&norm(format!("{layer}.attention.LayerNorm")))?,
                intermediate: from.linear(&linear("intermediate.dense", inner, hidden))?,
                output: from.linear(&linear("output.dense", hidden, inner))?,
                output_norm: from.norm(&norm(format!("{layer}.output.LayerNorm")))?,
            });
        }
        let bias = from.numbers(
            &format!("{root}encoder.relative_attention_bias"),
            config.relative_attention_num_buckets,
            config.num_attention_heads,
        )?;
        let embeddings = format!("{root}embeddings");
        let mut table =
            |name: &str, rows| from.table(&format!("{embeddings}.{name}"), rows, hidden);
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            embedding_norm: from.norm(&norm(format!("{embeddings}.LayerNorm")))?,
            bias: DistanceBias::buckets(bias, config.num_attention_heads),
            layers,
            heads: heads(hidden, config.num_attention_heads)?,
            activation: Activation::parse(&config.hidden_act)?,
            padding: config.pad_token_id,
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for MpNet<B> {
    fn positions(&self, batch: &MicroBatch) -> Option<Vec<u32>> {
        Some(positions_behind_padding(batch, self.padding))
    }

    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let attention = Attention { bias: Some(&self.bias), ..Attention::of(self.heads) };
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
