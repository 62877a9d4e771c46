//! Nomic BERT (Nussbaum et al. 2024), the encoder of nomic-embed-text: BERT with rotary positions and SwiGLU,
//! without biases.

use serde::Deserialize;

use super::{
    Dimensions, Encoder, check_epsilon, check_rotated, check_sizes, heads, prefix, rope_theta,
    unsupported,
};
use crate::error::Result;
use crate::ops::{
    Activation, Attention, Backend, Epilogue, Heads, LinearSpec, Load, NormSpec, Ops, Rope,
};
use crate::plan::MicroBatch;

/// The keys of `config.json` that matter here, by the names of the checkpoints' own code; transformers' names
/// are read as well.
#[derive(Debug, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // as the file has them
pub(super) struct Config {
    #[serde(alias = "hidden_size")]
    n_embd: usize,
    #[serde(alias = "num_hidden_layers")]
    n_layer: usize,
    #[serde(alias = "num_attention_heads")]
    n_head: usize,
    #[serde(alias = "intermediate_size")]
    n_inner: usize,
    #[serde(alias = "max_position_embeddings")]
    n_positions: usize,
    vocab_size: usize,
    type_vocab_size: usize,
    #[serde(alias = "layer_norm_eps")]
    layer_norm_epsilon: f32,
    #[serde(alias = "hidden_act")]
    activation_function: String,
    #[serde(skip)]
    theta: f32,
    #[serde(default = "whole")]
    rotary_emb_fraction: f32,
    #[serde(default)]
    rotary_emb_interleaved: bool,
    #[serde(default)]
    rotary_scaling_factor: Option<f32>,
    #[serde(default)]
    max_trained_positions: Option<usize>,
    #[serde(default)]
    prenorm: bool,
    #[serde(default)]
    use_rms_norm: bool,
    #[serde(default)]
    parallel_block: bool,
    #[serde(default)]
    rotary_emb_scale_base: Option<f32>,
    #[serde(default)]
    num_experts: Option<usize>,
    #[serde(default)]
    qkv_proj_bias: bool,
    #[serde(default)]
    mlp_fc1_bias: bool,
    #[serde(default)]
    mlp_fc2_bias: bool,
}

fn whole() -> f32 {
    1.0
}

impl Config {
    pub(super) fn parse(config: &serde_json::Value) -> Result<Self> {
        let json = config;
        let mut config: Self = super::parse(json)?;
        let theta = rope_theta(json, "rotary_emb_base", "full_attention")?;
        config.theta = theta.unwrap_or(10_000.0);
        check_sizes(&[
            ("n_embd", config.n_embd, 1 << 16),
            ("n_layer", config.n_layer, 1 << 10),
            ("n_head", config.n_head, 1 << 10),
            ("n_inner", config.n_inner, 1 << 20),
            ("n_positions", config.n_positions, 1 << 22),
            ("max_trained_positions", config.positions(), 1 << 22),
            ("vocab_size", config.vocab_size, 1 << 24),
            ("type_vocab_size", config.type_vocab_size, 1 << 10),
        ])?;
        check_epsilon("layer_norm_epsilon", config.layer_norm_epsilon)?;
        check_rotated(heads(config.n_embd, config.n_head)?)?;
        for (other, what) in [
            (config.rotary_emb_fraction < 1.0, "rotary_emb_fraction below 1"),
            (config.rotary_emb_interleaved, "rotary_emb_interleaved"),
            (config.prenorm, "prenorm"),
            (config.use_rms_norm, "use_rms_norm"),
            (config.parallel_block, "parallel_block"),
            (config.rotary_emb_scale_base.is_some(), "rotary_emb_scale_base"),
            (config.num_experts.is_some_and(|experts| experts > 0), "experts"),
        ] {
            if other {
                return Err(unsupported(format!("Nomic BERT with {what}")));
            }
        }
        if !matches!(config.activation_function.as_str(), "swiglu" | "silu") {
            let other = &config.activation_function;
            return Err(unsupported(format!("Nomic BERT with activation_function {other:?}")));
        }
        Ok(config)
    }

