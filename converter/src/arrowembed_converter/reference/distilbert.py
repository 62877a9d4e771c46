"""DistilBERT (Sanh et al. 2019); Hugging Face: `DistilBertModel`.

BERT without token types, under other names.
"""

from arrowembed_converter.reference.common import Architecture, Config, Weights
from arrowembed_converter.reference.operations import Array, attention, merge_heads, split_heads

EPS = 1e-12
"""Hugging Face's `DistilBertModel` has it in its code, not in the configuration."""


class DistilBert(Architecture):
    """Learned positions, post-norm layers."""

    EMBEDDINGS = "embeddings.word_embeddings.weight"

    def __init__(self, config: Config, weights: Weights) -> None:
        self.weights = weights
        self.num_layers: int = config.need("n_layers")
        self.num_heads: int = config.need("n_heads")
        self.activation = config.activation("activation", "gelu")

    @staticmethod
    def max_positions(config: Config) -> int:
        """As many as the table has rows. Sinusoidal positions are stored in it, too."""
        return int(config.need("max_position_embeddings"))

    def hidden_states(self, ids: list[int], _type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        w = self.weights
        x = (
            w["embeddings.word_embeddings.weight"][ids]
            + w["embeddings.position_embeddings.weight"][: len(ids)]
        )
        x = w.layer_norm("embeddings.LayerNorm", x, EPS)
        states = [x]
        for i in range(self.num_layers):
            layer = f"transformer.layer.{i}"
            query, key, value = (
                split_heads(w.linear(f"{layer}.attention.{name}_lin", x), self.num_heads)
                for name in "qkv"
            )
            mixed = attention(query, key, value, scale=query.shape[-1] ** -0.5)
            attended = w.linear(f"{layer}.attention.out_lin", merge_heads(mixed))
            x = w.layer_norm(f"{layer}.sa_layer_norm", x + attended, EPS)
            inner = self.activation(w.linear(f"{layer}.ffn.lin1", x))
            x = w.layer_norm(
                f"{layer}.output_layer_norm", x + w.linear(f"{layer}.ffn.lin2", inner), EPS
            )
            states.append(x)
        return states
