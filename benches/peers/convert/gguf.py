"""The model for llama.cpp: GGUF files with float32, float16 and 8-bit weights.

Names and the form of the vocabulary are those of llama.cpp's own converter.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, PoolingType, TokenType, quants
from numpy.typing import NDArray
from safetensors.numpy import load_file

OUTSIDE = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}
LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
# Added to others, not multiplied: llama.cpp keeps them as they are.
KEPT = ("position_embd.weight", "token_types.weight")
FILES = {
    "F32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "F16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "Q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}


def tensors(folder: Path, layers: int) -> dict[str, NDArray[np.float32]]:
    weights = load_file(folder / "model.safetensors")
    modules = dict(OUTSIDE)
    for i in range(layers):
        modules |= {f"encoder.layer.{i}.{name}": f"blk.{i}.{new}" for name, new in LAYER.items()}
    return {
        f"{new}.{kind}": weights[f"{name}.{kind}"].astype(np.float32)
        for name, new in modules.items()
        for kind in ("weight", "bias")
        if f"{name}.{kind}" in weights
    }


def add_vocabulary(writer: GGUFWriter, folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}

    def piece(token: str) -> str:
        if token in special:
            return token
        return token[2:] if token.startswith("##") else f"\u2581{token}"

    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("bert")
    writer.add_token_list([piece(token) for token in ordered])
    writer.add_token_types(
        [TokenType.CONTROL if token in special else TokenType.NORMAL for token in ordered]
    )
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_mask_token_id(special["[MASK]"])
    writer.add_add_bos_token(value=True)
    writer.add_add_eos_token(value=True)


def write(folder: Path, target: Path, config: dict[str, Any], kind: str) -> None:
    weight_type, file_type = FILES[kind]
    writer = GGUFWriter(target, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_file_type(file_type)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(value=False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_token_type_count(config["type_vocab_size"])
    add_vocabulary(writer, folder)
    for name, values in tensors(folder, config["num_hidden_layers"]).items():
        matrix = values.ndim == 2 and name not in KEPT
        stored = weight_type if matrix else GGMLQuantizationType.F32
        writer.add_tensor(name, quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(source: Path, target: Path) -> None:
    config = json.loads((source / "config.json").read_text())
    for kind in FILES:
        write(source, target / f"all-MiniLM-L6-v2-{kind}.gguf", config, kind)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
