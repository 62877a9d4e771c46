"""CTranslate2: one runtime a core for many texts, all threads for one."""

from pathlib import Path

import ctranslate2
import numpy as np
from numpy.typing import NDArray

from peers.engines import Encode, own_tokens

PACKAGES = ("ctranslate2",)


def load(model: Path, threads: int, *, one: bool, compute_type: str) -> Encode:
    runtime = ctranslate2.Encoder(
        str(model),
        compute_type=compute_type,
        inter_threads=1 if one else threads,
        intra_threads=threads if one else 1,
    )

    def view(values: NDArray[np.int64]) -> ctranslate2.StorageView:
        return ctranslate2.StorageView.from_array(values.astype(np.int32))

    def infer(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        output = runtime.forward_batch(view(ids), lengths=view(mask.sum(1)))
        hidden = output.last_hidden_state.to(ctranslate2.DataType.float32)
        return np.asarray(hidden)

    return own_tokens.encoder(model, infer, 1 if one else threads)
