"""A BERT sentence encoder in NumPy float64: the independent answer the engine is checked against.

It reads the same Hugging Face folder as the converter but shares no code with the engine, computes
one text at a time without padding, and prefers the plain formula to the fast one. Read it from top
to bottom: settings, weights, tokens, embeddings, layers, pooling.

    text -> token ids -> embeddings -> N x (attention, feed-forward) -> pooling -> vector

Sources: Vaswani et al. 2017 (attention), Devlin et al. 2019 (BERT), and the configuration files as
`transformers` and `sentence-transformers` read them.
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from tokenizers import Tokenizer

Array = NDArray[np.float64]
"""Token matrices are (tokens, hidden); vectors are (hidden,)."""


class UnsupportedReferenceError(ValueError):
    """The folder holds a model that this reference cannot compute."""


@dataclass(frozen=True)
class Settings:
    """What the configuration files of a Hugging Face folder say."""

    num_layers: int
    num_heads: int
    layer_norm_eps: float
    activation: str
    max_seq_length: int
    """Longest input in tokens, special tokens included."""
    do_lower_case: bool
    pooling: str
    normalize: bool


class Reference:
    """A sentence encoder read from a Hugging Face or sentence-transformers folder.

    Raises FileNotFoundError where a file is missing and `UnsupportedReferenceError` for models of
    another kind.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        modules = read_modules(folder)
        transformer = folder / modules[0]["path"]
        self.settings = read_settings(folder, modules)
        self.weights = read_weights(transformer)
        self.tokenizer: Tokenizer = Tokenizer.from_file(
            str(_existing(transformer / "tokenizer.json"))
        )
        # A tokenizer.json may carry the padding and truncation of its training; neither is the
        # model's.
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def tokenize(self, text: str) -> tuple[list[int], list[int], int]:
        """Token ids, segment ids, and the number of tokens before truncation."""
        if self.settings.do_lower_case:
            text = text.lower()
        encoding = self.tokenizer.encode(text)
        full_length = len(encoding.ids)
        if full_length > self.settings.max_seq_length:
            # Encoded again, because truncation has to keep the closing special token.
            self.tokenizer.enable_truncation(self.settings.max_seq_length)
            encoding = self.tokenizer.encode(text)
            self.tokenizer.no_truncation()
        return encoding.ids, encoding.type_ids, full_length

    def hidden_states(self, ids: list[int], type_ids: list[int]) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer."""
        weights = self.weights
        x = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][: len(ids)]
            + weights["embeddings.token_type_embeddings.weight"][type_ids]
        )
        x = self._layer_norm("embeddings.LayerNorm", x)
        states = [x]
        for i in range(self.settings.num_layers):
            layer = f"encoder.layer.{i}"
            attended = self._linear(f"{layer}.attention.output.dense", self._attention(layer, x))
            x = self._layer_norm(f"{layer}.attention.output.LayerNorm", x + attended)
            inner = ACTIVATIONS[self.settings.activation](
                self._linear(f"{layer}.intermediate.dense", x)
            )
            x = self._layer_norm(
                f"{layer}.output.LayerNorm", x + self._linear(f"{layer}.output.dense", inner)
            )
            states.append(x)
        return states

    def encode_one(self, text: str) -> Array:
        """The (hidden,) vector of a text."""
        ids, type_ids, _ = self.tokenize(text)
        tokens = self.hidden_states(ids, type_ids)[-1]
        vector = POOLINGS[self.settings.pooling](tokens)
        if self.settings.normalize:
            vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return vector

    def encode(self, texts: Iterable[str]) -> Array:
        """The (texts, hidden) matrix of vectors."""
        vectors = [self.encode_one(text) for text in texts]
        hidden = self.weights["embeddings.LayerNorm.weight"].size
        return np.stack(vectors) if vectors else np.empty((0, hidden))

    def _attention(self, layer: str, x: Array) -> Array:
        """Every token's mix of the other tokens' values, head by head: softmax(QK'/sqrt(d)) V."""
        q, k, v = (
            self._split_heads(self._linear(f"{layer}.attention.self.{name}", x))
            for name in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        mixed = softmax(scores) @ v
        return mixed.transpose(1, 0, 2).reshape(x.shape)

    def _split_heads(self, x: Array) -> Array:
        """(tokens, hidden) to (heads, tokens, hidden / heads)."""
        return x.reshape(len(x), self.settings.num_heads, -1).transpose(1, 0, 2)

    def _linear(self, name: str, x: Array) -> Array:
        # Stored as (out, in).
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def _layer_norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        scaled: Array = centred / np.sqrt(variance + self.settings.layer_norm_eps)
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]


def softmax(x: Array) -> Array:
    """Along the last axis; the largest value is taken off first, so that exp cannot overflow."""
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return shares


def gelu(x: Array) -> Array:
    """`x * Phi(x)`, with the error function itself; NumPy has none, the math module does."""
    erf = np.fromiter(map(math.erf, (x / math.sqrt(2)).ravel().tolist()), np.float64, x.size)
    activated: Array = 0.5 * x * (1 + erf.reshape(x.shape))
    return activated


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU."""
    activated: Array = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return activated


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}
"""Hugging Face's `hidden_act` to the function."""

POOLINGS: dict[str, Callable[[Array], Array]] = {
    "cls": lambda tokens: tokens[0],
    "mean": lambda tokens: tokens.mean(axis=0),
    "max": lambda tokens: tokens.max(axis=0),
    "mean_sqrt": lambda tokens: tokens.sum(axis=0) / math.sqrt(len(tokens)),
    "last": lambda tokens: tokens[-1],
}
"""(tokens, hidden) to (hidden,)."""

POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt",
    "pooling_mode_lasttoken": "last",
}
"""sentence-transformers' switches in 1_Pooling/config.json."""

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
"""safetensors' names to NumPy's; BF16 is not among NumPy's."""


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The chain of modules; a folder without one is a bare transformer, pooled by the mean."""
    path = folder / "modules.json"
    if path.is_file():
        return list(json.loads(path.read_text(encoding="utf-8")))
    return [{"path": "", "type": "Transformer"}, {"path": None, "type": "Pooling"}]


def read_settings(folder: Path, modules: list[dict[str, Any]]) -> Settings:
    """Reads what the forward pass needs to know, and refuses what it does not implement."""
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise UnsupportedReferenceError(
            f"{folder}/modules.json: the reference computes Transformer, Pooling and Normalize, "
            f"this model is {', '.join(kinds)}"
        )
    transformer = folder / modules[0]["path"]
    config = _read_json(transformer / "config.json")
    architecture = config.get("model_type")
    if architecture != "bert":
        raise UnsupportedReferenceError(
            f"{transformer}/config.json: the reference computes bert, this is {architecture!r}"
        )
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise UnsupportedReferenceError(
            f"{transformer}/config.json: hidden_act is {activation!r}; "
            f"the reference knows {', '.join(ACTIVATIONS)}"
        )
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute":
        raise UnsupportedReferenceError(
            f"{transformer}/config.json: position_embedding_type is {positions!r}; "
            "the reference computes absolute positions"
        )
    sentence_bert = _read_json(transformer / "sentence_bert_config.json", optional=True)
    return Settings(
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        layer_norm_eps=config.get("layer_norm_eps", 1e-12),
        activation=activation,
        max_seq_length=_max_seq_length(transformer, config, sentence_bert),
        do_lower_case=sentence_bert.get("do_lower_case", False),
        pooling=_read_pooling(folder, modules[1]["path"]),
        normalize="Normalize" in kinds,
    )


def read_weights(folder: Path) -> dict[str, Array]:
    """Every tensor of `model.safetensors`, or of the shards its index names, in float64."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(_read_json(index)["weight_map"].values()))
    else:
        shards = ["model.safetensors"]
    weights = {}
    for shard in shards:
        content = _existing(folder / shard).read_bytes()
        for name, tensor in safetensors.deserialize(content):  # type: ignore[no-untyped-call]
            # A checkpoint saved with a head on top has its encoder under "bert.".
            weights[name.removeprefix("bert.")] = _to_float64(name, tensor)
    return weights


