"""A sentence encoder: text to vector.

    text -> token ids -> transformer -> pooling -> (Dense, Normalize) -> vector

The transformer is the one that the registry has for the model's type.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from arrowembed_converter.reference import common, registry
from arrowembed_converter.reference.common import Config, Settings
from arrowembed_converter.reference.operations import Array


def read_settings(folder: Path, modules: list[dict[str, Any]]) -> Settings:
    """Reads what sentence-transformers adds to the transformer, and refuses unknown models."""
    config = Config(folder / modules[0]["path"] / "config.json")
    max_positions = registry.architecture_of(config).max_positions(config)
    return common.read_sentence_settings(folder, modules, max_positions)


class Reference:
    """A sentence encoder read from a Hugging Face or sentence-transformers folder.

    Raises FileNotFoundError where a file is missing and `UnsupportedReferenceError` for models of
    another kind.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        modules = common.read_modules(folder)
        transformer = folder / modules[0]["path"]
        self.settings = read_settings(folder, modules)
        config = Config(transformer / "config.json")
        architecture = registry.architecture_of(config)
        self.weights = common.read_weights(transformer, architecture.EMBEDDINGS)
        self._transformer = architecture(config, self.weights)
        self._dimension: int = self.weights[architecture.EMBEDDINGS].shape[1]
        self._after_pooling: list[Callable[[Array], Array]] = []
        for module in modules[2:]:
            if common.module_kind(module) == "Dense":
                dense = common.Dense(folder / module["path"])
                self._dimension = dense.out_features
                self._after_pooling.append(dense)
            else:
                self._after_pooling.append(common.normalize)
        self.tokenizer: Tokenizer = Tokenizer.from_file(
            str(common.existing(transformer / "tokenizer.json"))
        )
        # A tokenizer.json may carry the padding and truncation of its training; neither is the
        # model's.
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def tokenize(self, text: str, pair: str | None = None) -> tuple[list[int], list[int], int]:
        """Token ids, segment ids, and the number of tokens before truncation.

        `pair` is a second text, which BERT was trained to tell from the first by its segment id.
        """
        if self.settings.do_lower_case:
            text, pair = text.lower(), pair if pair is None else pair.lower()
        encoding = self.tokenizer.encode(text, pair)
        full_length = len(encoding.ids)
        if full_length > self.settings.max_seq_length:
            # Encoded again, because truncation has to keep the closing special token.
            self.tokenizer.enable_truncation(self.settings.max_seq_length)
            encoding = self.tokenizer.encode(text, pair)
            self.tokenizer.no_truncation()
        return encoding.ids, encoding.type_ids, full_length

    def hidden_states(self, ids: list[int], type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        return self._transformer.hidden_states(ids, type_ids)

    def encode_one(self, text: str, pair: str | None = None) -> Array:
        """The vector of a text, or of two; zeros where there is not a single token to pool."""
        ids, type_ids, _ = self.tokenize(text, pair)
        if not ids:
            return np.zeros(self._dimension)
        vector = common.POOLINGS[self.settings.pooling](self.hidden_states(ids, type_ids)[-1])
        for module in self._after_pooling:
            vector = module(vector)
        return vector

    def encode(self, texts: Iterable[str]) -> Array:
        """The (texts, dimension) matrix of vectors."""
        vectors = [self.encode_one(text) for text in texts]
        return np.stack(vectors) if vectors else np.empty((0, self._dimension))
