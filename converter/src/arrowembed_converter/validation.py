"""The engine against the NumPy reference, text by text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arrowembed import Embedder
from arrowembed.errors import (
    InvalidArgumentError,
    ModelFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from arrowembed.options import Compute
from arrowembed_converter import peers, sources
from arrowembed_converter.reference import Reference, UnsupportedReferenceError
from arrowembed_converter.validation_texts import TEXTS

TOLERANCES = {"float32": 1e-9, "float16": 1e-5, "bfloat16": 1e-4, "int16": 1e-5, "int8": 2e-2}
"""Largest 1 - cosine for weights stored in a dtype."""

ARITHMETIC_TOLERANCES = TOLERANCES | {"float16": 5e-5}
"""The same for arithmetic: half precision rounds inputs and sums, too."""

GGUF_TOLERANCES = {"F32": 1e-9, "F16": 1e-5, "BF16": 1e-4}
"""The same for a GGUF file's types."""
BLOCKS_TOLERANCE = 5e-2
"""For all others of its types: blocks of integers."""


@dataclass(frozen=True)
class Agreement:
    """How far two sets of vectors lie apart."""

    worst: float
    """Largest 1 - cosine of a text."""
    worst_text: int
    """Its position."""
    mean: float
    """Mean of 1 - cosine."""
    max_abs_difference: float
    """Largest difference of a single number."""


@dataclass(frozen=True)
class Validation:
    """What was compared, and how it came out."""

    model: str
    dtype: str
    """What the weights are stored in."""
    compute: str
    """What matrices are multiplied in."""
    source: str
    texts: int
    truncated: int
    """Texts beyond the model's limit."""
    different_tokens: list[int]
    """Positions of the texts whose token ids differ."""
    tolerance: float
    reference: Agreement
    """The engine against the reference."""
    peer: dict[str, Agreement]
    """The engine, and the reference, against another package; empty if there was none."""

    @property
    def passed(self) -> bool:
        """Token ids are the same and every vector is within the tolerance."""
        return not self.different_tokens and self.reference.worst <= self.tolerance

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        lines = [
            f"{self.model} ({self._numbers}) against {self.source}",
            f"{self.texts} texts, {self.truncated} of them beyond the model's limit",
            _token_line(self.different_tokens),
            "",
            f"{'':44}{'worst 1-cos':>12}{'(text)':>8}{'mean 1-cos':>12}{'max |diff|':>12}",
        ]
        rows = {"engine, reference (float64)": self.reference, **self.peer}
        lines += [
            f"{name:44}{row.worst:12.1e}{row.worst_text:8}{row.mean:12.1e}"
            f"{row.max_abs_difference:12.1e}"
            for name, row in rows.items()
        ]
        verdict = "passed" if self.passed else "FAILED"
        lines += ["", f"{verdict}: the worst 1-cos allowed for it is {self.tolerance:g}"]
        return "\n".join(lines)

    @property
    def _numbers(self) -> str:
        return f"{self.dtype} weights, computed in {self.compute}"


