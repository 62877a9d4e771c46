"""Gemma 3 (2025) and EmbeddingGemma (2025); Hugging Face: `Gemma3TextModel`.

Rotary positions, grouped queries, normalised queries and keys, GeGLU, and a norm before and after
each half of a layer. Most layers attend to a window, every sixth to the whole text.
EmbeddingGemma attends to both sides (`use_bidirectional_attention`).
"""

import math

from arrowembed_converter.reference.common import Architecture, Config, Weights
from arrowembed_converter.reference.operations import (
    Array,
    Mask,
    attention,
    causal,
    distances,
    merge_heads,
    rms_norm,
    rope,
    split_heads,
    within,
)


class Gemma3(Architecture):
    """Global and local attention, norms before and after."""

    EMBEDDINGS = "embed_tokens.weight"

    def __init__(self, config: Config, weights: Weights) -> None:
        config.only("attn_logit_softcapping", [None])
        self.weights = weights
        self.num_heads: int = config.need("num_attention_heads")
        self.num_key_value_heads: int = config.get("num_key_value_heads", default=self.num_heads)
        self.eps: float = config.get("rms_norm_eps", default=1e-6)
        self.activation = config.activation("hidden_activation", "gelu_pytorch_tanh")
        self.bias = bool(config.get("attention_bias", default=False))
        self.scale: float = config.need("query_pre_attn_scalar") ** -0.5
        self.bidirectional = bool(config.get("use_bidirectional_attention", default=False))
        self.sliding_window: int = config.need("sliding_window")
        pattern = config.get("sliding_window_pattern", "_sliding_window_pattern", default=6)
        self.layer_types: list[str] = config.get("layer_types") or [
            "sliding_attention" if (i + 1) % pattern else "full_attention"
            for i in range(config.need("num_hidden_layers"))
        ]
        self.theta = {
            "full_attention": config.rope_theta("rope_theta", layer_type="full_attention"),
            "sliding_attention": config.rope_theta(
                "rope_local_base_freq", layer_type="sliding_attention"
            ),
        }

    @staticmethod
    def max_positions(config: Config) -> int:
        """The configuration's word; any position can be computed."""
        return int(config.need("max_position_embeddings"))

    def hidden_states(self, ids: list[int], _type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        embeddings = self.weights["embed_tokens.weight"]
        x = embeddings[ids] * math.sqrt(embeddings.shape[1])
        states = [x]
        for i, layer_type in enumerate(self.layer_types):
            layer = f"layers.{i}"
            attended = self._attention(layer, layer_type, self._norm(f"{layer}.input_layernorm", x))
            x = x + self._norm(f"{layer}.post_attention_layernorm", attended)
            inner = self._feed_forward(layer, self._norm(f"{layer}.pre_feedforward_layernorm", x))
            x = x + self._norm(f"{layer}.post_feedforward_layernorm", inner)
            states.append(x)
        states[-1] = self._norm("norm", x)
        return states

    def _norm(self, name: str, x: Array) -> Array:
        """RMS norm; `Gemma3RMSNorm` stores the gain less 1."""
        return rms_norm(x, 1 + self.weights[f"{name}.weight"], self.eps)

    def _attention(self, layer: str, layer_type: str, x: Array) -> Array:
        w, kv_heads, bias = self.weights, self.num_key_value_heads, self.bias
        query = split_heads(w.linear(f"{layer}.self_attn.q_proj", x, bias=bias), self.num_heads)
        key = split_heads(w.linear(f"{layer}.self_attn.k_proj", x, bias=bias), kv_heads)
        value = split_heads(w.linear(f"{layer}.self_attn.v_proj", x, bias=bias), kv_heads)
        # Along the head dimension, with one gain for all heads (Henry et al. 2020).
        theta = self.theta[layer_type]
        query = rope(self._norm(f"{layer}.self_attn.q_norm", query), theta)
        key = rope(self._norm(f"{layer}.self_attn.k_norm", key), theta)
        mixed = attention(query, key, value, scale=self.scale, mask=self._mask(layer_type, len(x)))
        return w.linear(f"{layer}.self_attn.o_proj", merge_heads(mixed), bias=bias)

    def _mask(self, layer_type: str, tokens: int) -> Mask | None:
        """`Gemma3TextModel.forward`: the window counts the token itself where it is one-sided.

        Two-sided, half of it lies to each side.
        """
        if self.bidirectional:
            half = self.sliding_window // 2
            return within(tokens, half) if layer_type == "sliding_attention" else None
        mask = causal(tokens)
        if layer_type == "sliding_attention":
            mask &= distances(tokens) < self.sliding_window
        return mask

    def _feed_forward(self, layer: str, x: Array) -> Array:
        """Shazeer 2020, gated linear unit."""
        gate = self.activation(self.weights.linear(f"{layer}.mlp.gate_proj", x, bias=False))
        up = self.weights.linear(f"{layer}.mlp.up_proj", x, bias=False)
        return self.weights.linear(f"{layer}.mlp.down_proj", gate * up, bias=False)
