//! BERT (Devlin et al. 2018): the encoder of all-MiniLM, bge, e5 and most small embedding models; and RoBERTa
//! (Liu et al. 2019), which counts positions differently.

use serde::Deserialize;

use super::{
    Dimensions, Encoder, check_sizes, heads, positions_behind_padding, prefix, unsupported,
};
use crate::error::Result;
use crate::ops::{
    Activation, Attention, Backend, Epilogue, Heads, LinearSpec, Load, NormSpec, Ops,
};
use crate::plan::MicroBatch;

/// The keys of `config.json` that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    model_type: String,
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
    #[serde(default)]
    pad_token_id: Option<u32>,
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
        super::check_epsilon("layer_norm_eps", config.layer_norm_eps)?;
        heads(config.hidden_size, config.num_attention_heads)?;
        if let Some(kind @ ("relative_key" | "relative_key_query" | "alibi" | "rotary")) =
            config.position_embedding_type.as_deref()
        {
            return Err(unsupported(format!(
                "{} with position_embedding_type {kind:?}; only \"absolute\" is",
                config.model_type
            )));
        }
        config.dimensions().check()?;
        Ok(config)
    }

    /// RoBERTa's first position is the one behind that of its padding, which has a row of its own.
    fn padding(&self) -> Option<u32> {
        let roberta = matches!(self.model_type.as_str(), "roberta" | "xlm-roberta" | "camembert");
        roberta.then(|| self.pad_token_id.unwrap_or(1))
    }

    pub(super) fn dimensions(&self) -> Dimensions {
        let unused = self.padding().map_or(0, |padding| padding as usize + 1);
        Dimensions {
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings.saturating_sub(unused),
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
    padding: Option<u32>,
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
        let bert = prefix(from, &["bert.", "roberta."], "embeddings.word_embeddings.weight");
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
            let norm = |part: &str| NormSpec::layer(format!("{layer}.{part}"), hidden, eps);
            Ok(Layer {
                qkv: from.linear(&qkv)?,
                attention_output: from.linear(&dense("attention.output", hidden, hidden))?,
                attention_norm: from.norm(&norm("attention.output.LayerNorm"))?,
                intermediate: from.linear(&dense("intermediate", inner, hidden))?,
                output: from.linear(&dense("output", hidden, inner))?,
                output_norm: from.norm(&norm("output.LayerNorm"))?,
            })
        };
        let mut table =
            |name: &str, rows| from.table(&format!("{embeddings}.{name}"), rows, hidden);
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            token_type: table("token_type_embeddings", config.type_vocab_size)?,
            embedding_norm: from.norm(&NormSpec::layer(
                format!("{embeddings}.LayerNorm"),
                hidden,
                eps,
            ))?,
            layers: (0..config.num_hidden_layers).map(|i| layer(from, i)).collect::<Result<_>>()?,
            heads: heads(hidden, config.num_attention_heads)?,
            padding: config.padding(),
            activation: Activation::parse(&config.hidden_act)?,
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for Bert<B> {
    fn positions(&self, batch: &MicroBatch) -> Option<Vec<u32>> {
        self.padding.map(|padding| positions_behind_padding(batch, padding))
    }

    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let attention = Attention::of(self.heads);
        let embedded = ops.embedding(&[
            (&self.word, &batch.ids),
            (&self.position, &batch.positions),
            (&self.token_type, &batch.type_ids),
        ])?;
        let mut hidden = ops.norm(embedded, &self.embedding_norm)?;
        for layer in &self.layers {
            // In a block of their own: memory of what is done with serves what comes next.
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
