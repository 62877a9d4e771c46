"""Other packages that compute the same vectors, under one small interface."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from arrowembed.errors import InvalidArgumentError, MissingDependencyError, ModelNotFoundError
from arrowembed_converter.reference import read_modules, read_settings


class System(Protocol):
    """Something that turns texts into vectors."""

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """(texts, dimension)."""


class ArrowEmbed:
    """This project's engine, without its cache: every text is computed."""

    def __init__(self, model: str, threads: int) -> None:
        # The import is part of what is measured.
        from arrowembed import Embedder, set_num_threads  # noqa: PLC0415

        set_num_threads(threads)
        self._embedder = Embedder(model, cache_size=0)

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """(texts, dimension)."""
        return self._embedder.encode(list(texts), prompt="")


class SentenceTransformers:
    """sentence-transformers over torch, on the CPU; `model` is a Hugging Face folder."""

    def __init__(self, model: str, threads: int) -> None:
        package = _import("sentence_transformers", "sentence-transformers")
        _import("torch", "torch").set_num_threads(threads)
        self._model = package.SentenceTransformer(model, device="cpu")

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """(texts, dimension)."""
        vectors: NDArray[Any] = self._model.encode(
            list(texts), prompt="", show_progress_bar=False, convert_to_numpy=True
        )
        return vectors


class FastEmbed:
    """fastembed over ONNX Runtime; `model` is the name that fastembed knows it by."""

    def __init__(self, model: str, threads: int) -> None:
        package = _import("fastembed", "fastembed")
        self._model = package.TextEmbedding(model, threads=threads)

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """(texts, dimension)."""
        return np.stack(list(self._model.embed(list(texts))))


class OnnxRuntime:
    """ONNX Runtime; `model` is a Hugging Face folder with a `model.onnx` in it or in `onnx/`."""

    def __init__(self, model: str, threads: int) -> None:
        path = Path(model)
        package = _import("onnxruntime", "onnxruntime")
        files = [path / "model.onnx", path / "onnx" / "model.onnx"]
        file = next((file for file in files if file.is_file()), None)
        if file is None:
            raise ModelNotFoundError(f"{path} holds no model.onnx, which onnxruntime needs")
        self._settings = read_settings(path, read_modules(path))
        if self._settings.pooling not in ("mean", "cls"):
            raise InvalidArgumentError(
                f"onnxruntime is compared for mean and cls pooling, not {self._settings.pooling}"
            )
        if "Dense" in self._settings.after_pooling:
            raise InvalidArgumentError("onnxruntime is compared for models without Dense modules")
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self._tokenizer.enable_padding()
        self._tokenizer.enable_truncation(self._settings.max_seq_length)
        options = package.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = package.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {node.name for node in self._session.get_inputs()}

    def encode(self, texts: Sequence[str]) -> NDArray[Any]:
        """(texts, dimension); texts of similar length go together, 32 at a time."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = [order[start : start + 32] for start in range(0, len(order), 32)]
        vectors = np.concatenate([self._encode_batch([texts[i] for i in b]) for b in batches])
        result = np.empty_like(vectors)
        result[order] = vectors
        return result

    def _encode_batch(self, texts: list[str]) -> NDArray[Any]:
        encodings = self._tokenizer.encode_batch(texts)
        mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
        inputs = {
            "input_ids": np.array([encoding.ids for encoding in encodings], np.int64),
            "attention_mask": mask,
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings], np.int64),
        }
        fed = {name: values for name, values in inputs.items() if name in self._inputs}
        hidden: NDArray[Any] = self._session.run(None, fed)[0]
        if self._settings.pooling == "cls":
            vectors = hidden[:, 0]
        else:
            vectors = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        if self._settings.normalize:
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)


SYSTEMS: dict[str, Callable[[str, int], System]] = {
    "arrowembed": ArrowEmbed,
    "sentence-transformers": SentenceTransformers,
    "fastembed": FastEmbed,
    "onnxruntime": OnnxRuntime,
}
PEERS = tuple(name for name in SYSTEMS if name != "arrowembed")


def load(name: str, model: str, threads: int | None = None) -> System:
    """Opens a model in one of SYSTEMS, to compute on so many threads; None is one for each core.

    Raises:
        MissingDependencyError: The package is not installed.
    """
    return SYSTEMS[name](model, threads or os.cpu_count() or 1)


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            package, purpose="the comparison", install=package
        ) from error
