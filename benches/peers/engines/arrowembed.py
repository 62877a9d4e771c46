"""This project's engine, without its cache: every text is computed."""

from pathlib import Path

from arrowembed import Embedder, set_num_threads
from peers.engines import Encode

PACKAGES = ("arrowembed",)
ABOUT: dict[str, str] = {}


def load(model: Path, threads: int, *, one: bool, **options: object) -> Encode:  # noqa: ARG001
    set_num_threads(threads)
    embedder = Embedder(str(model), cache_size=0, **options)  # type: ignore[arg-type]
    ABOUT["kernels"] = embedder.info()["isa"]
    return lambda texts, _: embedder.encode(texts)
