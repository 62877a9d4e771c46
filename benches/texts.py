"""Prose that every machine has, Python's own language reference, cut to lengths in tokens."""

import re
from collections.abc import Iterator
from pydoc_data.topics import topics

from arrowembed import Embedder

SHORT = (8, 20)
MIXED = (8, 256)
LONG = 256
SPECIAL = 2
"""Tokens that every text has besides its words': [CLS] and [SEP]."""


def token_counts(texts: list[str], model: Embedder) -> list[int]:
    return [len(ids) for ids in model.tokenize(texts)["input_ids"]]


def prose() -> list[str]:
    """The words of the language reference."""
    text = "\n".join(topics[name] for name in sorted(topics))
    return re.sub(r"[^A-Za-z0-9 ,.'()-]+", " ", text).split()


def cut(lengths: list[int], model: Embedder) -> list[str]:
    """Passages of exactly these many tokens, special ones included, one after the other.

    Words are tokenized each for itself, so their tokens add up; one that would be too many for what
    is left of a passage is passed over.
    """
    words = prose()
    known = sorted(set(words))
    counts = dict(zip(known, token_counts(known, model), strict=True))
    running = endless(words)
    passages = []
    for length in lengths:
        left, passage = length - SPECIAL, []
        while left > 0:
            word = next(running)
            tokens = counts[word] - SPECIAL
            if tokens <= left:
                passage.append(word)
                left -= tokens
        passages.append(" ".join(passage))
    return passages


def endless(words: list[str]) -> Iterator[str]:
    """Again and again, each time from another place, so that no passage comes twice."""
    start = 0
    while True:
        yield from words[start:]
        start += 7


def lengths(kind: str, count: int) -> list[int]:
    """In tokens: `short`, `long`, or `mixed` with as many short as long ones."""
    if kind == "short":
        low, high = SHORT
        return [low + i % (high - low + 1) for i in range(count)]
    if kind == "long":
        return [LONG] * count
    if kind == "mixed":
        # Evenly spread in the logarithm, in an order that mixes them.
        low, high = MIXED
        return [round(low * (high / low) ** ((i * 61 % 100) / 99)) for i in range(count)]
    raise ValueError(f"no text set {kind!r}; there are short, mixed and long")


def text_set(kind: str, count: int, model: Embedder) -> list[str]:
    """`count` texts, each a different one, that `model` sees with the lengths of their kind."""
    return cut(lengths(kind, count), model)
