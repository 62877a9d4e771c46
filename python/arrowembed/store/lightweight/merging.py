"""Which segments are to become one, so that many small writes leave few segments.

As in a log-structured merge tree: eight small neighbours become one, eight of those again, until it
is half as large as a segment may be. So each row is rewritten as often as there are such steps, and
of each size there are at most seven.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FAN_OUT = 8

MAX_BYTES = 64 << 20
"""Of the vectors of a segment as float32, and of its strings; one row may have more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a segment may be."""

    rows: int
    payload: int = MAX_BYTES

    @classmethod
    def of(cls, dimension: int) -> Limits:
        """Those of a store."""
        return cls(rows=max(1, MAX_BYTES // (4 * dimension)))

    def weight(self, rows: int, payload: float) -> int:
        """How large a segment is: its rows, or as many as its strings take the place of."""
        return max(rows, int(payload * self.rows / self.payload))


def after_write(weights: Sequence[int], limit: int) -> slice:
    """Neighbours to merge after the last segment has been added; few of them, mostly none.

    Args:
        weights: How large each is.
        limit: How large one may be.
    """
    sizes = list(weights)
    last = len(sizes)
    start = last
    bound = FAN_OUT
    while start:
        bound = min(bound, max(1, limit // 2))
        first = len(sizes)
        while first and sizes[first - 1] < bound:
            first -= 1
        if len(sizes) - first >= FAN_OUT:
            total, stop = 0, first
            while stop < len(sizes) and total + sizes[stop] <= limit:
                total += sizes[stop]
                stop += 1
            if stop < len(sizes):
                # Not all of them fit: the oldest fill a segment.
                return slice(first, stop) if start == last else slice(start, last)
            sizes[first:] = [total]
            start = first
        if bound == max(1, limit // 2):
            break
        bound *= FAN_OUT
    return slice(start, last)


def in_compaction(weights: Sequence[int], fragmented: Sequence[bool], limit: int) -> slice | None:
    """The first neighbours that are to become one segment; None if all is well.

    Args:
        weights: How large each is, without what was deleted.
        fragmented: Whether each has rows that were deleted.
        limit: How large one may be.
    """
    start = 0
    while start < len(weights):
        total, stop = weights[start], start + 1
        while stop < len(weights) and total + weights[stop] <= limit:
            total += weights[stop]
            stop += 1
        if stop - start > 1 or fragmented[start]:
            return slice(start, stop)
        start = stop
    return None
