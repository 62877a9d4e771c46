"""fastembed over ONNX Runtime, as its users call it, with the model's files from a folder."""

from pathlib import Path

from fastembed import TextEmbedding

from peers.engines import Encode

PACKAGES = ("fastembed", "onnxruntime")
NAME = "sentence-transformers/all-MiniLM-L6-v2"


def load(model: Path, threads: int, *, one: bool) -> Encode:  # noqa: ARG001
    embedder = TextEmbedding(NAME, specific_model_path=str(model), threads=threads)
    return lambda texts, batch: list(embedder.embed(texts, batch_size=batch))
