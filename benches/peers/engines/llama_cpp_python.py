"""llama.cpp through llama-cpp-python, as its users call it."""

from pathlib import Path

import llama_cpp

from peers.engines import Encode

PACKAGES = ("llama-cpp-python",)
# Tokens that are computed together; more texts than fit wait for the next batch.
N_BATCH = 512


def load(model: Path, threads: int, *, one: bool) -> Encode:  # noqa: ARG001
    llama = llama_cpp.Llama(
        str(model),
        embedding=True,
        n_ctx=N_BATCH,
        n_batch=N_BATCH,
        n_ubatch=N_BATCH,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    return lambda texts, _: llama.embed(texts, normalize=True)
