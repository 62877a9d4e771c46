"""llama.cpp through llama-cpp-python, as its users call it."""

from pathlib import Path

import llama_cpp

from peers.engines import Encode

PACKAGES = ("llama-cpp-python",)
# Tokens that are computed together; texts that do not fit wait for the next batch. All of a batch
# attend to all, masked, so a batch no larger than the longest text, 256 tokens, is the fastest.
N_BATCH = 256
LOADED: dict[str, llama_cpp.Llama] = {}


def load(model: Path, threads: int, *, one: bool, n_batch: int = N_BATCH) -> Encode:  # noqa: ARG001
    llama = llama_cpp.Llama(
        str(model),
        embedding=True,
        n_ctx=n_batch,
        n_batch=n_batch,
        n_ubatch=n_batch,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    LOADED["model"] = llama
    return lambda texts, _: llama.embed(texts, normalize=True)


def token_ids(texts: list[str]) -> list[list[int]]:
    return [LOADED["model"].tokenize(text.encode())[:N_BATCH] for text in texts]
