"""`store.json`: what a store was made for, written once and checked whenever it is opened."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from arrowembed.errors import StoreFileError, StoreMismatchError, StoreNotFoundError

if TYPE_CHECKING:
    from pathlib import Path

    from arrowembed.embedder import Embedder

Metric: TypeAlias = Literal["cosine", "dot", "euclidean"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Backend: TypeAlias = Literal["lightweight", "lancedb"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
VectorType: TypeAlias = Literal["float32", "float16", "int8"]
VECTOR_TYPES: tuple[VectorType, ...] = get_args(VectorType)

FILE_NAME = "store.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class ModelUse:
    """A model, and how texts are given to it."""

    name: str
    """Under which it is found again: a name, or the absolute path of its folder or file."""
    sha256: str | None
    """Of the weights that its file was made of, where that is known."""
    truncate_dim: int | None
    """To which its vectors are cut."""
    query_prompt: str
    document_prompt: str

    @classmethod
    def of(cls, embedder: Embedder) -> Self:
        """How `embedder` embeds queries and documents."""
        source = embedder.info()["source"] or {}
        query, document = embedder.retrieval_prompts()
        return cls(embedder.reference, source.get("sha256"), embedder.truncate_dim, query, document)

    def open(self) -> Embedder:
        """The model, used as here; one instance for the whole process."""
        from arrowembed.registry import shared  # noqa: PLC0415 - opens the engine

        plain = shared(self.name)
        if self == ModelUse.of(plain):
            return plain
        prompts = {"query": self.query_prompt, "document": self.document_prompt}
        return shared(self.name, truncate_dim=self.truncate_dim, prompts=prompts)

    def is_of(self, other: ModelUse) -> bool:
        """Whether both give the same vectors, but for the type of the weights.

        A model may be known by several names and paths; what it was made of decides where known.
        """
        if self.sha256 is not None and other.sha256 is not None:
            return self == replace(other, name=self.name)
        return self == replace(other, sha256=self.sha256)


@dataclass(frozen=True, slots=True)
class Description:
    """What a store was made for."""

    backend: Backend
    dimension: int
    metric: Metric
    dtype: VectorType
    """As what vectors are stored. float16 rounds them; int8 keeps float32 beside bytes to scan."""
    model: ModelUse | None
    """None for a store that takes vectors only."""

    def write(self, folder: Path) -> None:
        """Writes it into a folder that is not a store yet; whole or not at all."""
        target = folder / FILE_NAME
        temporary = folder / f".{FILE_NAME}.{os.getpid()}"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"version": VERSION, **asdict(self)}, file, indent=2, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        if sys.platform != "win32":  # where a rename needs no such thing
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads that of the store in `folder`.

        Raises:
            StoreNotFoundError: There is no store.
            StoreFileError: The file is damaged, or of a later version.
        """
        path = folder / FILE_NAME
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreNotFoundError(
                f"no store at {str(folder)!r}; `arrowembed index build` makes one, and open_store "
                "makes one when it is given a model or a dimension"
            ) from error
        except UnicodeDecodeError as error:
            raise StoreFileError(f"{path}: {error}") from error
        try:
            return cls._parsed(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreFileError(f"{path} is damaged: {error!r}") from error

    @classmethod
    def _parsed(cls, found: dict[str, Any]) -> Self:
        version = found.pop("version")
        if version != VERSION:
            raise StoreFileError(f"version {version!r}; this arrowembed reads {VERSION}")
        model, dimension = found.pop("model"), found["dimension"]
        self = cls(**found, model=None if model is None else ModelUse(**model))
        known = (
            (self.backend, BACKENDS),
            (self.metric, METRICS),
            (self.dtype, VECTOR_TYPES),
        )
        for value, allowed in known:
            if value not in allowed:
                raise StoreFileError(f"{value!r} is none of {', '.join(allowed)}")
        if not isinstance(dimension, int) or dimension < 1:
            raise StoreFileError(f"dimension {dimension!r}")
        return self

    def check_model(self, folder: Path, embedder: Embedder) -> None:
        """Refuses a model that is not the store's.

        Raises:
            StoreMismatchError: It gives other vectors.
        """
        found = ModelUse.of(embedder)
        if self.model is None or not self.model.is_of(found):
            raise StoreMismatchError(
                f"the store at {str(folder)!r} was made with {self.model or 'vectors alone'}, not "
                f"with {found}; open it without naming a model, or make another one"
            )

    def check(self, folder: Path, **wanted: object) -> None:
        """Refuses what is asked for and differs from what the store has; None asks for nothing.

        Raises:
            StoreMismatchError: Something differs.
        """
        for name, value in wanted.items():
            found = getattr(self, name)
            if value is not None and value != found:
                raise StoreMismatchError(
                    f"the store at {str(folder)!r} has {name} {found!r}, not {value!r}; "
                    "open it as it is, or make another one"
                )
