"""BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) and XLM-RoBERTa (Conneau et al. 2020).

Hugging Face: `BertModel`, `RobertaModel`, `XLMRobertaModel`. The three differ in the position of
the first token alone: 0 in BERT, padding id + 1 in the others.
"""

import numpy as np
from numpy.typing import NDArray

from arrowembed_converter.reference.common import Architecture, Config, Weights
from arrowembed_converter.reference.operations import (
    Array,
    attention,
    merge_heads,
    positions_after_padding,
    split_heads,
)


class Bert(Architecture):
    """Learned positions, post-norm layers."""

    EMBEDDINGS = "embeddings.word_embeddings.weight"

    def __init__(self, config: Config, weights: Weights) -> None:
        config.only("position_embedding_type", ["absolute"])
        config.only("is_decoder", [False])
        self.weights = weights
        self.num_layers: int = config.need("num_hidden_layers")
        self.num_heads: int = config.need("num_attention_heads")
        self.eps: float = config.get("layer_norm_eps", default=1e-12)
        self.activation = config.activation("hidden_act", "gelu")

    @staticmethod
    def max_positions(config: Config) -> int:
        """As many as the table has rows."""
        return int(config.need("max_position_embeddings"))

    def positions(self, ids: list[int]) -> NDArray[np.int64]:
        """Rows of the position table."""
        return np.arange(len(ids))

    def hidden_states(self, ids: list[int], type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        w, eps = self.weights, self.eps
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][self.positions(ids)]
            + w["embeddings.token_type_embeddings.weight"][type_ids]
        )
        x = w.layer_norm("embeddings.LayerNorm", x, eps)
        states = [x]
        for i in range(self.num_layers):
            layer = f"encoder.layer.{i}"
            attended = w.linear(f"{layer}.attention.output.dense", self._attention(layer, x))
            x = w.layer_norm(f"{layer}.attention.output.LayerNorm", x + attended, eps)
            inner = self.activation(w.linear(f"{layer}.intermediate.dense", x))
            x = w.layer_norm(
                f"{layer}.output.LayerNorm", x + w.linear(f"{layer}.output.dense", inner), eps
            )
            states.append(x)
        return states

    def _attention(self, layer: str, x: Array) -> Array:
        query, key, value = (
            split_heads(self.weights.linear(f"{layer}.attention.self.{name}", x), self.num_heads)
            for name in ("query", "key", "value")
        )
        return merge_heads(attention(query, key, value, scale=query.shape[-1] ** -0.5))


class Roberta(Bert):
    """The same with positions that begin after the padding id."""

    def __init__(self, config: Config, weights: Weights) -> None:
        super().__init__(config, weights)
        self.padding_id: int = config.get("pad_token_id", default=1)

    @staticmethod
    def max_positions(config: Config) -> int:
        """Rows of the table, less those up to the padding's, which no token has."""
        rows = int(config.need("max_position_embeddings"))
        return rows - int(config.get("pad_token_id", default=1)) - 1

    def positions(self, ids: list[int]) -> NDArray[np.int64]:
        """Rows of the position table."""
        return positions_after_padding(ids, self.padding_id)
