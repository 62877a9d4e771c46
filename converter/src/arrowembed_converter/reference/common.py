"""What all sentence encoders share: files, settings, weights, pooling and what follows it.

The files are read as `transformers` and `sentence-transformers` read them.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors

from arrowembed_converter.reference import operations
from arrowembed_converter.reference.operations import ACTIVATIONS, Array


class UnsupportedReferenceError(ValueError):
    """The folder holds a model that this reference cannot compute."""


class Config:
    """A `config.json`, which says where it lies when something in it is not understood."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = read_json(path)

    def get(self, *keys: str, default: Any = None) -> Any:
        """The value under the first of the keys that has one."""
        found = (self.values[key] for key in keys if self.values.get(key) is not None)
        return next(found, default)

    def need(self, *keys: str) -> Any:
        """The same of something that has no default."""
        value = self.get(*keys)
        if value is None:
            raise self.unsupported(f"there is no {' or '.join(keys)}")
        return value

    def only(self, key: str, computed: list[Any]) -> None:
        """Refuses all but these values; a missing one, and null, count as the first."""
        value = self.get(key, default=computed[0])
        if value not in computed:
            known = ", ".join(map(repr, computed))
            raise self.unsupported(f"{key} is {value!r}; the reference computes {known}")

    def activation(self, key: str, default: str) -> Callable[[Array], Array]:
        """The function that a key names."""
        self.only(key, [default, *(name for name in ACTIVATIONS if name != default)])
        return ACTIVATIONS[self.get(key, default=default)]

    def rope_theta(self, *keys: str, layer_type: str | None = None) -> float:
        """The base of the rotary frequencies, under one of the keys or in `rope_parameters`.

        transformers 5 writes `rope_parameters`, by layer type where there are two kinds of layers.
        """
        parameters = self.get("rope_parameters", default={})
        parameters = parameters.get(layer_type, parameters)
        for scaling in (self.get("rope_scaling", default={}), parameters):
            kind = scaling.get("rope_type", scaling.get("type", "default"))
            if kind != "default":
                raise self.unsupported(f"rope is scaled ({kind}); the reference computes no such")
        theta = parameters.get("rope_theta")
        return float(self.need(*keys) if theta is None else theta)

    def unsupported(self, reason: str) -> UnsupportedReferenceError:
        """An error that begins with the file."""
        return UnsupportedReferenceError(f"{self.path}: {reason}")


class Weights(dict[str, Array]):
    """Tensors in float64 by name, and the operations that consist of one or two of them."""

    def __missing__(self, name: str) -> Array:
        raise UnsupportedReferenceError(f"the weights have no tensor {name!r}")

    def linear(self, name: str, x: Array, *, bias: bool = True) -> Array:
        """`xW' + b`; the matrix is stored as (out, in)."""
        y: Array = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"] if bias else y

    def layer_norm(self, name: str, x: Array, eps: float, *, bias: bool = True) -> Array:
        """See `operations.layer_norm`."""
        return operations.layer_norm(
            x, self[f"{name}.weight"], self[f"{name}.bias"] if bias else None, eps
        )

    def rms_norm(self, name: str, x: Array, eps: float) -> Array:
        """See `operations.rms_norm`."""
        return operations.rms_norm(x, self[f"{name}.weight"], eps)


class Architecture(ABC):
    """A transformer: what stands in the file of each architecture.

    The constructor raises `UnsupportedReferenceError` for what the formulas below it do not cover.
    """

    EMBEDDINGS: ClassVar[str]
    """Name of the (vocabulary, hidden) tensor. What stands before it in a checkpoint ("bert.",
    "model.") stands before all others of the encoder and is left out of their names."""

    @abstractmethod
    def __init__(self, config: Config, weights: Weights) -> None: ...

    @staticmethod
    @abstractmethod
    def max_positions(config: Config) -> int:
        """Longest input in tokens that the model has positions for."""

    @abstractmethod
    def hidden_states(self, ids: list[int], type_ids: list[int], /) -> list[Array]:
        """The (tokens, hidden) matrix after the embeddings and after each layer.

        A norm behind all layers is part of the last.
        """


@dataclass(frozen=True)
class Settings:
    """What sentence-transformers adds to a transformer."""

    max_seq_length: int
    """Longest input in tokens, special tokens included."""
    do_lower_case: bool
    pooling: str
    after_pooling: tuple[str, ...]
    """Kinds of the modules that the pooled vector goes through: Dense, Normalize."""

    @property
    def normalize(self) -> bool:
        """Whether vectors end up with the length 1."""
        return self.after_pooling[-1:] == ("Normalize",)


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

DENSE_ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": operations.relu,
    "GELU": operations.gelu,
    "SiLU": operations.silu,
    "Sigmoid": operations.sigmoid,
}
"""Classes of torch.nn, as 2_Dense/config.json names them."""

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4"}
"""safetensors' names to NumPy's; BF16 is not among NumPy's."""


