"""OpenVINO: one stream for each of several callers, or all threads for one text."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from peers.engines import Encode, own_tokens

PACKAGES = ("openvino",)
ABOUT: dict[str, str] = {}


def load(model: Path, threads: int, *, one: bool, file: str, precision: str | None) -> Encode:
    """`precision` None leaves the arithmetic to OpenVINO (bfloat16 where the CPU has it)."""
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1 if one else threads,
        "PERFORMANCE_HINT": "LATENCY" if one else "THROUGHPUT",
    }
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = openvino.Core().compile_model(str(model / file), "CPU", settings)
    ABOUT["precision"] = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    own = threading.local()

    def infer(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        outputs: NDArray[np.float32] = own.request.infer(inputs, share_inputs=True)[0]
        return outputs

    return own_tokens.encoder(model, infer, 1 if one else threads)
