"""EmbedAnything (candle), as its users call it."""

import os
from pathlib import Path

import embed_anything

from peers.convert.hub import REVISION
from peers.engines import Encode

PACKAGES = ("embed-anything",)
NAME = "sentence-transformers/all-MiniLM-L6-v2"


def load(model: Path, threads: int, *, one: bool) -> Encode:  # noqa: ARG001
    """`model` is a Hugging Face cache with the model in it."""
    os.environ["HF_HOME"] = str(model)
    embedder = embed_anything.EmbeddingModel.from_pretrained_hf(model_id=NAME, revision=REVISION)

    def encode(texts: list[str], batch: int) -> list[list[float]]:
        config = embed_anything.TextEmbedConfig(batch_size=batch)
        found = embed_anything.embed_query(texts, embedder=embedder, config=config)
        return [data.embedding for data in found]

    return encode
