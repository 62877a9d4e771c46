"""Every error that arrowembed raises.

All derive from `ArrowEmbedError` and from the built-in exception that fits, so that
`except ValueError` and `except FileNotFoundError` work as expected. `code` is a stable name for
programs; messages may change.
"""

from __future__ import annotations

__all__ = [
    "ArrowEmbedError",
    "ClosedError",
    "DeviceError",
    "DuplicateIdError",
    "HandleError",
    "HandleGoneError",
    "InternalError",
    "InvalidArgumentError",
    "InvalidTextError",
    "MemoryBudgetError",
    "MissingDependencyError",
    "ModelFileError",
    "ModelIOError",
    "ModelNotFoundError",
    "NonFiniteError",
    "OutOfMemoryError",
    "QueueFullError",
    "SharedMemoryError",
    "StoreFileError",
    "StoreIOError",
    "StoreLockedError",
    "StoreMismatchError",
    "StoreNotFoundError",
    "TextTooLongError",
    "TextTypeError",
    "TokenizerError",
    "UnsupportedModelError",
]


class ArrowEmbedError(Exception):
    """Base of all errors of this package.

    The engine may set a narrower `code` on an instance, for example `checksum_mismatch` on a
    `ModelFileError`.
    """

    code: str = "error"
    index: int | None = None
    """Position of the text that it is about, where it is about one."""


class ModelNotFoundError(ArrowEmbedError, FileNotFoundError):
    """No model under that name or path; the message lists the places that were looked at."""

    code = "model_not_found"


class ModelIOError(ArrowEmbedError, OSError):
    """The operating system refused to read, write or map a model's file."""

    code = "io"


class ModelFileError(ArrowEmbedError, ValueError):
    """A model's file is damaged, incomplete or contradicts itself."""

    code = "invalid_file"


class UnsupportedModelError(ArrowEmbedError, ValueError):
    """The model is sound, but of a kind that the engine cannot run."""

    code = "unsupported_model"


class TokenizerError(ArrowEmbedError, ValueError):
    """The tokenizer is missing, unreadable or failed on a text."""

    code = "tokenizer"


class InvalidArgumentError(ArrowEmbedError, ValueError):
    """An argument's value is outside what is allowed."""

    code = "invalid_argument"


class InvalidTextError(ArrowEmbedError, ValueError):
    """A text cannot be written as UTF-8, because it holds a lone surrogate."""

    code = "invalid_text"


class TextTypeError(ArrowEmbedError, TypeError):
    """Something that is no text was given where texts are expected."""

    code = "text_type"


class TextTooLongError(ArrowEmbedError, ValueError):
    """A text is longer than the model's limit and `truncate=False` was given."""

    code = "text_too_long"


class NonFiniteError(ArrowEmbedError, ArithmeticError):
    """A vector came out with a NaN or an infinity; the message names the text's position."""

    code = "non_finite"


class OutOfMemoryError(ArrowEmbedError, MemoryError):
    """Memory for the operation could not be had."""

    code = "out_of_memory"


class MemoryBudgetError(OutOfMemoryError):
    """A model does not fit into the memory budget of its `EmbeddingEngine`."""

    code = "memory_budget"


class DeviceError(ArrowEmbedError, RuntimeError):
    """A compute device is missing or failed."""

    code = "device"


class QueueFullError(ArrowEmbedError, RuntimeError):
    """No more may wait in the queue of a `Scheduler`; ask again later."""

    code = "queue_full"


class ClosedError(ArrowEmbedError, RuntimeError):
    """A `Scheduler` was drained, or a store closed; it takes no more requests."""

    code = "closed"


class InternalError(ArrowEmbedError, RuntimeError):
    """A computation failed by a fault of this library; please report it."""

    code = "internal"


class MissingDependencyError(ArrowEmbedError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""

    code = "missing_dependency"

    @classmethod
    def of(cls, package: str, *, purpose: str, install: str) -> MissingDependencyError:
        """An error that says for what `package` is needed and how to get it."""
        return cls(f"{purpose} needs {package}: pip install {install}")


class StoreNotFoundError(ArrowEmbedError, FileNotFoundError):
    """There is no store at that path."""

    code = "store_not_found"


class StoreFileError(ArrowEmbedError, ValueError):
    """A store's files are damaged, incomplete or of a version that this one cannot read."""

    code = "invalid_store"


class StoreIOError(ArrowEmbedError, OSError):
    """The operating system refused to write to a store, which is as it was before."""

    code = "store_io"


class StoreMismatchError(ArrowEmbedError, ValueError):
    """A store was made for another model, dimension, metric or backend than is asked for."""

    code = "store_mismatch"


class StoreLockedError(ArrowEmbedError, TimeoutError):
    """Another process kept writing to the store for longer than was waited."""

    code = "store_locked"


class DuplicateIdError(ArrowEmbedError, ValueError):
    """An id that was to be added is in the store already; `upsert` would replace it."""

    code = "duplicate_id"


class HandleError(ArrowEmbedError, ValueError):
    """Something was given as the handle of a shared result that is none of this user's."""

    code = "invalid_handle"


class HandleGoneError(ArrowEmbedError, FileNotFoundError):
    """A shared result is there no longer: released, expired, or gone with its process."""

    code = "handle_gone"


class SharedMemoryError(ArrowEmbedError, OSError):
    """Results cannot be shared: no room for one more, or no folder that is the user's alone."""

    code = "shared_memory"
