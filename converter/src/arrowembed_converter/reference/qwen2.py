"""Qwen2 (Yang et al. 2024) as an encoder; Hugging Face: `Qwen2Model`.

Rotary positions, grouped queries, SwiGLU, RMS norm before each half of a layer. It attends to what
stands before a token, unless the configuration says `is_causal: false`.
"""

from arrowembed_converter.reference.common import Architecture, Config, Weights
from arrowembed_converter.reference.operations import (
    Array,
    attention,
    causal,
    merge_heads,
    rope,
    split_heads,
)


class Qwen2(Architecture):
    """Decoder layers with biases on queries, keys and values."""

    EMBEDDINGS = "embed_tokens.weight"

    def __init__(self, config: Config, weights: Weights) -> None:
        config.only("use_sliding_window", [False])
        self.weights = weights
        self.num_layers: int = config.need("num_hidden_layers")
        self.num_heads: int = config.need("num_attention_heads")
        self.num_key_value_heads: int = config.get("num_key_value_heads", default=self.num_heads)
        self.eps: float = config.get("rms_norm_eps", default=1e-6)
        self.activation = config.activation("hidden_act", "silu")
        self.theta = config.rope_theta("rope_theta")
        self.is_causal = bool(config.get("is_causal", default=True))

    @staticmethod
    def max_positions(config: Config) -> int:
        """The configuration's word; any position can be computed."""
        return int(config.need("max_position_embeddings"))

    def hidden_states(self, ids: list[int], _type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        w, eps = self.weights, self.eps
        x = w["embed_tokens.weight"][ids]
        states = [x]
        for i in range(self.num_layers):
            layer = f"layers.{i}"
            x = x + self._attention(layer, w.rms_norm(f"{layer}.input_layernorm", x, eps))
            normed = w.rms_norm(f"{layer}.post_attention_layernorm", x, eps)
            gate = self.activation(w.linear(f"{layer}.mlp.gate_proj", normed, bias=False))
            up = w.linear(f"{layer}.mlp.up_proj", normed, bias=False)
            x = x + w.linear(f"{layer}.mlp.down_proj", gate * up, bias=False)
            states.append(x)
        states[-1] = w.rms_norm("norm", x, eps)
        return states

    def _attention(self, layer: str, x: Array) -> Array:
        w, kv_heads = self.weights, self.num_key_value_heads
        query = split_heads(w.linear(f"{layer}.self_attn.q_proj", x), self.num_heads)
        key = split_heads(w.linear(f"{layer}.self_attn.k_proj", x), kv_heads)
        value = split_heads(w.linear(f"{layer}.self_attn.v_proj", x), kv_heads)
        query, key = rope(query, self.theta), rope(key, self.theta)
        mask = causal(len(x)) if self.is_causal else None
        mixed = attention(query, key, value, scale=query.shape[-1] ** -0.5, mask=mask)
        return w.linear(f"{layer}.self_attn.o_proj", merge_heads(mixed), bias=False)
