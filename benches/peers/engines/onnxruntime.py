"""ONNX Runtime: one thread for each of several callers, or all threads for one text."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from peers.engines import Encode, own_tokens

PACKAGES = ("onnxruntime",)


def load(model: Path, threads: int, *, one: bool) -> Encode:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads if one else 1
    file = str(model / "model.onnx")
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def infer(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        hidden: NDArray[np.float32] = session.run(None, inputs)[0]
        return hidden

    return own_tokens.encoder(model, infer, 1 if one else threads)
