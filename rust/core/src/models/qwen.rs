//! Qwen2 (Yang et al. 2024) and Qwen3 (2025), decoders that embed by their last token or, not causal, by the mean of
//! all: rotary positions, grouped queries, SwiGLU. Qwen2 has biases in attention; Qwen3 normalises the heads of
//! queries and keys instead.

use serde::Deserialize;

use super::{Dimensions, Encoder, check_epsilon, check_sizes, check_theta, prefix, unsupported};
use crate::error::{Error, Result};
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
    rope_theta: f32,
    #[serde(default)]
    rope_scaling: Option<serde_json::Value>,
    hidden_act: String,
    #[serde(default)]
    attention_bias: Option<bool>,
    #[serde(default)]
    use_sliding_window: bool,
    #[serde(default = "default_is_causal")]
    is_causal: bool,
}

fn default_is_causal() -> bool {
    true
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self> {
        let config: Self = super::parse(config)?;
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
        check_theta("rope_theta", config.rope_theta)?;
        check_groups(config.heads())?;
        if config.use_sliding_window {
            return Err(unsupported(format!("{} with use_sliding_window", config.model_type)));
        }
        if config.rope_scaling.is_some() {
            return Err(unsupported(format!("{} with rope_scaling", config.model_type)));
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

    /// Whether queries, keys and values have biases; for Qwen2 that goes without saying.
    fn has_bias(&self) -> bool {
        self.attention_bias.unwrap_or(self.model_type == "qwen2")
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

/// Refuses heads that cannot be grouped or rotated.
pub(super) fn check_groups(heads: Heads) -> Result<()> {
    let Heads { count, kv_count, head_dim } = heads;
    if !count.is_multiple_of(kv_count.max(1)) {
        return Err(Error::config(
            "num_key_value_heads",
            format!("is {kv_count}, of which num_attention_heads {count} is no multiple"),
        ));
    }
    if !head_dim.is_multiple_of(2) {
        return Err(Error::config("head_dim", format!("is {head_dim}, which has no two halves")));
    }
    Ok(())
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
                attention_output: from.linear(&linear("self_attn.o_proj", hidden, queries))?,
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
            mask: Mask { causal: config.is_causal, window: None },
            rope: Rope::new(config.rope_theta, heads.head_dim),
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
