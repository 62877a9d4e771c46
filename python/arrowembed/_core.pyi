"""The compiled engine. Private: `arrowembed.Embedder` is the door for users."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, final, type_check_only

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ArrowArray",
    "EmbeddingEngine",
    "Engine",
    "ModelConfig",
    "Scheduler",
    "Ticket",
    "VectorFile",
    "__version__",
    "convert",
    "get_num_threads",
    "isa",
    "quantize",
    "search_vectors",
    "set_num_threads",
    "settings_from_env",
    "verify",
]

__version__: str

@type_check_only
class EncodeStats(TypedDict):
    """What one call did."""

    texts: int
    tokens: int
    truncated: int
    """Texts that were longer than the model's limit and were cut."""
    cache_hits: int

@type_check_only
class CacheInfo(TypedDict):
    entries: int
    bytes: int
    hits: int
    misses: int
    max_entries: int | None
    max_bytes: int | None

@type_check_only
class EngineInfo(TypedDict):
    """What an engine knows of itself."""

    path: str
    """The file that is mapped."""
    weights_bytes: int
    mapped: bool
    """False where the weights had to be copied (candle devices)."""
    short_of_memory: bool
    """Whether the weights were more than fitted into memory when the model was opened."""
    device: str
    isa: str
    """Instruction set of the kernels: scalar, avx2, avxvnni, avx512, avx512fp16, amx or neon."""
    compute: Literal["float32", "float16", "bfloat16", "int16", "int8"]
    """In which numbers matrices are multiplied."""
    num_threads: int
    hidden_size: int
    embedding_size: int
    """Length of a vector: the hidden size, or what dense layers behind the pooling make of it."""
    matryoshka_dimensions: list[int]
    """Lengths that the model was trained for its vectors to be cut to, longest first."""
    num_hidden_layers: int
    num_parameters: int
    vocab_size: int
    max_seq_length: int
    dtypes: dict[str, int]
    """Number of tensors of each dtype."""

@type_check_only
class TensorReport(TypedDict):
    """How one tensor was converted."""

    name: str
    shape: list[int]
    dtype: str
    """What it was stored as."""
    layout: str
    relative_error: float
    """Euclidean norm of the rounding error over that of the tensor."""
    fallback: str | None
    """Why the tensor was stored in float32 against the dtype asked for, or None."""

@type_check_only
class ConversionReport(TypedDict):
    path: str
    """The weights file that was written."""
    bytes: int
    source_bytes: int
    source_sha256: str
    tensors: list[TensorReport]

@final
class ModelConfig:
    """What a model is opened with, checked so far as that goes without the model."""

    def __new__(
        cls,
        path: str,
        *,
        device: str = "cpu",
        compute: Literal["auto", "float32", "float16", "bfloat16", "int16", "int8"] | None = None,
        cache_entries: int | None = ...,  # 10_000
        cache_bytes: int | None = None,
        cache_dir: str | None = None,
        max_seq_length: int | None = None,
        verify: bool = False,
        preload: bool = False,
        lock_memory: bool = False,
    ) -> ModelConfig: ...

def settings_from_env() -> dict[str, Any]:
    """What the environment says, as keyword arguments of `Embedder`."""

