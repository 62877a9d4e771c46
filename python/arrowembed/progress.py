"""The progress bar of long calls."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

from arrowembed.errors import MissingDependencyError

if TYPE_CHECKING:
    from types import TracebackType

_AUTOMATIC_AFTER = 1.0
"""Seconds after which a call counts as long, on a terminal."""


class Progress:
    """A tqdm bar over a known number of texts, shown only when it is wanted.

    Args:
        total: Number of texts.
        show: True shows it at once, False never; None shows it on a terminal once the call has
            run for a second.

    Raises:
        MissingDependencyError: `show` is True and tqdm is not installed.
    """

    def __init__(self, total: int, show: bool | None) -> None:
        self._total = total
        self._bar: Any = None
        self._automatic = show is None and sys.stderr is not None and sys.stderr.isatty()
        self._start = time.monotonic()
        if show:
            self._bar = _tqdm()(total=total, unit=" texts")

    @property
    def wanted(self) -> bool:
        """Whether anything will or may be shown."""
        return self._automatic or self._bar is not None

    def __call__(self, done: int) -> None:
        """Sets the bar to `done` texts."""
        if self._bar is None and self._automatic:
            self._start_when_long()
        if self._bar is not None:
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
            self._bar = _tqdm()(total=self._total, unit=" texts", leave=False)
        except MissingDependencyError:
            self._automatic = False


def _tqdm() -> Any:
    try:
        from tqdm import tqdm  # noqa: PLC0415 - optional, and slow to import
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            "tqdm", purpose="show_progress_bar=True", install='"arrowembed[cli]"'
        ) from error
    return tqdm
