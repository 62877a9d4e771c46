"""The model for CTranslate2, in float32; other types are made from it when it is opened.

The same as CTranslate2's own converter makes, which needs torch and transformers.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from ctranslate2.converters import utils
from ctranslate2.specs import common_spec, transformer_spec
from safetensors.numpy import load_file


def specification(folder: Path) -> transformer_spec.TransformerEncoderModelSpec:
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    encoder = transformer_spec.TransformerEncoderSpec(
        config["num_hidden_layers"],
        config["num_attention_heads"],
        pre_norm=False,
        activation=common_spec.Activation.GELU,
        layernorm_embedding=True,
        num_source_embeddings=2,
        embeddings_merge=common_spec.EmbeddingsMerge.ADD,
    )
    encoder.scale_embeddings = False

    def linear(spec: Any, name: str) -> None:
        spec.weight, spec.bias = weights[f"{name}.weight"], weights[f"{name}.bias"]

    def norm(spec: Any, name: str) -> None:
        spec.gamma, spec.beta = weights[f"{name}.weight"], weights[f"{name}.bias"]

    words, types = encoder.embeddings
    words.weight = weights["embeddings.word_embeddings.weight"]
    types.weight = weights["embeddings.token_type_embeddings.weight"]
    encoder.position_encodings.encodings = weights["embeddings.position_embeddings.weight"]
    norm(encoder.layernorm_embedding, "embeddings.LayerNorm")
    for number, layer in enumerate(encoder.layer):
        prefix = f"encoder.layer.{number}"
        parts = [common_spec.LinearSpec() for _ in range(3)]
        for part, kind in zip(parts, ("query", "key", "value"), strict=True):
            linear(part, f"{prefix}.attention.self.{kind}")
        attention = layer.self_attention
        utils.fuse_linear(attention.linear[0], parts)
        linear(attention.linear[1], f"{prefix}.attention.output.dense")
        norm(attention.layer_norm, f"{prefix}.attention.output.LayerNorm")
        linear(layer.ffn.linear_0, f"{prefix}.intermediate.dense")
        linear(layer.ffn.linear_1, f"{prefix}.output.dense")
        norm(layer.ffn.layer_norm, f"{prefix}.output.LayerNorm")

    spec = transformer_spec.TransformerEncoderModelSpec(encoder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    spec.register_vocabulary(sorted(vocabulary, key=vocabulary.__getitem__))
    spec.config.unk_token = "[UNK]"
    spec.config.layer_norm_epsilon = config["layer_norm_eps"]
    return spec


def main(source: Path, target: Path) -> None:
    spec = specification(source)
    spec.validate()
    spec.optimize()
    spec.save(str(target))
    for name in ("sentence_bert_config.json", "tokenizer.json"):
        shutil.copy(source / name, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
