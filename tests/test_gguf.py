"""GGUF files, as llama.cpp's users have them."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from arrowembed import Embedder
from arrowembed.errors import ModelFileError, ModelNotFoundError, UnsupportedModelError

DATA = Path(__file__).parent / "data"
GGUF = DATA / "gguf"


def record(name):
    return json.loads((GGUF / f"{name}.json").read_text("utf-8"))


def opened(name, **options):
    longest = max(len(ids) for ids in record(name)["hf_token_ids"])
    return Embedder(GGUF / f"{name}.gguf", cache_size=0, max_seq_length=longest, **options)


@pytest.mark.parametrize("name", ["bert-F32", "gemma3-embedding-F16", "xlm-roberta-F16"])
def test_floats(name):
    model = opened(name)
    fixture = record(name)
    assert model.tokenize(fixture["texts"])["input_ids"] == fixture["hf_token_ids"]
    expected = np.load(DATA / "hf" / fixture["hf_model"] / "expected.npz")["embeddings"]
    np.testing.assert_allclose(model.encode(fixture["texts"]), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", ["bert-256-Q4_K_M", "qwen2-256-Q8_0"])
def test_blocks(name):
    expected = np.load(GGUF / f"{name}.npz")["dequant_embeddings"]
    found = opened(name).encode(record(name)["texts"])
    # On AMX, numbers are taken for the sum of two bfloat16.
    np.testing.assert_allclose(found, np.nan_to_num(expected), rtol=0, atol=5e-6)


def test_it_is_computed_where_it_is_mapped(tmp_path, monkeypatch):
    monkeypatch.setenv("ARROWEMBED_HOME", str(tmp_path))
    file = GGUF / "bert-256-Q4_K_M.gguf"
    model = Embedder(file, preload=True)
    model.encode("a text")
    assert model.path == file
    assert model.info()["mapped"]
    assert not list(tmp_path.iterdir())
    # Other arithmetic is packed once.
    vectors = Embedder(file, compute="int8", cache_size=0).encode(["one", "another text"])
    assert [entry.suffix for entry in (tmp_path / "unpacked").iterdir()] == [".arrow"]
    exact = model.encode(["one", "another text"])
    assert np.sum(vectors * exact, axis=1).min() > 0.99


@pytest.mark.parametrize(
    ("name", "architecture", "pooling", "dtype"),
    [
        ("bert-F32", "bert", "cls", "F32"),
        ("qwen3-F16", "qwen3", "last", "F16"),
        ("distilbert-F16", "distilbert", "mean", "F16"),
        ("bert-256-Q4_K_M", "bert", "mean", "Q4_K, Q6_K"),
    ],
)
def test_info(name, architecture, pooling, dtype):
    info = Embedder(GGUF / f"{name}.gguf").info()
    assert (info["name"], info["architecture"], info["pooling"]) == (name, architecture, pooling)
    assert info["dtype"] == dtype
    assert info["normalize"] == "l2"


def test_a_tokenizer_beside_the_file_wins(tmp_path):
    file = shutil.copy(GGUF / "bert-F32.gguf", tmp_path)
    text = "Words in UPPER case"
    assert Embedder(file).tokenize(text) == Embedder(GGUF / "bert-F32.gguf").tokenize(text)
    cased = DATA / "hf" / "bert-mean" / "tokenizer.json"
    shutil.copy(cased, tmp_path / "tokenizer.json")
    assert Embedder(file).tokenize(text) != Embedder(GGUF / "bert-F32.gguf").tokenize(text)


def test_conversion_to_a_model_folder(tmp_path):
    from arrowembed_converter.conversion import convert_model

    target = tmp_path / "model"
    convert_model(str(GGUF / "qwen2-F32.gguf"), target, dtype="float32")
    texts = record("qwen2-F32")["texts"]
    converted = Embedder(target, cache_size=0)
    original = Embedder(GGUF / "qwen2-F32.gguf", cache_size=0)
    assert converted.tokenize(texts) == original.tokenize(texts)
    np.testing.assert_array_equal(converted.encode(texts), original.encode(texts))


def damaged(tmp_path, change):
    content = bytearray((GGUF / "bert-F32.gguf").read_bytes())
    file = tmp_path / "damaged.gguf"
    file.write_bytes(change(content) or content)
    return file


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ModelNotFoundError):
        Embedder(tmp_path / "missing.gguf")
    with pytest.raises(ModelFileError, match="GGUF"):
        Embedder(damaged(tmp_path, lambda content: b"JUNK" + content[4:]))
    with pytest.raises(ModelFileError):
        Embedder(damaged(tmp_path, lambda content: content[: len(content) // 2]))
    with pytest.raises(ModelFileError, match=r"big-endian|version"):
        Embedder(
            damaged(tmp_path, lambda content: content[:4] + struct.pack(">I", 3) + content[8:])
        )


def test_a_variant_of_an_architecture_is_refused_by_its_tensor(tmp_path):
    def renamed(content):
        return content.replace(b"blk.1.attn_q.bias", b"blk.1.attn_x.bias", 1)

    with pytest.raises(UnsupportedModelError, match=r"blk\.1\.attn_x\.bias"):
        Embedder(damaged(tmp_path, renamed))


def test_an_unknown_architecture_is_named_with_those_that_work(tmp_path):
    other = damaged(
        tmp_path,
        lambda content: content.replace(b"\x04\0\0\0\0\0\0\0bert", b"\x04\0\0\0\0\0\0\0beat", 1),
    )
    with pytest.raises(UnsupportedModelError, match=r"beat.*nomic-bert"):
        Embedder(other)
