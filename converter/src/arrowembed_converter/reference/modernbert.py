"""ModernBERT (Warner et al. 2024); Hugging Face: `ModernBertModel`.

Rotary positions, GeGLU, pre-norm, and two kinds of layers: every third attends to the whole text,
the others to a window around each token.
"""

import numpy as np

from arrowembed_converter.reference.common import Architecture, Config, Weights
from arrowembed_converter.reference.operations import (
    Array,
    attention,
    merge_heads,
    rope,
    split_heads,
    within,
)


class ModernBert(Architecture):
    """Global and local attention, pre-norm layers."""

    EMBEDDINGS = "embeddings.tok_embeddings.weight"

    def __init__(self, config: Config, weights: Weights) -> None:
        self.weights = weights
        self.num_heads: int = config.need("num_attention_heads")
        self.eps: float = config.get("norm_eps", default=1e-5)
        self.activation = config.activation("hidden_activation", "gelu")
        self.norm_bias = bool(config.get("norm_bias", default=False))
        self.attention_bias = bool(config.get("attention_bias", default=False))
        self.mlp_bias = bool(config.get("mlp_bias", default=False))
        every = config.get("global_attn_every_n_layers", default=3)
        self.layer_types: list[str] = config.get("layer_types") or [
            "sliding_attention" if i % every else "full_attention"
            for i in range(config.need("num_hidden_layers"))
        ]
        self.theta = {
            "full_attention": config.rope_theta("global_rope_theta", layer_type="full_attention"),
            "sliding_attention": config.rope_theta(
                "local_rope_theta", layer_type="sliding_attention"
            ),
        }
        # The configuration has the width of the window; half of it lies to each side.
        self.reach: int = config.get("local_attention", default=128) // 2

    @staticmethod
    def max_positions(config: Config) -> int:
        """The configuration's word; any position can be computed."""
        return int(config.need("max_position_embeddings"))

    def hidden_states(self, ids: list[int], _type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        w = self.weights
        x = self._norm("embeddings.norm", w["embeddings.tok_embeddings.weight"][ids])
        states = [x]
        for i, layer_type in enumerate(self.layer_types):
            layer = f"layers.{i}"
            # The embeddings have just been normalised.
            normed = x if i == 0 else self._norm(f"{layer}.attn_norm", x)
            x = x + self._attention(layer, layer_type, normed)
            x = x + self._feed_forward(layer, self._norm(f"{layer}.mlp_norm", x))
            states.append(x)
        states[-1] = self._norm("final_norm", x)
        return states

    def _norm(self, name: str, x: Array) -> Array:
        return self.weights.layer_norm(name, x, self.eps, bias=self.norm_bias)

    def _attention(self, layer: str, layer_type: str, x: Array) -> Array:
        packed = self.weights.linear(f"{layer}.attn.Wqkv", x, bias=self.attention_bias)
        query, key, value = (split_heads(part, self.num_heads) for part in np.split(packed, 3, 1))
        theta = self.theta[layer_type]
        query, key = rope(query, theta), rope(key, theta)
        mask = within(len(x), self.reach) if layer_type == "sliding_attention" else None
        mixed = attention(query, key, value, scale=query.shape[-1] ** -0.5, mask=mask)
        return self.weights.linear(f"{layer}.attn.Wo", merge_heads(mixed), bias=self.attention_bias)

    def _feed_forward(self, layer: str, x: Array) -> Array:
        """Shazeer 2020, gated linear unit: the first half of Wi goes through the activation."""
        gate, up = np.split(self.weights.linear(f"{layer}.mlp.Wi", x, bias=self.mlp_bias), 2, 1)
        inner = self.activation(gate) * up
        return self.weights.linear(f"{layer}.mlp.Wo", inner, bias=self.mlp_bias)
