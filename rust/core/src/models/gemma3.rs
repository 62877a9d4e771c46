//! Gemma 3 (Gemma Team 2025), the text decoder of EmbeddingGemma: norms before and after each block, normalised
//! heads, attention that is local in most layers, and GeGLU.

use serde::Deserialize;

use super::{
    Dimensions, Encoder, check_epsilon, check_rotated, check_sizes, prefix, rope_theta, unsupported,
};
use crate::error::{Error, Result};
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
    num_key_value_heads: usize,
    head_dim: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f32,
    query_pre_attn_scalar: f32,
    #[serde(skip)]
    theta: f32,
    #[serde(skip)]
    local_theta: f32,
    hidden_activation: String,
    sliding_window: usize,
    #[serde(default)]
    layer_types: Option<Vec<String>>,
    #[serde(default)]
    sliding_window_pattern: Option<usize>,
    /// What some checkpoints call the same.
    #[serde(default, rename = "_sliding_window_pattern")]
    other_sliding_window_pattern: Option<usize>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    attn_logit_softcapping: Option<f32>,
    #[serde(default)]
    use_bidirectional_attention: Option<bool>,
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self> {
        let json = config;
        let mut config: Self = super::parse(json)?;
        let theta = rope_theta(json, "rope_theta", "full_attention")?;
        let local_theta = rope_theta(json, "rope_local_base_freq", "sliding_attention")?;
        config.theta = theta.unwrap_or(1_000_000.0);
        config.local_theta = local_theta.unwrap_or(10_000.0);
        check_sizes(&[
            ("hidden_size", config.hidden_size, 1 << 16),
            ("num_hidden_layers", config.num_hidden_layers, 1 << 10),
            ("num_attention_heads", config.num_attention_heads, 1 << 10),
            ("num_key_value_heads", config.num_key_value_heads, 1 << 10),
            ("head_dim", config.head_dim, 1 << 12),
            ("intermediate_size", config.intermediate_size, 1 << 20),
            ("vocab_size", config.vocab_size, 1 << 24),
            ("max_position_embeddings", config.max_position_embeddings, 1 << 24),
            ("sliding_window", config.sliding_window, 1 << 24),
            ("sliding_window_pattern", config.pattern(), 1 << 10),
        ])?;
        check_epsilon("rms_norm_eps", config.rms_norm_eps)?;
        check_rotated(config.heads())?;
        if !(config.query_pre_attn_scalar.is_finite() && config.query_pre_attn_scalar > 0.0) {
            let reason = format!("is {}", config.query_pre_attn_scalar);
            return Err(Error::config("query_pre_attn_scalar", reason));
        }
        if config.attn_logit_softcapping.is_some() {
            return Err(unsupported("Gemma 3 with attn_logit_softcapping"));
        }
        Ok(config)
    }

    fn heads(&self) -> Heads {
        Heads {
            count: self.num_attention_heads,
            kv_count: self.num_key_value_heads,
            head_dim: self.head_dim,
        }
    }

    /// The last of so many layers is global.
    fn pattern(&self) -> usize {
        self.sliding_window_pattern.or(self.other_sliding_window_pattern).unwrap_or(6)
    }

    fn is_global(&self, layer: usize) -> bool {
        match self.layer_types.as_ref().and_then(|types| types.get(layer)) {
            Some(kind) => kind == "full_attention",
            None => (layer + 1).is_multiple_of(self.pattern()),
        }
    }

    fn looks_both_ways(&self) -> bool {
        self.use_bidirectional_attention == Some(true)
    }

    /// In local layers. The window holds the query itself; in both directions half of it lies on each side.
    fn local_mask(&self) -> Mask {
        if self.looks_both_ways() {
            Mask { causal: false, window: Some(self.sliding_window / 2) }
        } else {
            Mask { causal: true, window: Some(self.sliding_window - 1) }
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

/// A Gemma 3 decoder with its weights in backend `B`.
pub(super) struct Gemma3<B: Backend> {
    word: B::Table,
    /// What embeddings are multiplied by.
    scale: f32,
    layers: Vec<Layer<B>>,
    final_norm: B::Norm,
    heads: Heads,
    attention_scale: f32,
    activation: Activation,
    global: Reach,
    local: Reach,
}

/// How far a layer looks, and how it tells positions.
struct Reach {
    mask: Mask,
    rope: Rope,
}

struct Layer<B: Backend> {
    attention_norm: B::Norm,
    qkv: B::Linear,
    query_norm: B::Norm,
    key_norm: B::Norm,
    attention_output: B::Linear,
    attention_output_norm: B::Norm,
    feed_forward_norm: B::Norm,
    gate: B::Linear,
    up: B::Linear,
    down: B::Linear,
    feed_forward_output_norm: B::Norm,
    global: bool,
}

impl<B: Backend> Gemma3<B> {
    pub(super) fn load(from: &mut impl Load<B>, config: &Config) -> Result<Self> {
        let (hidden, inner, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let root = prefix(from, &["model."], "embed_tokens.weight");
        let norm_of = |name: String, width| NormSpec {
            kind: NormKind::RmsPlusOne,
            ..NormSpec::rms(name, width, config.rms_norm_eps)
        };
        let norm = |name: String| norm_of(name, hidden);
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for i in 0..config.num_hidden_layers {
            let layer = format!("{root}layers.{i}");
            let attention = format!("{layer}.self_attn");
            let parts = ["q_proj", "k_proj", "v_proj"];
            let qkv = LinearSpec::fused(&attention, "qkv_proj", &parts, heads.width(), hidden)
                .with_bias(config.attention_bias);
            let linear = |part, rows, columns, bias| {
                LinearSpec::new(format!("{layer}.{part}"), rows, columns).with_bias(bias)
            };
            let queries = heads.count * heads.head_dim;
            let (dim, biased) = (heads.head_dim, config.attention_bias);
            let output = linear("self_attn.o_proj", hidden, queries, biased);
            let after_attention = format!("{layer}.post_attention_layernorm");
            let before_feed_forward = format!("{layer}.pre_feedforward_layernorm");
            let after_feed_forward = format!("{layer}.post_feedforward_layernorm");
            layers.push(Layer {
                attention_norm: from.norm(&norm(format!("{layer}.input_layernorm")))?,
                qkv: from.linear(&qkv)?,
                query_norm: from.norm(&norm_of(format!("{attention}.q_norm"), dim))?,
                key_norm: from.norm(&norm_of(format!("{attention}.k_norm"), dim))?,
                attention_output: from.linear(&output)?,
                attention_output_norm: from.norm(&norm(after_attention))?,
                feed_forward_norm: from.norm(&norm(before_feed_forward))?,
                gate: from.linear(&linear("mlp.gate_proj", inner, hidden, false))?,
                up: from.linear(&linear("mlp.up_proj", inner, hidden, false))?,
                down: from.linear(&linear("mlp.down_proj", hidden, inner, false))?,
                feed_forward_output_norm: from.norm(&norm(after_feed_forward))?,
                global: config.is_global(i),
            });
        }
        Ok(Self {
            word: from.table(&format!("{root}embed_tokens"), config.vocab_size, hidden)?,
            scale: (hidden as f32).sqrt(),
            layers,
            final_norm: from.norm(&norm(format!("{root}norm")))?,
            heads,
            attention_scale: 1.0 / config.query_pre_attn_scalar.sqrt(),
            activation: Activation::parse(&config.hidden_activation)?,
            global: Reach {
                mask: Mask { causal: !config.looks_both_ways(), window: None },
                rope: Rope::new(config.theta, heads.head_dim),
            },
            local: Reach {
                mask: config.local_mask(),
                rope: Rope::new(config.local_theta, heads.head_dim),
            },
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for Gemma3<B> {
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let [queries, keys, _] = self.heads.columns();
        let mut hidden = ops.scale(ops.embedding(&[(&self.word, &batch.ids)])?, self.scale)?;
        for layer in &self.layers {
            let reach = if layer.global { &self.global } else { &self.local };
            let attention = Attention {
                scale: self.attention_scale,
                mask: reach.mask,
                ..Attention::of(self.heads)
            };
            let attended = {
                let normed = ops.norm(ops.copy(&hidden)?, &layer.attention_norm)?;
                let qkv = ops.linear(&normed, &layer.qkv, Epilogue::None)?;
                let qkv = ops.norm_heads(qkv, queries.clone(), &layer.query_norm)?;
                let qkv = ops.norm_heads(qkv, keys.clone(), &layer.key_norm)?;
                let qkv =
                    ops.rotate(qkv, queries.start..keys.end, &reach.rope, &batch.positions)?;
                ops.attention(&qkv, &attention, &batch.offsets)?
            };
            let attended = ops.linear(&attended, &layer.attention_output, Epilogue::None)?;
            hidden = ops.add(ops.norm(attended, &layer.attention_output_norm)?, &hidden)?;

            let normed = ops.norm(ops.copy(&hidden)?, &layer.feed_forward_norm)?;
            let gate = ops.linear(&normed, &layer.gate, Epilogue::Activate(self.activation))?;
            let gated = ops.linear(&normed, &layer.up, Epilogue::Multiply(&gate))?;
            let output = ops.linear(&gated, &layer.down, Epilogue::None)?;
            hidden = ops.add(ops.norm(output, &layer.feed_forward_output_norm)?, &hidden)?;
        }
        ops.norm(hidden, &self.final_norm)
    }
}