@final
class Engine:
    """A mapped model, safe to share between threads.

    One of an `EmbeddingEngine` is loaded whenever something is asked of it.
    """

    def __new__(
        cls, config: ModelConfig, on_progress: Callable[[int, int], object] | None = None
    ) -> Engine:
        """Opens a model; `on_progress(bytes read ahead, bytes in all)`."""
    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        pooling: str | None = None,
        normalize: str | float | None = None,
        truncate_dim: int | None = None,
        max_texts: int | None = None,
        truncate: bool = True,
        on_progress: Callable[[int], object] | None = None,
    ) -> tuple[NDArray[np.float32], EncodeStats]: ...
    def encode_tokens(
        self,
        texts: Sequence[str],
        *,
        prompt: str = "",
        normalize: str | float | None = None,
        max_texts: int | None = None,
        truncate: bool = True,
        on_progress: Callable[[int], object] | None = None,
    ) -> tuple[list[NDArray[np.float32]], EncodeStats]: ...
    def encode_arrow(
        self,
        column: object,
        *,
        prompt: str = "",
        pooling: str | None = None,
        normalize: str | float | None = None,
        truncate_dim: int | None = None,
        max_texts: int | None = None,
        truncate: bool = True,
    ) -> tuple[ArrowArray, EncodeStats]: ...
    def tokenize(
        self, texts: Sequence[str], *, prompt: str = "", truncate: bool = True
    ) -> list[tuple[list[int], list[int], int]]:
        """(input ids, token type ids, length in tokens before truncation) of each text."""
    def tokenize_with_offsets(
        self, texts: Sequence[str], *, prompt: str = "", add_special_tokens: bool = True
    ) -> list[list[tuple[int, str, bool, int | None, int | None]]]:
        """(id, text, whether the tokenizer adds it, start, stop) of each token of each text."""
    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str: ...
    def metadata(self) -> str:
        """The model's `metadata.json`."""
    def info(self) -> EngineInfo: ...
    def cache_info(self) -> CacheInfo:
        """Loads no model, as `cache_clear` does not."""
    def cache_clear(self) -> None: ...
    def totals(self) -> EncodeStats:
        """Sums over all calls of this engine."""

@type_check_only
class RegisteredModel(TypedDict):
    name: str
    path: str
    bytes: int | None
    """Bytes of its weights; None, as the next two are, if it is not loaded."""
    loaded_for: float | None
    """Seconds since it was loaded."""
    idle_for: float | None
    """Seconds since it was last used."""

@final
class EmbeddingEngine:
    """Models by name, of which it decides which are in memory."""

    def __new__(
        cls,
        *,
        memory_budget: int | None = None,
        when_full: Literal["refuse", "evict"] = "refuse",
        idle_timeout: float | None = None,
        num_threads: int | None = None,
    ) -> EmbeddingEngine: ...
    @staticmethod
    def from_env() -> EmbeddingEngine: ...
    def register(self, name: str, config: ModelConfig) -> None: ...
    def engine(self, name: str, config: ModelConfig) -> Engine:
        """A door to the model; does not load it.

        Closed with an error when the name stands for another model than that of `config`.
        """
    def load(self, name: str, on_progress: Callable[[int, int], object] | None = None) -> None: ...
    def warmup(
        self, name: str, on_progress: Callable[[int, int], object] | None = None
    ) -> None: ...
    def unload(self, name: str) -> bool: ...
    def is_loaded(self, name: str) -> bool: ...
    def info(self) -> list[RegisteredModel]: ...

@type_check_only
class QueueInfo(TypedDict):
    """How full a scheduler is."""

    queued_requests: int
    """Requests of which texts wait."""
    queued_texts: int
    queued_tokens: int
    """Roughly: a text has as many as its bytes let expect."""
    running_batches: int
    max_queued_texts: int
    max_queued_tokens: int

@final
class Ticket:
    """A request that waits or is being computed."""

    def cancel(self) -> bool:
        """Drops what has not been computed; whether that was before its end."""

@final
class Scheduler:
    """Computes the texts of many callers together."""

    def __new__(
        cls,
        engine: Engine,
        *,
        max_queued_texts: int,
        max_queued_tokens: int,
        on_batch: Callable[[int, int], object] | None = None,
    ) -> Scheduler: ...
    def submit(
        self,
        texts: Sequence[str],
        on_end: Callable[
            [tuple[NDArray[np.float32], EncodeStats, float, float] | None, Exception | None], object
        ],
        *,
        prompt: str = "",
        pooling: str | None = None,
        normalize: str | float | None = None,
        truncate_dim: int | None = None,
        truncate: bool = True,
    ) -> tuple[NDArray[np.float32], EncodeStats, float, float] | Ticket:
        """The answer if the cache has it, else a ticket; then `on_end` is called with it.

        An answer is vectors of shape (n, dim), statistics, and seconds of waiting and computing.
        `on_end` runs on a thread of the scheduler.
        """
    def info(self) -> QueueInfo: ...
    def drain(self, timeout: float | None = None) -> bool: ...
    def close(self) -> None:
        """Calls into Python no more. To be called before the interpreter ends."""

