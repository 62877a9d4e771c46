"""sentence-transformers over torch, as its users call it."""

from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer

from peers.engines import Encode

PACKAGES = ("sentence-transformers", "torch")


def load(model: Path, threads: int, *, one: bool) -> Encode:  # noqa: ARG001
    torch.set_num_threads(threads)
    embedder = SentenceTransformer(str(model), device="cpu")
    return lambda texts, batch: embedder.encode(texts, batch_size=batch)
