"""Which segments are to become one, so that many small writes leave few segments.

As in a log-structured merge tree: eight small neighbours become one, eight of those again, until it
is half as large as a segment may be. So each row is rewritten about as often as there are such
levels, and of each level there are at most seven.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
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

    The last one takes those before it that are of a lower level, and where it is the eighth of its
    own level, the other seven; so does what comes out of it. So levels never ascend.

    Args:
        weights: How large each is.
        limit: How large one may be.
    """
    start = len(weights) - 1
    if start < 1:
        return slice(0, 0)
    total = weights[start]
    while True:
        level = _level(total, limit)
        first = start
        while first and _level(weights[first - 1], limit) < level:
            first -= 1
        same = first
        while same and level < _FULL and _level(weights[same - 1], limit) == level:
            same -= 1
        if first - same >= FAN_OUT - 1:
            first = same
        if first == start:
            return slice(start, len(weights))
        start, total = first, sum(weights[first:])
        if total > limit:
            return slice(start, start + _that_fit(weights[start:], limit))


_FULL = 64
"""Level of a segment that is not merged any more."""


def _level(weight: int, limit: int) -> int:
    """In which power of eight a segment is."""
    return _FULL if 2 * weight >= limit else (max(1, weight).bit_length() - 1) // 3


def _that_fit(weights: Sequence[int], limit: int) -> int:
    """How many of the first make one segment."""
    return max(1, sum(total <= limit for total in accumulate(weights)))


def in_compaction(weights: Sequence[int], fragmented: Sequence[bool], limit: int) -> slice | None:
    """The first neighbours that are to become one segment; None if all is well.

    Args:
        weights: How large each is, without what was deleted.
        fragmented: Whether each has rows that were deleted.
        limit: How large one may be.
    """
    start = 0
    while start < len(weights):
        stop = start + _that_fit(weights[start:], limit)
        if stop - start > 1 or fragmented[start]:
            return slice(start, stop)
        start = stop
    return None