class Dense:
    """`sentence_transformers.models.Dense`: a linear layer and an activation."""

    def __init__(self, folder: Path) -> None:
        config = Config(folder / "config.json")
        name = config.get("activation_function", default="Tanh").rsplit(".", 1)[-1]
        if name not in DENSE_ACTIVATIONS:
            raise config.unsupported(
                f"activation_function is {name}; the reference knows {', '.join(DENSE_ACTIVATIONS)}"
            )
        self._activation = DENSE_ACTIVATIONS[name]
        self._bias = bool(config.get("bias", default=True))
        self._weights = read_weights(folder)
        self.out_features = len(self._weights["linear.weight"])

    def __call__(self, vector: Array) -> Array:
        """To (out_features,)."""
        return self._activation(self._weights.linear("linear", vector, bias=self._bias))


def normalize(vector: Array) -> Array:
    """`sentence_transformers.models.Normalize`: to length 1; zeros stay zeros."""
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def read_modules(folder: Path) -> list[dict[str, Any]]:
    """The chain of modules; a folder without one is a bare transformer, pooled by the mean."""
    path = folder / "modules.json"
    if path.is_file():
        return list(json.loads(path.read_text(encoding="utf-8")))
    return [{"path": "", "type": "Transformer"}, {"path": None, "type": "Pooling"}]


def read_sentence_settings(
    folder: Path, modules: list[dict[str, Any]], max_positions: int
) -> Settings:
    """Reads what surrounds a transformer with so many positions."""
    kinds = [module_kind(module) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or set(kinds[2:]) - {"Dense", "Normalize"}:
        raise UnsupportedReferenceError(
            f"{folder}/modules.json: the reference computes Transformer, Pooling, Dense and "
            f"Normalize, this model is {', '.join(kinds)}"
        )
    transformer = folder / modules[0]["path"]
    sentence_bert = read_json(transformer / "sentence_bert_config.json", optional=True)
    tokenizer = read_json(transformer / "tokenizer_config.json", optional=True)
    # sentence-transformers' limit, else the tokenizer's; never more than there are positions.
    limit = sentence_bert.get("max_seq_length") or tokenizer.get("model_max_length", max_positions)
    return Settings(
        max_seq_length=int(min(limit, max_positions)),
        do_lower_case=sentence_bert.get("do_lower_case", False),
        pooling=_read_pooling(folder, modules[1]["path"]),
        after_pooling=tuple(kinds[2:]),
    )


def module_kind(module: dict[str, Any]) -> str:
    """Its class, without the package."""
    return str(module["type"]).rsplit(".", 1)[-1]


def _read_pooling(folder: Path, path: str | None) -> str:
    if path is None:
        return "mean"
    config = Config(folder / path / "config.json")
    switched_on = [
        key for key, value in config.values.items() if key.startswith("pooling_mode_") and value
    ]
    if len(switched_on) != 1 or switched_on[0] not in POOLING_KEYS:
        raise config.unsupported(
            f"the reference computes one of {', '.join(POOLING_KEYS)}; "
            f"switched on: {', '.join(switched_on) or 'none'}"
        )
    return POOLING_KEYS[switched_on[0]]


def read_weights(folder: Path, embeddings: str = "") -> Weights:
    """Every tensor of `model.safetensors`, or of the shards its index names, in float64.

    What stands before the tensor `embeddings` is left out of all names.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(read_json(index)["weight_map"].values()))
    else:
        shards = ["model.safetensors"]
    tensors = {}
    for shard in shards:
        content = existing(folder / shard).read_bytes()
        for name, tensor in safetensors.deserialize(content):  # type: ignore[no-untyped-call]
            tensors[name] = _to_float64(name, tensor)
    prefix = _prefix_of(embeddings, tensors)
    return Weights({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})


def _prefix_of(embeddings: str, names: Iterable[str]) -> str:
    prefixes = [name.removesuffix(embeddings) for name in names if name.endswith(embeddings)]
    return min(prefixes, key=len, default="") if embeddings else ""


def _to_float64(name: str, tensor: dict[str, Any]) -> Array:
    if tensor["dtype"] == "BF16":
        # bfloat16 is the upper half of a float32.
        values = (np.frombuffer(tensor["data"], "<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor["dtype"] in DTYPES:
        values = np.frombuffer(tensor["data"], DTYPES[tensor["dtype"]])
    else:
        raise UnsupportedReferenceError(f"tensor {name!r} is stored as {tensor['dtype']}")
    return values.astype(np.float64).reshape(tensor["shape"])


def read_json(path: Path, optional: bool = False) -> dict[str, Any]:
    """An object; an empty one for a file that is optional and missing."""
    if optional and not path.is_file():
        return {}
    return dict(json.loads(existing(path).read_text(encoding="utf-8")))


def existing(path: Path) -> Path:
    """The path, if there is a file."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; the reference needs it")
    return path
