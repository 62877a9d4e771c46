"""Prose that every machine has: Python's own language reference, cut to length."""

import re
from pydoc_data.topics import topics

# Words of this prose make 1.4 tokens each: about 8 to 20, 8 to 256 and over 256 tokens.
SHORT = (6, 12)
LONG = 250


def words() -> list[str]:
    text = "\n".join(topics[name] for name in sorted(topics))
    return re.sub(r"[^A-Za-z0-9 ,.'()-]+", " ", text).split()


def cut(lengths: list[int]) -> list[str]:
    """Consecutive passages of these many words, over and over the prose."""
    prose, start, passages = words(), 0, []
    for length in lengths:
        if start + length > len(prose):
            start = start % 97 + 1
        passages.append(" ".join(prose[start : start + length]))
        start += length
    return passages


def text_set(kind: str, count: int) -> list[str]:
    """`count` texts: `short`, `long`, or `mixed` with as many short as long ones."""
    low, high = SHORT
    if kind == "short":
        return cut([low + i % (high - low + 1) for i in range(count)])
    if kind == "long":
        return cut([LONG] * count)
    if kind == "mixed":
        # Evenly spread in the logarithm, in an order that mixes them.
        ratio = 180 / low
        return cut([round(low * ratio ** ((i * 61 % 100) / 99)) for i in range(count)])
    raise ValueError(f"no text set {kind!r}; there are short, mixed and long")
