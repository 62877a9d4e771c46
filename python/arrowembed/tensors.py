"""Vectors as torch tensors, where torch is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrowembed.errors import MissingDependencyError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_tensor(array: NDArray[Any]) -> Any:
    """A torch tensor over the array's memory.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    try:
        import torch  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            "torch", purpose="convert_to_tensor=True", install="torch"
        ) from error
    return torch.from_dlpack(array)