def validate_model(
    model: str,
    *,
    source: str | None = None,
    texts: Sequence[str] = TEXTS,
    compute: Compute | None = None,
    tolerance: float | None = None,
    against: str | None = None,
    token: str | None = None,
    local_files_only: bool = False,
) -> Validation:
    """Compares the engine's vectors of a converted model with the reference's of its source.

    Args:
        model: Name or path of the converted model.
        source: The Hugging Face folder or name it was converted from; None looks it up under the
            model's name.
        texts: What to compare; at least one.
        compute: As for `Embedder`.
        tolerance: Largest 1 - cosine allowed; None goes by the model's dtype and arithmetic.
        against: One of `peers.PEERS` to compare with, too; it opens the source's folder.
        token: Access token for the hub, should the source have to be fetched.
        local_files_only: Never ask the hub.

    Raises:
        ModelNotFoundError: The model or its source is nowhere to be found.
        ModelFileError: The source's weights are not those that the model was converted from.
        UnsupportedModelError: The reference does not compute models of this kind.
        MissingDependencyError: `against` is not installed.
    """
    if not texts:
        raise InvalidArgumentError("there are no texts to compare")
    embedder = Embedder(
        model, compute=compute, cache_size=0, token=token, local_files_only=local_files_only
    )
    info = embedder.info()
    try:
        original = sources.locate(
            source or info["name"], token=token, local_files_only=local_files_only
        )
    except ModelNotFoundError as error:
        if source is not None:
            raise
        raise ModelNotFoundError(
            f"the original of {info['name']!r} is not found under that name; "
            f"name its folder: --source FOLDER\n{error}"
        ) from error
    with sources.readable(original) as folder:
        _check_source(folder, info["source"])
        try:
            reference = Reference(folder)
        except UnsupportedReferenceError as error:
            raise UnsupportedModelError(str(error)) from error
        expected = reference.encode(texts)
        if expected.shape[1] != embedder.dimension:
            raise InvalidArgumentError(
                f"vectors of {original} have {expected.shape[1]} numbers, those of the model "
                f"{embedder.dimension}: it was not made from it"
            )
        tokens = [reference.tokenize(text) for text in texts]
        peer = peers.load(against, str(folder)).encode(list(texts)) if against is not None else None
    # An empty prompt: the reference knows of none.
    found = embedder.encode(list(texts), prompt="")
    ids = embedder.tokenize(list(texts), prompt="")["input_ids"]
    dtype, arithmetic = info["dtype"], info["compute"]
    if tolerance is None:
        tolerance = max(ARITHMETIC_TOLERANCES[arithmetic], tolerance_of(dtype))
    return Validation(
        model=info["path"],
        dtype=dtype,
        compute=arithmetic,
        source=str(original),
        texts=len(texts),
        truncated=sum(length > len(kept) for kept, _, length in tokens),
        different_tokens=[i for i, (kept, _, _) in enumerate(tokens) if kept != ids[i]],
        tolerance=tolerance,
        reference=agreement(found, expected),
        peer={}
        if peer is None
        else {
            f"engine, {against}": agreement(found, peer),
            f"{against}, reference (float64)": agreement(peer, expected),
        },
    )


def agreement(a: NDArray[Any], b: NDArray[Any]) -> Agreement:
    """Compares (texts, dimension) matrices row by row.

    1 - cosine is taken as half the squared distance of the unit vectors, which keeps its digits
    where the cosine itself would round to 1.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    apart = 0.5 * np.sum((_unit(a) - _unit(b)) ** 2, axis=1)
    return Agreement(
        worst=float(apart.max()),
        worst_text=int(apart.argmax()),
        mean=float(apart.mean()),
        max_abs_difference=float(np.abs(a - b).max()),
    )


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, or the list in a JSON file."""
    try:
        content = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return content.splitlines()
        texts = json.loads(content)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidArgumentError(f"{path}: {error}") from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise InvalidArgumentError(f"{path} does not hold a list of texts")
    return texts


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    # A text without tokens has the vector zero, which stays.
    unit: NDArray[np.float64] = vectors / np.where(lengths == 0, 1, lengths)
    return unit


def _check_source(folder: Path, source: Mapping[str, Any] | None) -> None:
    if source is None:
        return
    found = sources.sha256(folder)
    if found != source["sha256"]:
        raise ModelFileError(
            f"{folder} is not what the model was converted from: its weights have the SHA-256 "
            f"{found}, the model's source had {source['sha256']}; name the right folder: --source"
        )


def _token_line(different: list[int]) -> str:
    if not different:
        return "token ids are the same in all texts"
    return f"token ids DIFFER in texts {', '.join(map(str, different))}"


def tolerance_of(dtypes: str) -> float:
    """For weights as `info` tells how they are stored: a dtype, or a GGUF file's types."""
    known = TOLERANCES | GGUF_TOLERANCES
    return max(known.get(dtype, BLOCKS_TOLERANCE) for dtype in dtypes.split(", "))
