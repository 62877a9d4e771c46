"""The NumPy reference against vectors that torch computed in float64."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from arrowembed_converter.reference import POOLINGS, Reference, UnsupportedReferenceError, gelu

DATA = Path(__file__).parent.parent / "data"
GOLDEN = DATA / "golden"
TEXTS: list[str] = json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def real(minilm_source: Path) -> Reference:
    return Reference(minilm_source)


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    """A copy of the tiny BERT that a test may spoil."""
    return Path(shutil.copytree(bert, tmp_path / "bert"))


def edit(path: Path, **changes: object) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | changes), encoding="utf-8")


def test_vectors_of_the_real_model(real: Reference) -> None:
    expected = np.load(GOLDEN / "embeddings_f64.npy")
    vectors = real.encode(TEXTS)
    assert vectors.shape == (77, 384)
    assert 1 - np.sum(vectors * expected, axis=1).min() < 1e-12
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=1e-12)


def test_tokens_of_the_real_model(real: Reference) -> None:
    expected = json.loads((GOLDEN / "token_ids.json").read_text(encoding="utf-8"))
    tokenized = [real.tokenize(text) for text in TEXTS]
    assert [ids for ids, _, _ in tokenized] == expected["ids"]
    assert [length for _, _, length in tokenized] == expected["full_length"]


def test_every_layer_of_the_real_model(real: Reference) -> None:
    with np.load(GOLDEN / "hidden_states_f64.npz") as layers:
        for key, expected in layers.items():
            ids, type_ids, _ = real.tokenize(TEXTS[int(key.removeprefix("text"))])
            states = np.stack(real.hidden_states(ids, type_ids))
            np.testing.assert_allclose(states, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["bert", "bert-mean"])
def test_tiny_models(name: str) -> None:
    folder = DATA / "hf" / name
    reference = Reference(folder)
    samples = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    with np.load(folder / "expected.npz") as expected:
        np.testing.assert_allclose(
            reference.encode(samples["texts"]), expected["embeddings"], rtol=0, atol=2e-6
        )
    tokenized = [reference.tokenize(text) for text in samples["texts"]]
    assert [ids for ids, _, _ in tokenized] == samples["input_ids"]
    assert [length for _, _, length in tokenized] == samples["untruncated_lengths"]


def test_no_texts_give_no_rows(bert: Path) -> None:
    assert Reference(bert).encode([]).shape == (0, 64)


def test_gelu_is_the_error_function_to_the_last_digit() -> None:
    x = np.linspace(-9, 9, 1001).reshape(7, 143)
    expected = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.ravel()]
    np.testing.assert_allclose(gelu(x).ravel(), expected, rtol=1e-15, atol=1e-15)


def test_poolings() -> None:
    tokens = np.array([[1.0, 5.0], [3.0, -1.0], [2.0, 2.0], [2.0, 2.0]])
    pooled = {name: pool(tokens).tolist() for name, pool in POOLINGS.items()}
    assert pooled == {
        "cls": [1, 5],
        "mean": [2, 2],
        "max": [3, 5],
        "mean_sqrt": [4, 4],
        "last": [2, 2],
    }


def test_bare_transformer_is_mean_pooled_and_cut_at_its_positions(copy: Path) -> None:
    for name in ("modules.json", "sentence_bert_config.json"):
        (copy / name).unlink()
    shutil.rmtree(copy / "1_Pooling")
    reference = Reference(copy)
    assert (reference.settings.pooling, reference.settings.normalize) == ("mean", False)
    # max_position_embeddings is 64, the tokenizer's model_max_length 512.
    ids, type_ids, full_length = reference.tokenize("word " * 500)  # three tokens a word
    assert (len(ids), full_length) == (64, 1502)
    mean = reference.hidden_states(ids, type_ids)[-1].mean(axis=0)
    np.testing.assert_array_equal(reference.encode_one("word " * 500), mean)


def test_lower_casing_of_sentence_transformers(copy: Path) -> None:
    edit(copy / "sentence_bert_config.json", do_lower_case=True)
    edit(copy / "tokenizer.json", normalizer=None)
    reference = Reference(copy)
    assert reference.tokenize("HELLO")[0] == reference.tokenize("hello")[0]


def test_sharded_weights(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    whole = Reference(copy).weights
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, copy / shard)
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    sharded = Reference(copy).weights
    assert whole.keys() == sharded.keys()
    for name, tensor in whole.items():
        np.testing.assert_array_equal(sharded[name], tensor)


def test_bfloat16_is_read_as_the_upper_half_of_float32(copy: Path) -> None:
    path = copy / "model.safetensors"
    content = path.read_bytes()
    header_size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + header_size])
    name = "embeddings.LayerNorm.weight"
    begin, end = header[name]["data_offsets"]
    data = bytearray(content[8 + header_size :])
    # 64 float32 become 64 bfloat16 and, to keep the offsets, a second tensor of 64.
    data[begin:end] = np.full(128, 0x3FC0, "<u2").tobytes()
    middle = (begin + end) // 2
    header[name] = {"dtype": "BF16", "shape": [64], "data_offsets": [begin, middle]}
    header["rest"] = {"dtype": "BF16", "shape": [64], "data_offsets": [middle, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data))
    np.testing.assert_array_equal(Reference(copy).weights[name], np.full(64, 1.5))


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("config.json", {"model_type": "roberta"}, "roberta"),
        ("config.json", {"hidden_act": "quick_gelu"}, "quick_gelu"),
        ("config.json", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": False}, "none"),
    ],
)
def test_refuses_by_name(copy: Path, file: str, changes: dict[str, object], named: str) -> None:
    edit(copy / file, **changes)
    with pytest.raises(UnsupportedReferenceError, match=named):
        Reference(copy)


def test_refuses_other_modules(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text(encoding="utf-8"))
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "x.models.Dense"})
    (copy / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(UnsupportedReferenceError, match="Dense"):
        Reference(copy)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        Reference(copy)