    /// With a scaling factor, texts longer than those of the training are rotated otherwise, depending on their
    /// length; that is not done here.
    fn positions(&self) -> usize {
        match (self.rotary_scaling_factor, self.max_trained_positions) {
            (Some(_), Some(trained)) => trained.min(self.n_positions),
            _ => self.n_positions,
        }
    }

    pub(super) fn dimensions(&self) -> Dimensions {
        Dimensions {
            hidden_size: self.n_embd,
            num_hidden_layers: self.n_layer,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.positions(),
        }
    }
}

/// A Nomic BERT encoder with its weights in backend `B`.
pub(super) struct NomicBert<B: Backend> {
    word: B::Table,
    token_type: B::Table,
    embedding_norm: B::Norm,
    rope: Rope,
    layers: Vec<Layer<B>>,
    heads: Heads,
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

impl<B: Backend> NomicBert<B> {
    pub(super) fn load(from: &mut impl Load<B>, config: &Config) -> Result<Self> {
        let (hidden, inner) = (config.n_embd, config.n_inner);
        let root = prefix(from, &["bert."], "embeddings.word_embeddings.weight");
        let norm = |name: String| NormSpec::layer(name, hidden, config.layer_norm_epsilon);
        let mut layers = Vec::with_capacity(config.n_layer);
        for i in 0..config.n_layer {
            let layer = format!("{root}encoder.layers.{i}");
            let linear = |part, rows, columns, bias| {
                LinearSpec::new(format!("{layer}.{part}"), rows, columns).with_bias(bias)
            };
            let (qkv, fc1, fc2) = (config.qkv_proj_bias, config.mlp_fc1_bias, config.mlp_fc2_bias);
            layers.push(Layer {
                qkv: from.linear(&linear("attn.Wqkv", 3 * hidden, hidden, qkv))?,
                attention_output: from.linear(&linear("attn.out_proj", hidden, hidden, qkv))?,
                attention_norm: from.norm(&norm(format!("{layer}.norm1")))?,
                gate: from.linear(&linear("mlp.fc12", inner, hidden, fc1))?,
                up: from.linear(&linear("mlp.fc11", inner, hidden, fc1))?,
                down: from.linear(&linear("mlp.fc2", hidden, inner, fc2))?,
                output_norm: from.norm(&norm(format!("{layer}.norm2")))?,
            });
        }
        let embeddings = format!("{root}embeddings");
        let mut table =
            |name: &str, rows| from.table(&format!("{embeddings}.{name}"), rows, hidden);
        let heads = heads(hidden, config.n_head)?;
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            token_type: table("token_type_embeddings", config.type_vocab_size)?,
            embedding_norm: from.norm(&norm(format!("{root}emb_ln")))?,
            rope: Rope::new(config.theta, heads.head_dim),
            layers,
            heads,
        })
    }
}

impl<B: Backend, O: Ops<B>> Encoder<B, O> for NomicBert<B> {
    fn forward(&self, ops: &O, batch: &MicroBatch) -> Result<O::Tensor> {
        let attention = Attention::of(self.heads);
        let [queries, keys, _] = self.heads.columns();
        let embedded =
            ops.embedding(&[(&self.word, &batch.ids), (&self.token_type, &batch.type_ids)])?;
        let mut hidden = ops.norm(embedded, &self.embedding_norm)?;
        for layer in &self.layers {
            let attended = {
                let qkv = ops.linear(&hidden, &layer.qkv, Epilogue::None)?;
                let qkv = ops.rotate(qkv, queries.start..keys.end, &self.rope, &batch.positions)?;
                ops.attention(&qkv, &attention, &batch.offsets)?
            };
            let attended =
                ops.linear(&attended, &layer.attention_output, Epilogue::Add(&hidden))?;
            hidden = ops.norm(attended, &layer.attention_norm)?;

            let gate = ops.linear(&hidden, &layer.gate, Epilogue::Activate(Activation::Silu))?;
            let gated = ops.linear(&hidden, &layer.up, Epilogue::Multiply(&gate))?;
            let output = ops.linear(&gated, &layer.down, Epilogue::Add(&hidden))?;
            hidden = ops.norm(output, &layer.output_norm)?;
        }
        Ok(hidden)
    }
}
