//! ModernBERT (Warner et al. 2024): rotary positions, norms before each block, GeGLU, and attention that is local
//! in most layers.

use serde::Deserialize;

use super::{
    Dimensions, Encoder, check_epsilon, check_rotated, check_sizes, heads, prefix, rope_theta,
};
use crate::error::Result;
use crate::ops::{
    Activation, Attention, Backend, Epilogue, Heads, LinearSpec, Load, Mask, NormKind, NormSpec,
    Ops, Rope,
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
    hidden_activation: String,
    norm_eps: f32,
    #[serde(default = "default_global_attn_every_n_layers")]
    global_attn_every_n_layers: usize,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    local_attention: usize,
    #[serde(skip)]
    global_theta: f32,
    #[serde(skip)]
    local_theta: f32,
    #[serde(default)]
    norm_bias: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
}

fn default_global_attn_every_n_layers() -> usize {
    3
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self> {
        let json = config;
        let mut config: Self = super::parse(json)?;
        let global = rope_theta(json, "global_rope_theta", "full_attention")?;
        config.global_theta = global.unwrap_or(160_000.0);
        // An explicit null means that of the global layers.
        let local = rope_theta(json, "local_rope_theta", "sliding_attention")?;
        let null = json.get("local_rope_theta").is_some_and(serde_json::Value::is_null);
        let otherwise = if null { config.global_theta } else { 10_000.0 };
        config.local_theta = local.unwrap_or(otherwise);
        check_sizes(&[
            ("hidden_size", config.hidden_size, 1 << 16),
            ("num_hidden_layers", config.num_hidden_layers, 1 << 10),
            ("num_attention_heads", config.num_attention_heads, 1 << 10),
            ("intermediate_size", config.intermediate_size, 1 << 20),
            ("vocab_size", config.vocab_size, 1 << 24),
            ("max_position_embeddings", config.max_position_embeddings, 1 << 22),
            ("global_attn_every_n_layers", config.global_attn_every_n_layers, 1 << 10),
            ("local_attention", config.local_attention, 1 << 22),
        ])?;
        check_epsilon("norm_eps", config.norm_eps)?;
        check_rotated(heads(config.hidden_size, config.num_attention_heads)?)?;
        Ok(config)
    }

    fn is_global(&self, layer: usize) -> bool {
        match self.layer_types.as_ref().and_then(|types| types.get(layer)) {
            Some(kind) => kind == "full_attention",
            None => layer.is_multiple_of(self.global_attn_every_n_layers),
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

/// A ModernBERT encoder with its weights in backend `B`.
pub(super) struct ModernBert<B: Backend> {
    word: B::Table,
    embedding_norm: B::Norm,
    layers: Vec<Layer<B>>,
    final_norm: B::Norm,
    heads: Heads,
    activation: Activation,
    global_rope: Rope,
    local_rope: Rope,
    local_mask: Mask,
}

struct Layer<B: Backend> {
    /// The first layer has none: the embeddings have just been normalised.
    attention_norm: Option<B::Norm>,
    qkv: B::Linear,
    attention_output: B::Linear,
    feed_forward_norm: B::Norm,
    gate: B::Linear,
    up: B::Linear,
    down: B::Linear,
    global: bool,
}

impl<B: Backend> ModernBert<B> {
    pub(super) fn load(from: &mut impl Load<B>, config: &Config) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let root = prefix(from, &["model."], "embeddings.tok_embeddings.weight");
        let kind = if config.norm_bias { NormKind::Layer } else { NormKind::LayerWithoutBias };
        let norm =
            |name: String| NormSpec { kind, ..NormSpec::layer(name, hidden, config.norm_eps) };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let layer = format!("{root}layers.{i}");
            let linear = |part, rows, columns, bias| {
                LinearSpec::new(format!("{layer}.{part}"), rows, columns).with_bias(bias)
            };
            let mlp = format!("{layer}.mlp");
            // The upper half of one matrix goes through the activation and gates the lower one.
            let half = |name, rows| {
                LinearSpec::rows_of(&mlp, "Wi", name, rows, hidden).with_bias(config.mlp_bias)
            };
            let attention_norm =
                (i > 0).then(|| from.norm(&norm(format!("{layer}.attn_norm")))).transpose()?;
            let biased = config.attention_bias;
            layers.push(Layer {
                attention_norm,
                qkv: from.linear(&linear("attn.Wqkv", 3 * hidden, hidden, biased))?,
                attention_output: from.linear(&linear("attn.Wo", hidden, hidden, biased))?,
                feed_forward_norm: from.norm(&norm(format!("{layer}.mlp_norm")))?,
                gate: from.linear(&half("gate", 0..inner))?,
                up: from.linear(&half("up", inner..2 * inner))?,
                down: from.linear(&linear("mlp.Wo", hidden, inner, config.mlp_bias))?,
                global: config.is_global(i),
            });
        }
        let heads = heads(hidden, config.num_attention_heads)?;
        let word = format!("{root}embeddings.tok_embeddings");
        Ok(Self {
            word: from.table(&word, config.vocab_size, hidden)?,
            embedding_norm: from.norm(&norm(format!("{root}embeddings.norm")))?,
            layers,
            final_norm: from.norm(&norm(format!("{root}final_norm")))?,
            heads,
            activation: Activation::parse(&config.hidden_activation)?,
            global_rope: Rope::new(config.global_theta, heads.head_dim),
            local_rope: Rope::new(config.local_theta, heads.head_dim),
            local_mask: Mask { causal: false, window: Some(config.local_attention / 2) },
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for ModernBert<B> {
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let [queries, keys, _] = self.heads.columns();
        let embedded = ops.embedding(&[(&self.word, &batch.ids)])?;
        let mut hidden = ops.norm(embedded, &self.embedding_norm)?;
        for layer in &self.layers {
            let (mask, rope) = if layer.global {
                (Mask::ALL, &self.global_rope)
            } else {
                (self.local_mask, &self.local_rope)
            };
            let attention = Attention { mask, ..Attention::of(self.heads) };
            let attended = {
                let normed = match &layer.attention_norm {
                    Some(norm) => ops.norm(ops.copy(&hidden)?, norm)?,
                    None => ops.copy(&hidden)?,
                };
                let qkv = ops.linear(&normed, &layer.qkv, Epilogue::None)?;
                let qkv = ops.rotate(qkv, queries.start..keys.end, rope, &batch.positions)?;
                ops.attention(&qkv, &attention, &batch.offsets)?
            };
            hidden = ops.linear(&attended, &layer.attention_output, Epilogue::Add(&hidden))?;

            let normed = ops.norm(ops.copy(&hidden)?, &layer.feed_forward_norm)?;
            let gate = ops.linear(&normed, &layer.gate, Epilogue::Activate(self.activation))?;
            let gated = ops.linear(&normed, &layer.up, Epilogue::Multiply(&gate))?;
            hidden = ops.linear(&gated, &layer.down, Epilogue::Add(&hidden))?;
        }
        ops.norm(hidden, &self.final_norm)
    }
}
