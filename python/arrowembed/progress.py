"""What happens between the micro-batches of a long call: a progress bar, and giving up."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from arrowembed.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

_AUTOMATIC_AFTER = 1.0
"""Seconds after which a call counts as long, on a terminal."""

_cancelled: ContextVar[threading.Event | None] = ContextVar("cancelled", default=None)
"""Set when the task that waits for this call is cancelled; `asyncio.to_thread` hands it on."""


@contextmanager
def cancellable() -> Iterator[None]:
    """Makes calls on other threads stop when the task that waits for them is cancelled."""
    from asyncio import CancelledError  # noqa: PLC0415 - slow to import

    cancelled = threading.Event()
    try:
        with cancelled_by(cancelled):
            yield
    except CancelledError:
        cancelled.set()
        raise


@contextmanager
def cancelled_by(cancelled: threading.Event) -> Iterator[None]:
    """Makes calls of this context stop once `cancelled` is set."""
    token = _cancelled.set(cancelled)
    try:
        yield
    finally:
        _cancelled.reset(token)


def is_cancelled() -> bool:
    """Whether nobody waits any longer for what this thread is doing."""
    cancelled = _cancelled.get()
    return cancelled is not None and cancelled.is_set()


class Progress:
    """A tqdm bar over a number of texts or bytes, shown only when it is wanted.

    Args:
        total: Number of them; None if the callback will tell.
        show: True shows it at once, False never; None shows it on a terminal once the call has
            run for a second.
        unit: What is counted; "B" for bytes.

    Raises:
        MissingDependencyError: `show` is True and tqdm is not installed.
    """

    def __init__(self, total: int | None, show: bool | None, unit: str = " texts") -> None:
        self._total = total
        self._unit = unit
        self._bar: Any = None
        self._automatic = show is None and sys.stderr is not None and sys.stderr.isatty()
        self._cancelled = _cancelled.get()
        self._start = time.monotonic()
        if show:
            self._bar = self._make_bar()

    @property
    def callback(self) -> Callable[..., object] | None:
        """What to call with the number done, and perhaps in all; None if nobody wants to know."""
        wanted = self._automatic or self._bar is not None or self._cancelled is not None
        return self._report if wanted else None

    def _report(self, done: int, total: int | None = None) -> None:
        if self._cancelled is not None and self._cancelled.is_set():
            from asyncio import CancelledError  # noqa: PLC0415 - slow to import

            raise CancelledError
        if self._bar is None and self._automatic:
            self._start_when_long()
        if self._bar is not None:
            self._bar.total = total if total is not None else self._total
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def _start_when_long(self) -> None:
        if time.monotonic() - self._start < _AUTOMATIC_AFTER:
            return
        try:
            self._bar = self._make_bar(leave=False)
        except MissingDependencyError:
            self._automatic = False

    def _make_bar(self, *, leave: bool = True) -> Any:
        of_bytes = self._unit == "B"
        return _tqdm()(total=self._total, unit=self._unit, unit_scale=of_bytes, leave=leave)


def _tqdm() -> Any:
    try:
        from tqdm import tqdm  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            "tqdm", purpose="show_progress_bar=True", install='"arrowembed[cli]"'
        ) from error
    return tqdm
