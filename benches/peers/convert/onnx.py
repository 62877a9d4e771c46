"""The model for ONNX Runtime, OpenVINO and fastembed.

`plain` has the operators of ONNX's own set; `fused` is that graph after ONNX Runtime's optimiser
for transformers; `int8` is the latter with weights quantised and activations to be quantised as
they come.
"""

import json
import shutil
import sys
from pathlib import Path

from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.optimizer import optimize_model

from peers.convert.onnx_graph import write

COPIED = ("config.json", "sentence_bert_config.json", "special_tokens_map.json", "tokenizer.json")


def copy_tokenizer(source: Path, target: Path) -> None:
    """The tokenizer's files, with the model's own limit in all of them.

    The published `tokenizer_config.json` has that of BERT, 512, which some packages go by.
    """
    for name in COPIED:
        shutil.copy(source / name, target)
    limit = json.loads((source / "sentence_bert_config.json").read_text())["max_seq_length"]
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["model_max_length"] = limit
    (target / "tokenizer_config.json").write_text(json.dumps(settings))


def main(source: Path, target: Path) -> None:
    for name in ("plain", "fused", "int8"):
        (target / name).mkdir()
        copy_tokenizer(source, target / name)
    plain, fused, int8 = (target / name / "model.onnx" for name in ("plain", "fused", "int8"))
    write(source, plain)
    config = json.loads((source / "config.json").read_text())
    optimised = optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
    )
    counts = optimised.get_fused_operator_statistics()
    if counts["Attention"] != config["num_hidden_layers"]:
        raise SystemExit(f"ONNX Runtime's optimiser did not fuse every attention: {counts}")
    optimised.save_model_to_file(str(fused))
    quantize_dynamic(
        fused,
        int8,
        per_channel=True,
        weight_type=QuantType.QInt8,
        # Shapes and types do not follow from the fused operators, which are not ONNX's own.
        extra_options={"DefaultTensorType": TensorProto.FLOAT},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
