"""The options of `Embedder.encode` and its siblings: their types, and what they may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypedDict, get_args

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

    from arrowembed._core import CacheInfo

Compute: TypeAlias = Literal["auto", "float32", "float16", "bfloat16", "int16", "int8"]
Pooling: TypeAlias = Literal["mean", "cls", "max", "mean_sqrt", "last", "none"]
Normalize: TypeAlias = Literal["none", "l2", "max_abs"] | float
Precision: TypeAlias = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OutputValue: TypeAlias = Literal["sentence_embedding", "token_embeddings"]


class PromptOptions(TypedDict, total=False):
    """What is put before each text."""

    prompt_name: str | None
    prompt: str | None


class VectorOptions(TypedDict, total=False):
    """Options of `Embedder.encode` that shape its vectors; see there."""

    batch_size: int | None
    show_progress_bar: bool | None
    precision: Precision
    normalize_embeddings: bool
    truncate_dim: int | None
    pooling: Pooling | None
    normalize: Normalize | None
    truncate: bool
    ranges: ArrayLike | None
    calibration_embeddings: ArrayLike | None


class EncodeOptions(PromptOptions, VectorOptions, total=False):
    """All options of `Embedder.encode`."""

    output_value: OutputValue
    convert_to_numpy: bool
    convert_to_tensor: bool


class Features(TypedDict):
    """Token ids of several texts; one list for each text, not padded."""

    input_ids: list[list[int]]
    attention_mask: list[list[int]]
    token_type_ids: list[list[int]]


class Token(NamedTuple):
    """A token of a text, and where it stands there."""

    id: int
    text: str
    """The part of the text that it stands for; of a special one its name."""
    special: bool
    """Whether the tokenizer adds it, as [CLS]."""
    start: int | None
    """Where that part starts in the text in UTF-8, in bytes, a prompt counted in; None of a special
    one."""
    stop: int | None
    """Where it ends."""


class ModelInfo(TypedDict):
    """What `Embedder.info` tells."""

    name: str
    path: str
    architecture: str
    dimension: int
    matryoshka_dimensions: Sequence[int]
    max_seq_length: int
    pooling: str
    normalize: str
    similarity: str
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    dtype: str
    num_parameters: int
    num_hidden_layers: int
    vocab_size: int
    weights_bytes: int
    mapped: bool
    device: str
    isa: str
    compute: str
    num_threads: int
    source: Mapping[str, Any] | None
    texts: int
    tokens: int
    truncated: int
    cache: CacheInfo


def checked_dim(truncate_dim: int | None, embedding_size: int) -> int | None:
    """The argument itself, if the model has so many dimensions."""
    if truncate_dim is not None and not 1 <= truncate_dim <= embedding_size:
        raise InvalidArgumentError(
            f"truncate_dim: {truncate_dim}; expected 1 to {embedding_size}, the model's dimension"
        )
    return truncate_dim


def checked_batch_size(batch_size: int | None) -> int | None:
    """The argument itself, if it is a number of texts."""
    if batch_size is not None and batch_size < 1:
        raise InvalidArgumentError(f"batch_size: {batch_size}; expected 1 or more, or None")
    return batch_size
