"""Nomic BERT (Nussbaum et al. 2024).

Hub: `NomicBertModel` of nomic-ai/nomic-bert-2048, whose names the checkpoints have; Hugging Face:
`NomicBertModel`, whose configuration keys are read, too. BERT with rotary positions and SwiGLU.
"""

import numpy as np

from arrowembed_converter.reference.common import Architecture, Config, Weights
from arrowembed_converter.reference.operations import (
    Array,
    attention,
    gelu,
    merge_heads,
    rope,
    sigmoid,
    silu,
    split_heads,
)

GATES = {"swiglu": silu, "geglu": gelu, "glu": sigmoid}
"""`activation_function` to what the gate goes through."""


class NomicBert(Architecture):
    """Rotary positions, gated feed-forward, post-norm layers."""

    EMBEDDINGS = "embeddings.word_embeddings.weight"

    def __init__(self, config: Config, weights: Weights) -> None:
        for key in (
            *("prenorm", "use_rms_norm", "causal", "parallel_block", "rotary_emb_interleaved"),
            *("scale_attn_by_inverse_layer_idx", "num_experts"),
        ):
            config.only(key, [False])
        config.only("scale_attn_weights", [True])
        config.only("rotary_emb_fraction", [1.0])
        config.only("activation_function", list(GATES))
        config.only("hidden_act", ["silu"])
        self.weights = weights
        self.num_layers: int = config.need("n_layer", "num_hidden_layers")
        self.num_heads: int = config.need("n_head", "num_attention_heads")
        self.eps: float = config.get("layer_norm_epsilon", "layer_norm_eps", default=1e-12)
        self.theta = config.rope_theta("rotary_emb_base")
        self.gate = GATES[config.get("activation_function", default="swiglu")]
        self.attention_bias = bool(config.get("qkv_proj_bias", default=False))
        self.up_bias = bool(config.get("mlp_fc1_bias", default=False))
        self.down_bias = bool(config.get("mlp_fc2_bias", default=False))

    @staticmethod
    def max_positions(config: Config) -> int:
        """The configuration's word; any position can be computed.

        `rotary_scaling_factor` changes the frequencies of texts that are longer than those of the
        training. This reference does not: it takes no more tokens then.
        """
        positions = int(config.need("n_positions", "max_position_embeddings"))
        if config.get("rotary_scaling_factor") is not None:
            return min(positions, int(config.need("max_trained_positions")))
        return positions

    def hidden_states(self, ids: list[int], type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        w, eps = self.weights, self.eps
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.token_type_embeddings.weight"][type_ids]
        )
        x = w.layer_norm("emb_ln", x, eps)
        states = [x]
        for i in range(self.num_layers):
            layer = f"encoder.layers.{i}"
            x = w.layer_norm(f"{layer}.norm1", x + self._attention(layer, x), eps)
            x = w.layer_norm(f"{layer}.norm2", x + self._feed_forward(layer, x), eps)
            states.append(x)
        return states

    def _attention(self, layer: str, x: Array) -> Array:
        packed = self.weights.linear(f"{layer}.attn.Wqkv", x, bias=self.attention_bias)
        query, key, value = (split_heads(part, self.num_heads) for part in np.split(packed, 3, 1))
        query, key = rope(query, self.theta), rope(key, self.theta)
        mixed = merge_heads(attention(query, key, value, scale=query.shape[-1] ** -0.5))
        return self.weights.linear(f"{layer}.attn.out_proj", mixed, bias=self.attention_bias)

    def _feed_forward(self, layer: str, x: Array) -> Array:
        """Shazeer 2020, gated linear unit: fc11 goes up, fc12 is the gate."""
        up = self.weights.linear(f"{layer}.mlp.fc11", x, bias=self.up_bias)
        gate = self.gate(self.weights.linear(f"{layer}.mlp.fc12", x, bias=self.up_bias))
        return self.weights.linear(f"{layer}.mlp.fc2", up * gate, bias=self.down_bias)
