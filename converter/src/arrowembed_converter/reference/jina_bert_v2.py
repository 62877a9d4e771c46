"""Jina BERT 2 (Günther et al. 2023): `JinaBertModel` of jinaai/jina-bert-implementation.

Its `model_type` is bert; its `position_embedding_type` alibi tells it apart. BERT without
positions, with the attention bias of ALiBi (Press et al. 2022) to both sides, and with GEGLU.
"""

import math

import numpy as np

from arrowembed_converter.reference.common import Architecture, Config, Weights
from arrowembed_converter.reference.operations import (
    Array,
    attention,
    distances,
    gelu,
    merge_heads,
    relu,
    split_heads,
)

GATES = {"geglu": gelu, "reglu": relu}
"""`feed_forward_type` to what the gate goes through."""


class JinaBertV2(Architecture):
    """Linear attention bias, gated feed-forward, post-norm layers."""

    EMBEDDINGS = "embeddings.word_embeddings.weight"

    def __init__(self, config: Config, weights: Weights) -> None:
        config.only("feed_forward_type", list(GATES))
        if any("layer_norm_q" in name for name in weights):
            raise config.unsupported(
                "queries and keys are normalised; the reference computes Jina BERT without that"
            )
        self.weights = weights
        self.num_layers: int = config.need("num_hidden_layers")
        self.num_heads: int = config.need("num_attention_heads")
        self.eps: float = config.get("layer_norm_eps", default=1e-12)
        self.gate = GATES[config.need("feed_forward_type")]

    @staticmethod
    def max_positions(config: Config) -> int:
        """The configuration's word; any distance can be computed."""
        return int(config.need("max_position_embeddings"))

    def hidden_states(self, ids: list[int], type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        w, eps = self.weights, self.eps
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.token_type_embeddings.weight"][type_ids]
        )
        x = w.layer_norm("embeddings.LayerNorm", x, eps)
        # (heads, tokens, tokens): the further away, the less, as fast as the head's slope says.
        slopes = np.array(alibi_slopes(self.num_heads))
        bias = -slopes[:, None, None] * np.abs(distances(len(ids)))
        states = [x]
        for i in range(self.num_layers):
            layer = f"encoder.layer.{i}"
            query, key, value = (
                split_heads(w.linear(f"{layer}.attention.self.{name}", x), self.num_heads)
                for name in ("query", "key", "value")
            )
            mixed = attention(query, key, value, scale=query.shape[-1] ** -0.5, bias=bias)
            attended = w.linear(f"{layer}.attention.output.dense", merge_heads(mixed))
            x = w.layer_norm(f"{layer}.attention.output.LayerNorm", x + attended, eps)
            # Shazeer 2020, gated linear unit: the first half of the rows is the gate.
            gate, up = np.split(w.linear(f"{layer}.mlp.gated_layers", x, bias=False), 2, axis=1)
            down = w.linear(f"{layer}.mlp.wo", self.gate(gate) * up)
            x = w.layer_norm(f"{layer}.mlp.layernorm", x + down, eps)
            states.append(x)
        return states


def alibi_slopes(num_heads: int) -> list[float]:
    """Press et al. 2022: 2^(-8/n), 2^(-16/n), ... for n heads, a power of two.

    For other numbers their code takes the slopes of the power of two below, and then every other
    one of the power of two above.
    """
    below = 2 ** math.floor(math.log2(num_heads))
    slopes = [2 ** (-8 * (i + 1) / below) for i in range(below)]
    above = [2 ** (-8 * (i + 1) / (2 * below)) for i in range(0, 2 * below, 2)]
    return slopes + above[: num_heads - below]