@final
class ArrowArray:
    """A FixedSizeList<float32> array, handed over by the Arrow PyCapsule interface."""

    def __len__(self) -> int: ...
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_array__(
        self, requested_schema: object | None = None
    ) -> tuple[object, object]: ...

def quantize(
    embeddings: NDArray[np.float32],
    precision: Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"],
    ranges: NDArray[np.float32] | None = None,
) -> NDArray[Any]:
    """`ranges` is (2, dim): the lowest and highest value of each dimension."""

@final
class VectorFile:
    """Vectors in a mapped Arrow file.

    Raises StoreFileError if the file is none; so do all that read vectors if it was damaged.
    """

    def __new__(cls, path: str) -> VectorFile:
        """Maps a file and checks its structure; reads none of the vectors."""
    @staticmethod
    def write(
        path: str,
        vectors: NDArray[np.float32],
        dtype: Literal["float32", "float16", "int8"] = "float32",
    ) -> None:
        """Writes finite vectors of shape (n, dim), n >= 1, to a file that is whole or not there.

        float16 rounds them. int8 keeps them as they are, beside a byte for each number that is
        scanned in their place.
        """
    def __len__(self) -> int: ...
    @property
    def dimension(self) -> int: ...
    @property
    def dtype(self) -> Literal["float32", "float16", "int8"]: ...
    @property
    def bytes(self) -> int:
        """Size of the file."""
    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors of these rows, shape (n, dim)."""
    def verify(self) -> None:
        """Compares every column with its checksum."""
    def __arrow_c_schema__(self) -> object: ...
    def __arrow_c_array__(
        self, requested_schema: object | None = None
    ) -> tuple[object, object]: ...

def search_vectors(
    files: Sequence[VectorFile],
    queries: NDArray[np.float32],
    k: int,
    *,
    metric: Literal["cosine", "dot", "euclidean"],
    keep: Sequence[NDArray[np.uint8] | None] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows most similar to each query, and how similar they are, the best first.

    Exact: rows and their order are those of similarities in float64 of the vectors as stored; of
    equally similar ones the lower row comes first. Euclidean is the negative distance; a zero
    vector has cosine 0.

    `queries` is (n, dim). `keep` has for each file a bit for each row, the least significant
    first, as Arrow's bitmaps; only rows whose bit is 1 are searched. Both results are
    (n, min(k, rows searched)); rows are counted one file after the other.
    """

def convert(
    source: str,
    target: str,
    *,
    dtype: Literal["float32", "float16", "bfloat16", "int16", "int8"] = "float16",
    layout: Literal["packed", "row_major"] = "packed",
    format: Literal["arrow", "parquet"] = "arrow",
    compression: Literal["none", "lz4", "zstd"] = "none",
    name: str | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> ConversionReport:
    """Writes the model folder `target` from a Hugging Face folder, a model folder or a model file.

    `on_progress(tensors done, tensors in all)`. Raises KeyboardInterrupt between tensors.
    """

def verify(path: str, on_progress: Callable[[int, int], object] | None = None) -> int:
    """Checks every tensor's checksum; returns how many there are."""

def set_num_threads(num_threads: int) -> None: ...
def get_num_threads() -> int: ...
def isa() -> str:
    """The CPU kernels' instruction set: scalar, avx2, avxvnni, avx512, avx512fp16, amx or neon."""
