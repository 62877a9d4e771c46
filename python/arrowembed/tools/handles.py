"""`HandleTable`: vectors that stay here while a short name for them goes through a model."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools.outcome import ToolError
from arrowembed.tools.running import in_forked_child

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class HandleTable:
    """The vectors that were last used. Safe to share between threads.

    A handle is good until the process ends, or until so many others were used after it that one of
    the limits is reached. Nobody can guess one.

    Args:
        max_entries: Most handles.
        max_bytes: Most bytes of vectors.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        for name, value in (("max_entries", max_entries), ("max_bytes", max_bytes)):
            if value < 1:
                raise InvalidArgumentError(f"{name}: {value}; expected at least 1")
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._bytes = 0
        self._entries: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._renew()
        in_forked_child(self._renew)

    def put(self, vectors: NDArray[np.float32]) -> str:
        """Keeps vectors and gives the handle.

        Raises:
            ToolError: They alone are more than may be kept.
        """
        if vectors.nbytes > self._max_bytes:
            raise ToolError(
                f"the vectors have {vectors.nbytes} bytes, more than the {self._max_bytes} that "
                "are kept",
                code="result_too_large",
            )
        handle = f"vectors-{secrets.token_hex(8)}"
        with self._lock:
            self._entries[handle] = vectors
            self._bytes += vectors.nbytes
            while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
                _, oldest = self._entries.popitem(last=False)
                self._bytes -= oldest.nbytes
        return handle

    def get(self, handle: str) -> NDArray[np.float32]:
        """The vectors of a handle.

        Raises:
            ToolError: There is none of that name, or none any more.
        """
        with self._lock:
            found = self._entries.get(handle)
            if found is not None:
                self._entries.move_to_end(handle)
                return found
        raise ToolError(f"handle {handle!r} is unknown or was forgotten", code="unknown_handle")

    def __len__(self) -> int:
        return len(self._entries)

    def _renew(self) -> None:
        self._lock = threading.Lock()
