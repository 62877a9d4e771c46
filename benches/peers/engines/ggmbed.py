"""ggmbed, llama.cpp behind a small package of its own."""

from pathlib import Path

from ggmbed import Embedder

from peers.engines import Encode

PACKAGES = ("ggmbed",)


def load(model: Path, threads: int, *, one: bool) -> Encode:  # noqa: ARG001
    embedder = Embedder(str(model), num_threads=threads)
    return lambda texts, _: embedder.encode(texts)
