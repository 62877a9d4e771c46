//! Qwen2 (Yang et al. 2024) and Qwen3 (2025), decoders that embed by their last token or, not causal, by the mean of
//! all: rotary positions, grouped queries, SwiGLU. Qwen2 has biases in attention; Qwen3 normalises the heads of
//! queries and keys instead.

use serde::Deserialize;

use super::{
    Dimensions, Encoder, check_epsilon, check_rotated, check_sizes, prefix, rope_theta, unsupported,
};
use crate::error::Result;
use crate::ops::{
    Activation, Attention, Backend, Epilogue, Heads, LinearSpec, Load, Mask, NormSpec, Ops, Rope,
};
use crate::plan::MicroBatch;

/// The keys of `config.json` that matter here.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    #[serde(default)]
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    #[serde(skip)]
    theta: f32,
    hidden_act: String,
    #[serde(default)]
    attention_bias: Option<bool>,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default)]
    is_causal: Option<bool>,
    #[serde(default)]
    auto_map: serde_json::Value,
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self> {
        let json = config;
        let mut config: Self = super::parse(json)?;
        config.theta = rope_theta(json, "rope_theta", "full_attention")?.unwrap_or(10_000.0);
        check_sizes(&[
            ("hidden_size", config.hidden_size, 1 << 16),
            ("num_hidden_layers", config.num_hidden_layers, 1 << 10),
            ("num_attention_heads", config.num_attention_heads, 1 << 10),
            ("num_key_value_heads", config.num_key_value_heads, 1 << 10),
            ("head_dim", config.heads().head_dim, 1 << 12),
            ("intermediate_size", config.intermediate_size, 1 << 20),
            ("vocab_size", config.vocab_size, 1 << 24),
            ("max_position_embeddings", config.max_position_embeddings, 1 << 24),
        ])?;
        check_epsilon("rms_norm_eps", config.rms_norm_eps)?;
        check_rotated(config.heads())?;
        if config.use_sliding_window {
            return Err(unsupported(format!("{} with use_sliding_window", config.model_type)));
        }
        if config.is_causal.is_none() && !config.auto_map["AutoModel"].is_null() {
            return Err(unsupported(format!(
                "{} with code of its own (auto_map), which may look in both directions; set \
                 \"is_causal\" in config.json to true or false",
                config.model_type
            )));
        }
        Ok(config)
    }

    fn heads(&self) -> Heads {
        let count = self.num_attention_heads;
        Heads {
            count,
            kv_count: self.num_key_value_heads,
            head_dim: self.head_dim.unwrap_or(self.hidden_size / count.max(1)),
        }
    }

    fn normalises_heads(&self) -> bool {
        self.model_type == "qwen3"
    }

    /// Whether queries, keys and values have biases; Qwen2's always have, whatever the configuration says.
    fn has_bias(&self) -> bool {
        self.model_type == "qwen2" || self.attention_bias == Some(true)
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

/// A Qwen decoder with its weights in backend `B`.
pub(super) struct Qwen<B: Backend> {
    word: B::Table,
    layers: Vec<Layer<B>>,
    final_norm: B::Norm,
    heads: Heads,
    mask: Mask,
    rope: Rope,
    activation: Activation,
}

struct Layer<B: Backend> {
    attention_norm: B::Norm,
    qkv: B::Linear,
    /// Of queries and of keys.
    head_norms: Option<[B::Norm; 2]>,
    attention_output: B::Linear,
    feed_forward_norm: B::Norm,
    gate: B::Linear,
    up: B::Linear,
    down: B::Linear,
}

impl<B: Backend> Qwen<B> {
    pub(super) fn load(from: &mut impl Load<B>, config: &Config) -> Result<Self> {
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let root = prefix(from, &["model."], "embed_tokens.weight");
        let norm = |name: String| NormSpec::rms(name, hidden, config.rms_norm_eps);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let layer = format!("{root}layers.{i}");
            let attention = format!("{layer}.self_attn");
            let parts = ["q_proj", "k_proj", "v_proj"];
            let qkv = LinearSpec::fused(&attention, "qkv_proj", &parts, heads.width(), hidden)
                .with_bias(config.has_bias());
            let linear = |part, rows, columns| {
                LinearSpec::new(format!("{layer}.{part}"), rows, columns).with_bias(false)
            };
            let output_bias = config.normalises_heads() && config.has_bias();
            let queries = heads.count * heads.head_dim;
            let mut head_norm = |name| {
                let name = format!("{attention}.{name}");
                from.norm(&NormSpec::rms(name, heads.head_dim, config.rms_norm_eps))
            };
            let head_norms = if config.normalises_heads() {
                Some([head_norm("q_norm")?, head_norm("k_norm")?])
            } else {
                None
            };
            layers.push(Layer {
                head_norms,
                attention_norm: from.norm(&norm(format!("{layer}.input_layernorm")))?,
                qkv: from.linear(&qkv)?,
                attention_output: from
                    .linear(&linear("self_attn.o_proj", hidden, queries).with_bias(output_bias))?,
                feed_forward_norm: from.norm(&norm(format!("{layer}.post_attention_layernorm")))?,
                gate: from.linear(&linear("mlp.gate_proj", inner, hidden))?,
                up: from.linear(&linear("mlp.up_proj", inner, hidden))?,
                down: from.linear(&linear("mlp.down_proj", hidden, inner))?,
            });
        }
        Ok(Self {
            word: from.table(&format!("{root}embed_tokens"), config.vocab_size, hidden)?,
            layers,
            final_norm: from.norm(&norm(format!("{root}norm")))?,
            heads,
            mask: Mask { causal: config.is_causal.unwrap_or(true), window: None },
            rope: Rope::new(config.theta, heads.head_dim),
            activation: Activation::parse(&config.hidden_act)?,
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for Qwen<B> {
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let [queries, keys, _] = self.heads.columns();
        let attention = Attention { mask: self.mask, ..Attention::of(self.heads) };
        let mut hidden = ops.embedding(&[(&self.word, &batch.ids)])?;
        for layer in &self.layers {
            let attended = {
                let normed = ops.norm(ops.copy(&hidden)?, &layer.attention_norm)?;
                let mut qkv = ops.linear(&normed, &layer.qkv, Epilogue::None)?;
                if let Some([query_norm, key_norm]) = &layer.head_norms {
                    qkv = ops.norm_heads(qkv, queries.clone(), query_norm)?;
                    qkv = ops.norm_heads(qkv, keys.clone(), key_norm)?;
                }
                let qkv = ops.rotate(qkv, queries.start..keys.end, &self.rope, &batch.positions)?;
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