def _to_float64(name: str, tensor: dict[str, Any]) -> Array:
    if tensor["dtype"] == "BF16":
        # bfloat16 is the upper half of a float32.
        values = (np.frombuffer(tensor["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor["dtype"] in DTYPES:
        values = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]])
    else:
        raise UnsupportedReferenceError(f"tensor {name!r} is stored as {tensor['dtype']}")
    return values.astype(np.float64).reshape(tensor["shape"])


def _read_pooling(folder: Path, path: str | None) -> str:
    if path is None:
        return "mean"
    config = _read_json(folder / path / "config.json")
    switched_on = [
        key for key, value in config.items() if key.startswith("pooling_mode_") and value
    ]
    if len(switched_on) != 1 or switched_on[0] not in POOLING_KEYS:
        raise UnsupportedReferenceError(
            f"{folder / path}/config.json: the reference computes one of "
            f"{', '.join(POOLING_KEYS)}; switched on: {', '.join(switched_on) or 'none'}"
        )
    return POOLING_KEYS[switched_on[0]]


def _max_seq_length(folder: Path, config: dict[str, Any], sentence_bert: dict[str, Any]) -> int:
    """sentence-transformers' limit, else the tokenizer's; never more than there are positions."""
    tokenizer = _read_json(folder / "tokenizer_config.json", optional=True)
    positions = config["max_position_embeddings"]
    limit = sentence_bert.get("max_seq_length") or tokenizer.get("model_max_length", positions)
    return int(min(limit, positions))


def _read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    if optional and not path.is_file():
        return {}
    return dict(json.loads(_existing(path).read_text(encoding="utf-8")))


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the reference needs it")
    return path
