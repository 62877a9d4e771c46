"""MPNet (Song et al. 2020); Hugging Face: `MPNetModel`.

BERT without token types, with positions that begin after the padding id as in RoBERTa, and with
the relative attention bias of T5 (Raffel et al. 2020).
"""

import math

import numpy as np
from numpy.typing import NDArray

from arrowembed_converter.reference.common import Architecture, Config, Weights
from arrowembed_converter.reference.operations import (
    Array,
    attention,
    distances,
    merge_heads,
    positions_after_padding,
    split_heads,
)

PADDING_ID = 1
"""Hugging Face's `MPNetEmbeddings` does not ask the configuration."""
NUM_BUCKETS = 32
MAX_DISTANCE = 128


class MPNet(Architecture):
    """Learned positions and relative attention bias, post-norm layers."""

    EMBEDDINGS = "embeddings.word_embeddings.weight"

    def __init__(self, config: Config, weights: Weights) -> None:
        # `compute_position_bias` has the number in its signature and is called without one.
        config.only("relative_attention_num_buckets", [NUM_BUCKETS])
        self.weights = weights
        self.num_layers: int = config.need("num_hidden_layers")
        self.num_heads: int = config.need("num_attention_heads")
        self.eps: float = config.get("layer_norm_eps", default=1e-12)
        self.activation = config.activation("hidden_act", "gelu")

    @staticmethod
    def max_positions(config: Config) -> int:
        """Rows of the table, less those up to the padding's, which no token has."""
        return int(config.need("max_position_embeddings")) - PADDING_ID - 1

    def hidden_states(self, ids: list[int], _type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        w, eps = self.weights, self.eps
        positions = positions_after_padding(ids, PADDING_ID)
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][positions]
        )
        x = w.layer_norm("embeddings.LayerNorm", x, eps)
        # One table for all layers: (buckets, heads) looked up is (tokens, tokens, heads).
        table = w["encoder.relative_attention_bias.weight"]
        bias = table[relative_position_buckets(len(ids))].transpose(2, 0, 1)
        states = [x]
        for i in range(self.num_layers):
            layer = f"encoder.layer.{i}"
            query, key, value = (
                split_heads(w.linear(f"{layer}.attention.attn.{name}", x), self.num_heads)
                for name in "qkv"
            )
            mixed = attention(query, key, value, scale=query.shape[-1] ** -0.5, bias=bias)
            attended = w.linear(f"{layer}.attention.attn.o", merge_heads(mixed))
            x = w.layer_norm(f"{layer}.attention.LayerNorm", x + attended, eps)
            inner = self.activation(w.linear(f"{layer}.intermediate.dense", x))
            x = w.layer_norm(
                f"{layer}.output.LayerNorm", x + w.linear(f"{layer}.output.dense", inner), eps
            )
            states.append(x)
        return states


def relative_position_buckets(tokens: int) -> NDArray[np.int64]:
    """(tokens, tokens): the bucket of the distance from the row's token to the column's.

    `MPNetEncoder.relative_position_bucket`: 16 buckets for what stands before or at the token, 16
    for what stands after it. In each half the distances below 8 have a bucket of their own; those
    up to 128 share 8 that grow logarithmically; all beyond are in the last.
    """
    before = distances(tokens)
    half = NUM_BUCKETS // 2
    exact = half // 2
    apart = np.abs(before)
    growth = np.log(np.maximum(apart, exact) / exact) / math.log(MAX_DISTANCE / exact)
    shared = np.minimum(exact + (growth * (half - exact)).astype(np.int64), half - 1)
    buckets: NDArray[np.int64] = np.where(before < 0, half, 0) + np.where(
        apart < exact, apart, shared
    )
    return buckets
