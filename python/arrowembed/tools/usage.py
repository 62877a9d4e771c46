"""What tools were called for, in numbers; no texts."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from typing_extensions import TypedDict

from arrowembed.tools.running import in_forked_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arrowembed.tools.definition import Answer


class ToolUsage(TypedDict):
    """How a tool was used so far."""

    calls: int
    """That ended, one way or another."""
    running: int
    """Calls that are being waited for."""
    errors: dict[str, int]
    """Calls that failed, by code; "cancelled" are those that nobody waited for to the end."""
    seconds: float
    """In all calls together, as long as they were waited for."""
    max_seconds: float
    """In the longest one."""
    input_bytes: int
    """Of arguments, as JSON."""
    output_bytes: int
    """Of results, as JSON."""


@dataclass(slots=True)
class _Counts:
    calls: int = 0
    running: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    max_seconds: float = 0.0
    input_bytes: int = 0
    output_bytes: int = 0


class Meter:
    """Counts the calls of several tools. Safe to share between threads."""

    def __init__(self) -> None:
        self._counts: dict[str, _Counts] = {}
        self._renew()
        in_forked_child(self._renew)

    @contextmanager
    def call(self, name: str) -> Iterator[list[Answer]]:
        """Counts one call; its answer is put into the list. Without one it was cancelled."""
        with self._lock:
            counts = self._counts.setdefault(name, _Counts())
            counts.running += 1
        answers: list[Answer] = []
        started = perf_counter()
        try:
            yield answers
        finally:
            seconds = perf_counter() - started
            with self._lock:
                counts.running -= 1
                counts.calls += 1
                counts.seconds += seconds
                counts.max_seconds = max(counts.max_seconds, seconds)
                if not answers:
                    counts.errors["cancelled"] += 1
                for answer in answers:
                    counts.input_bytes += answer.input_bytes
                    counts.output_bytes += answer.output_bytes
                    if not answer.outcome["ok"]:
                        counts.errors[answer.outcome["error"]["code"]] += 1

    def report(self) -> dict[str, ToolUsage]:
        """The counts of every tool that was called."""
        with self._lock:
            return {
                name: {
                    "calls": counts.calls,
                    "running": counts.running,
                    "errors": dict(counts.errors),
                    "seconds": counts.seconds,
                    "max_seconds": counts.max_seconds,
                    "input_bytes": counts.input_bytes,
                    "output_bytes": counts.output_bytes,
                }
                for name, counts in self._counts.items()
            }

    def _renew(self) -> None:
        self._lock = threading.Lock()
