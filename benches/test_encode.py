"""The Python road under pytest-benchmark: `make bench`, or `pytest benches --benchmark-only`.

The model is `ARROWEMBED_MODEL`, by default all-MiniLM-L6-v2.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from texts import text_set

from arrowembed import Embedder

Benchmark = Callable[..., Any]


@pytest.fixture(scope="module")
def model() -> Embedder:
    # No cache: the same texts come every round.
    return Embedder(os.environ.get("ARROWEMBED_MODEL", "all-MiniLM-L6-v2"), cache_size=0)


@pytest.mark.parametrize("kind", ["short", "mixed", "long"])
def test_batch(benchmark: Benchmark, model: Embedder, kind: str) -> None:
    texts = text_set(kind, 64, model)
    assert benchmark(model.encode, texts).shape == (64, model.dimension)


@pytest.mark.parametrize("kind", ["short", "long"])
def test_one_text(benchmark: Benchmark, model: Embedder, kind: str) -> None:
    (text,) = text_set(kind, 1, model)
    assert benchmark(model.encode, text).shape == (model.dimension,)


def test_cached_text(benchmark: Benchmark) -> None:
    model = Embedder(os.environ.get("ARROWEMBED_MODEL", "all-MiniLM-L6-v2"))
    assert benchmark(model.encode, "A text that comes again.").shape == (model.dimension,)


def test_open(benchmark: Benchmark, model: Embedder) -> None:
    path = model.info()["path"]
    assert benchmark(Embedder, path).dimension == model.dimension
