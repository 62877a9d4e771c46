//! llama.cpp's tensor names, and the Hugging Face names of the same tensors.

/// How an architecture's tensors are called in both.
///
/// In a layer's names `{}` stands for its number.
pub(super) struct Names {
    /// Tensors that are there once.
    pub(super) once: &'static [(&'static str, &'static str)],
    /// Tensors of each layer.
    pub(super) layer: &'static [(&'static str, &'static str)],
}

impl Names {
    /// The Hugging Face name of a tensor, suffix included; `None` for those that are not used.
    pub(super) fn hugging_face(&self, name: &str) -> Option<String> {
        let (stem, suffix) = name.rsplit_once('.')?;
        let find = |names: &[(&str, &'static str)], stem: &str| {
            names.iter().find(|(ours, _)| *ours == stem).map(|&(_, theirs)| theirs)
        };
        if let Some(layer) = stem.strip_prefix("blk.") {
            let (number, part) = layer.split_once('.')?;
            number.parse::<usize>().ok()?;
            return Some(format!("{}.{suffix}", find(self.layer, part)?.replace("{}", number)));
        }
        Some(format!("{}.{suffix}", find(self.once, stem)?))
    }
}

pub(super) const BERT: Names = Names {
    once: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("position_embd", "embeddings.position_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "embeddings.LayerNorm"),
    ],
    layer: &[
        ("attn_q", "encoder.layer.{}.attention.self.query"),
        ("attn_k", "encoder.layer.{}.attention.self.key"),
        ("attn_v", "encoder.layer.{}.attention.self.value"),
        ("attn_qkv", "encoder.layer.{}.attention.self.qkv"),
        ("attn_output", "encoder.layer.{}.attention.output.dense"),
        ("attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm"),
        ("ffn_up", "encoder.layer.{}.intermediate.dense"),
        ("ffn_down", "encoder.layer.{}.output.dense"),
        ("layer_output_norm", "encoder.layer.{}.output.LayerNorm"),
    ],
};

pub(super) const DISTILBERT: Names = Names {
    once: BERT.once,
    layer: &[
        ("attn_q", "transformer.layer.{}.attention.q_lin"),
        ("attn_k", "transformer.layer.{}.attention.k_lin"),
        ("attn_v", "transformer.layer.{}.attention.v_lin"),
        ("attn_output", "transformer.layer.{}.attention.out_lin"),
        ("attn_output_norm", "transformer.layer.{}.sa_layer_norm"),
        ("ffn_up", "transformer.layer.{}.ffn.lin1"),
        ("ffn_down", "transformer.layer.{}.ffn.lin2"),
        ("layer_output_norm", "transformer.layer.{}.output_layer_norm"),
    ],
};

pub(super) const NOMIC_BERT: Names = Names {
    once: &[
        ("token_embd", "embeddings.word_embeddings"),
        ("token_types", "embeddings.token_type_embeddings"),
        ("token_embd_norm", "emb_ln"),
    ],
    layer: &[
        ("attn_qkv", "encoder.layers.{}.attn.Wqkv"),
        ("attn_output", "encoder.layers.{}.attn.out_proj"),
        ("attn_output_norm", "encoder.layers.{}.norm1"),
        ("ffn_up", "encoder.layers.{}.mlp.fc11"),
        ("ffn_gate", "encoder.layers.{}.mlp.fc12"),
        ("ffn_down", "encoder.layers.{}.mlp.fc2"),
        ("layer_output_norm", "encoder.layers.{}.norm2"),
    ],
};

/// With the gate in a matrix of its own, as older files have it.
pub(super) const JINA_BERT_GATED: Names = Names {
    once: BERT.once,
    layer: &[
        ("attn_q", "encoder.layer.{}.attention.self.query"),
        ("attn_k", "encoder.layer.{}.attention.self.key"),
        ("attn_v", "encoder.layer.{}.attention.self.value"),
        ("attn_output", "encoder.layer.{}.attention.output.dense"),
        ("attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm"),
        ("ffn_gate", "encoder.layer.{}.mlp.gate"),
        ("ffn_up", "encoder.layer.{}.mlp.up"),
        ("ffn_down", "encoder.layer.{}.mlp.wo"),
        ("layer_output_norm", "encoder.layer.{}.mlp.layernorm"),
    ],
};

pub(super) const JINA_BERT: Names = Names {
    once: BERT.once,
    layer: &[
        ("attn_q", "encoder.layer.{}.attention.self.query"),
        ("attn_k", "encoder.layer.{}.attention.self.key"),
        ("attn_v", "encoder.layer.{}.attention.self.value"),
        ("attn_output", "encoder.layer.{}.attention.output.dense"),
        ("attn_output_norm", "encoder.layer.{}.attention.output.LayerNorm"),
        ("ffn_up", "encoder.layer.{}.mlp.gated_layers"),
        ("ffn_down", "encoder.layer.{}.mlp.wo"),
        ("layer_output_norm", "encoder.layer.{}.mlp.layernorm"),
    ],
};

pub(super) const MODERNBERT: Names = Names {
    once: &[
        ("token_embd", "embeddings.tok_embeddings"),
        ("token_embd_norm", "embeddings.norm"),
        ("output_norm", "final_norm"),
    ],
    layer: &[
        ("attn_norm", "layers.{}.attn_norm"),
        ("attn_qkv", "layers.{}.attn.Wqkv"),
        ("attn_output", "layers.{}.attn.Wo"),
        ("ffn_norm", "layers.{}.mlp_norm"),
        ("ffn_up", "layers.{}.mlp.Wi"),
        ("ffn_down", "layers.{}.mlp.Wo"),
    ],
};

pub(super) const QWEN: Names = Names {
    once: &[("token_embd", "embed_tokens"), ("output_norm", "norm")],
    layer: &[
        ("attn_norm", "layers.{}.input_layernorm"),
        ("attn_q", "layers.{}.self_attn.q_proj"),
        ("attn_k", "layers.{}.self_attn.k_proj"),
        ("attn_v", "layers.{}.self_attn.v_proj"),
        ("attn_q_norm", "layers.{}.self_attn.q_norm"),
        ("attn_k_norm", "layers.{}.self_attn.k_norm"),
        ("attn_output", "layers.{}.self_attn.o_proj"),
        ("ffn_norm", "layers.{}.post_attention_layernorm"),
        ("ffn_gate", "layers.{}.mlp.gate_proj"),
        ("ffn_up", "layers.{}.mlp.up_proj"),
        ("ffn_down", "layers.{}.mlp.down_proj"),
    ],
};

pub(super) const GEMMA3: Names = Names {
    once: &[
        ("token_embd", "embed_tokens"),
        ("output_norm", "norm"),
        ("dense_2", "2_Dense.linear"),
        ("dense_3", "3_Dense.linear"),
    ],
    layer: &[
        ("attn_norm", "layers.{}.input_layernorm"),
        ("attn_q", "layers.{}.self_attn.q_proj"),
        ("attn_k", "layers.{}.self_attn.k_proj"),
        ("attn_v", "layers.{}.self_attn.v_proj"),
        ("attn_q_norm", "layers.{}.self_attn.q_norm"),
        ("attn_k_norm", "layers.{}.self_attn.k_norm"),
        ("attn_output", "layers.{}.self_attn.o_proj"),
        ("post_attention_norm", "layers.{}.post_attention_layernorm"),
        ("ffn_norm", "layers.{}.pre_feedforward_layernorm"),
        ("ffn_gate", "layers.{}.mlp.gate_proj"),
        ("ffn_up", "layers.{}.mlp.up_proj"),
        ("ffn_down", "layers.{}.mlp.down_proj"),
        ("post_ffw_norm", "layers.{}.post_feedforward_layernorm"),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_translated_and_others_passed_over() {
        let found = |name| BERT.hugging_face(name);
        assert_eq!(found("token_types.weight").unwrap(), "embeddings.token_type_embeddings.weight");
        assert_eq!(
            found("blk.11.attn_q.bias").unwrap(),
            "encoder.layer.11.attention.self.query.bias"
        );
        for other in ["output.weight", "blk.x.attn_q.bias", "blk.1", "cls.bias", "blk.1.attn_q"] {
            assert_eq!(found(other), None, "{other}");
        }
    }
}
