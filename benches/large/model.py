"""A GGUF file of nomic-embed-code's shape with random weights, the same on every machine.

    python -m large.model FILE

Qwen2, 28 layers, Q4_K and Q6_K as llama.cpp's Q4_K_M has them: 4.38 GB. Weights are written in
blocks of a few megabytes. The vocabulary has Qwen's size: the words of Python's language
reference, and then tokens that hardly any text has.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, PoolingType, TokenType
from numpy.random import Generator, Philox
from numpy.typing import NDArray

LAYERS = 28
HIDDEN = 3584
HEADS, KV_HEADS = 28, 4
FEED_FORWARD = 18944
VOCABULARY = 151_936
ORDINARY = 151_643
"""Tokens before the special ones; after those come some that are never used."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

BLOCK = 256
BYTES = {GGMLQuantizationType.Q4_K: 144, GGMLQuantizationType.Q6_K: 210}
AT_ONCE = 1 << 15
"""Blocks that are made and written together."""


def finer(layer: int) -> bool:
    """Whether Q4_K_M keeps some matrices of that layer in Q6_K."""
    eighth = LAYERS // 8
    return layer < eighth or layer >= 7 * LAYERS // 8 or (layer - eighth) % 3 == 2


def tensors() -> Iterator[tuple[str, tuple[int, ...], GGMLQuantizationType]]:
    """Name, shape and type, in file order."""
    four, six = GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K
    floats = GGMLQuantizationType.F32
    kv = HIDDEN // HEADS * KV_HEADS
    yield "token_embd.weight", (VOCABULARY, HIDDEN), six
    for i in range(LAYERS):
        some = six if finer(i) else four
        yield f"blk.{i}.attn_norm.weight", (HIDDEN,), floats
        for name, width, kind in (("q", HIDDEN, four), ("k", kv, four), ("v", kv, some)):
            yield f"blk.{i}.attn_{name}.weight", (width, HIDDEN), kind
            yield f"blk.{i}.attn_{name}.bias", (width,), floats
        yield f"blk.{i}.attn_output.weight", (HIDDEN, HIDDEN), four
        yield f"blk.{i}.ffn_norm.weight", (HIDDEN,), floats
        yield f"blk.{i}.ffn_gate.weight", (FEED_FORWARD, HIDDEN), four
        yield f"blk.{i}.ffn_up.weight", (FEED_FORWARD, HIDDEN), four
        yield f"blk.{i}.ffn_down.weight", (HIDDEN, FEED_FORWARD), some
    yield "output_norm.weight", (HIDDEN,), floats


def blocks(random: Generator, count: int, kind: GGMLQuantizationType) -> NDArray[np.uint8]:
    """Random blocks of weights around zero with a standard deviation of about 0.02."""
    made = random.integers(0, 256, (count, BYTES[kind]), dtype=np.uint8)
    if kind == GGMLQuantizationType.Q4_K:
        scales = np.array([1e-4, 7.5e-4], dtype="<f2")  # of the scales and of the minima
        made[:, :4] = scales.view(np.uint8)
    else:
        made[:, -2:] = np.array([1.5e-5], dtype="<f2").view(np.uint8)
    return made


def vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level BPE."""
    # GPT-2 writes bytes that are no printable characters as others, a space as Ġ.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    tokens = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]
    merges: list[str] = []
    known = set(tokens)

    def merge(first: str, second: str) -> None:
        if first + second not in known and len(tokens) < ORDINARY:
            known.add(first + second)
            tokens.append(first + second)
            merges.append(f"{first} {second}")

    text = " ".join(topics[name] for name in sorted(topics))
    for word in sorted(set(re.findall("[A-Za-z]+", text))):
        for end in range(1, len(word) + 1):
            merge(f"\u0120{word[: end - 1]}", word[end - 1])
    random = Generator(Philox(0))
    while len(tokens) < ORDINARY:
        for first, second in random.integers(0, len(tokens), (10_000, 2)):
            if len(tokens[first]) + len(tokens[second]) <= 12:
                merge(tokens[first], tokens[second])
    return tokens, merges


def add_vocabulary(writer: GGUFWriter) -> None:
    tokens, merges = vocabulary()
    unused = [f"[PAD{i}]" for i in range(VOCABULARY - ORDINARY - len(SPECIAL))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*tokens, *SPECIAL, *unused])
    writer.add_token_types(
        [TokenType.NORMAL] * len(tokens)
        + [TokenType.CONTROL] * len(SPECIAL)
        + [TokenType.UNUSED] * len(unused)
    )
    writer.add_token_merges(merges)
    writer.add_eos_token_id(ORDINARY)
    writer.add_pad_token_id(ORDINARY)
    writer.add_bos_token_id(ORDINARY)
    writer.add_add_bos_token(value=False)
    writer.add_add_eos_token(value=True)


def add_description(writer: GGUFWriter) -> None:
    writer.add_name("random weights of nomic-embed-code's shape")
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_context_length(32768)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(1e6)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_pooling_type(PoolingType.LAST)


def write(target: Path) -> None:
    writer = GGUFWriter(target, "qwen2")
    add_description(writer)
    add_vocabulary(writer)
    for name, shape, kind in tensors():
        elements = int(np.prod(shape))
        size = elements // BLOCK * BYTES[kind] if kind in BYTES else elements * 4
        stored = shape if kind not in BYTES else (*shape[:-1], shape[-1] // BLOCK * BYTES[kind])
        dtype = np.dtype(np.uint8 if kind in BYTES else np.float32)
        writer.add_tensor_info(name, stored, dtype, size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    out = writer.fout[0]
    writer.write_padding(out, out.tell())
    for number, (name, shape, kind) in enumerate(tensors()):
        random = Generator(Philox(number))
        if kind in BYTES:
            left = int(np.prod(shape)) // BLOCK
            while left:
                some = min(left, AT_ONCE)
                out.write(blocks(random, some, kind).tobytes())
                left -= some
        else:
            around = 1.0 if name.endswith("norm.weight") else 0.0
            values = around + 0.02 * random.standard_normal(shape)
            out.write(values.astype("<f4").tobytes())
        writer.write_padding(out, out.tell())
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
