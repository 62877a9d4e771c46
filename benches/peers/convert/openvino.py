"""The model for OpenVINO with 8-bit weights, from the ONNX graph."""

import shutil
import sys
from pathlib import Path

import nncf
import openvino


def main(source: Path, target: Path) -> None:
    model = openvino.Core().read_model(source / "model.onnx")
    compressed = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)
    openvino.save_model(compressed, target / "model.xml")
    for name in ("sentence_bert_config.json", "tokenizer.json"):
        shutil.copy(source / name, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
