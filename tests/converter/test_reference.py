"""The NumPy reference against vectors that torch computed in float64."""

import json
import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from arrowembed_converter.reference import (
    ARCHITECTURES,
    POOLINGS,
    Reference,
    UnsupportedReferenceError,
    gelu,
)
from arrowembed_converter.reference.common import DENSE_ACTIVATIONS
from arrowembed_converter.reference.jina_bert_v2 import alibi_slopes
from arrowembed_converter.reference.mpnet import relative_position_buckets
from arrowembed_converter.reference.operations import positions_after_padding, rope, within

DATA = Path(__file__).parent.parent / "data"
GOLDEN = DATA / "golden"
HF = DATA / "hf"
ROUNDING = 1e-7
"""The expected numbers are stored as float32."""
LONG = "The quick brown fox jumps over the lazy dog, and then it sleeps."
TEXTS: list[str] = json.loads((GOLDEN / "texts.json").read_text(encoding="utf-8"))


class Tiny(NamedTuple):
    reference: Reference
    samples: dict[str, Any]
    expected: dict[str, Any]


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


MODELS = sorted(path.name for path in HF.iterdir())


@pytest.fixture(scope="module", params=MODELS)
def tiny(request: pytest.FixtureRequest) -> Tiny:
    """A model with random weights, its texts, and what torch computed of them in float64."""
    folder = HF / request.param
    samples = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    with np.load(folder / "expected.npz") as expected:
        return Tiny(Reference(folder), samples, dict(expected))


def test_there_is_a_tiny_model_for_every_architecture() -> None:
    computed = {
        json.loads((HF / name / "config.json").read_text(encoding="utf-8"))["model_type"]
        for name in MODELS
    }
    assert computed == set(ARCHITECTURES)


def test_tokens(tiny: Tiny) -> None:
    tokenized = [tiny.reference.tokenize(text) for text in tiny.samples["texts"]]
    assert [ids for ids, _, _ in tokenized] == tiny.samples["input_ids"]
    assert [length for _, _, length in tokenized] == tiny.samples["untruncated_lengths"]


def test_vectors(tiny: Tiny) -> None:
    vectors = tiny.reference.encode(tiny.samples["texts"])
    # NaN in what is expected: the text has no tokens.
    expected = np.nan_to_num(tiny.expected["embeddings"])
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("text", [0, 1, 3])
def test_token_vectors(tiny: Tiny, text: int) -> None:
    ids, type_ids, _ = tiny.reference.tokenize(tiny.samples["texts"][text])
    states = tiny.reference.hidden_states(ids, type_ids)
    expected = tiny.expected[f"last_hidden_{text}"]
    np.testing.assert_allclose(states[-1], expected, rtol=ROUNDING, atol=ROUNDING)
    assert {state.shape for state in states} == {expected.shape}


@pytest.mark.parametrize("name", ["bert", "bert-mean"])
def test_pairs(name: str) -> None:
    reference = Reference(HF / name)
    samples = json.loads((HF / name / "texts.json").read_text(encoding="utf-8"))
    tokenized = [reference.tokenize(*pair) for pair in samples["pairs"]]
    assert [ids for ids, _, _ in tokenized] == samples["pair_input_ids"]
    assert [type_ids for _, type_ids, _ in tokenized] == samples["pair_token_type_ids"]
    vectors = np.stack([reference.encode_one(*pair) for pair in samples["pairs"]])
    with np.load(HF / name / "expected.npz") as expected:
        np.testing.assert_allclose(vectors, expected["pair_embeddings"], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", ["gemma3-embedding", "nomic-bert", "qwen3"])
def test_prompted_texts(name: str) -> None:
    reference = Reference(HF / name)
    samples = json.loads((HF / name / "texts.json").read_text(encoding="utf-8"))
    texts = samples["prompted_texts"]
    assert [reference.tokenize(text)[0] for text in texts] == samples["prompted_input_ids"]
    with np.load(HF / name / "expected.npz") as expected:
        np.testing.assert_allclose(
            reference.encode(texts), expected["prompted_embeddings"], rtol=0, atol=ROUNDING
        )


def test_a_text_without_tokens_is_zero() -> None:
    reference = Reference(HF / "qwen2")
    assert reference.tokenize("")[0] == []
    np.testing.assert_array_equal(reference.encode_one(""), np.zeros(64))


def test_keys_of_transformers_and_of_the_hub_mean_the_same(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(HF / "nomic-bert", tmp_path / "nomic-bert"))
    shutil.copy(copy / "config.native.json", copy / "config.json")
    vectors = [Reference(folder).encode_one("Hello world") for folder in (copy, HF / "nomic-bert")]
    np.testing.assert_array_equal(*vectors)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        (
            "gemma3-embedding",
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                },
                "rope_theta": None,
                "rope_local_base_freq": None,
                "layer_types": None,
            },
        ),
        ("qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        (
            "modernbert",
            {"layer_types": ["full_attention", *["sliding_attention"] * 2, "full_attention"]},
        ),
    ],
)
def test_keys_of_newer_transformers(name: str, changes: dict[str, Any], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(HF / name, tmp_path / name))
    edit(copy / "config.json", **changes)
    vectors = [Reference(folder).encode_one(LONG) for folder in (copy, HF / name)]
    np.testing.assert_array_equal(*vectors)


def test_no_texts_give_no_rows(bert: Path) -> None:
    assert Reference(bert).encode([]).shape == (0, 64)


def test_gelu_is_the_error_function_to_the_last_digit() -> None:
    x = np.linspace(-9, 9, 1001).reshape(7, 143)
    expected = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.ravel()]
    np.testing.assert_allclose(gelu(x).ravel(), expected, rtol=1e-15, atol=1e-15)


def test_rope_turns_halves_against_each_other() -> None:
    # Two frequencies, 1 and 100^(-1/2); position 3.
    x = np.ones((1, 4, 4))
    cos, sin = np.cos([3, 0.3]), np.sin([3, 0.3])
    expected = [*(cos - sin), *(cos + sin)]
    np.testing.assert_allclose(rope(x, 100.0)[0, 3], expected, rtol=0, atol=1e-7)


def test_a_window_is_as_wide_to_both_sides() -> None:
    assert within(5, 1)[2].tolist() == [False, True, True, True, False]


def test_padding_in_a_text_has_no_position_of_its_own() -> None:
    assert positions_after_padding([0, 7, 1, 8, 2], 1).tolist() == [2, 3, 1, 4, 5]


def test_relative_position_buckets() -> None:
    buckets = relative_position_buckets(200)
    before = {distance: int(buckets[199, 199 - distance]) for distance in (0, 1, 7, 8, 11, 12, 16)}
    assert before == {0: 0, 1: 1, 7: 7, 8: 8, 11: 8, 12: 9, 16: 10}
    assert [int(buckets[199, 199 - d]) for d in (22, 23, 63, 64, 90, 91, 127, 128, 199)] == [
        *(10, 11, 13, 14, 14, 15, 15, 15, 15)
    ]
    assert (int(buckets[0, 1]), int(buckets[0, 199])) == (17, 31)


def test_slopes_of_alibi() -> None:
    assert alibi_slopes(8) == [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(6) == [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]
    assert len(alibi_slopes(12)) == 12


def test_gemma_may_look_back_only(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(HF / "gemma3-embedding", tmp_path / "gemma"))
    edit(copy / "config.json", use_bidirectional_attention=False)
    reference = Reference(copy)
    ids, type_ids, _ = reference.tokenize(LONG)
    assert len(ids) > 20
    states = reference.hidden_states(ids, type_ids)
    # A token more does not change those before it ...
    shorter = reference.hidden_states(ids[:-1], type_ids[:-1])
    np.testing.assert_allclose(states[-1][:-1], shorter[-1], rtol=0, atol=1e-12)
    # ... and the sixteenth token before one is the first out of a window of 16.
    other = reference.hidden_states([ids[1], *ids[1:]], type_ids)
    changed = np.abs(other[1] - states[1]).max(axis=1) > 1e-9
    assert changed.tolist() == [i < 16 for i in range(len(ids))]


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


def test_modules_after_pooling(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text(encoding="utf-8"))
    modules[2:2] = [{"idx": 2, "name": "2", "path": "2_Dense", "type": "x.models.Dense"}]
    (copy / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (copy / "2_Dense").mkdir()
    matrix = np.zeros((3, 64), np.float32)
    matrix[0, 0] = matrix[1, 1] = matrix[2, 1] = 0.25
    bias = np.array([0, 0, 1], np.float32)
    save_file({"linear.weight": matrix, "linear.bias": bias}, copy / "2_Dense/model.safetensors")
    config = copy / "2_Dense" / "config.json"
    config.write_text("{}", encoding="utf-8")
    for name, activation in DENSE_ACTIVATIONS.items():
        edit(config, bias=True, activation_function=f"torch.nn.modules.activation.{name}")
        reference = Reference(copy)
        tokens = reference.hidden_states(*reference.tokenize("a text")[:2])[-1]
        expected = activation(0.25 * tokens[0, [0, 1, 1]] + [0, 0, 1])
        np.testing.assert_allclose(
            reference.encode_one("a text"), expected / np.linalg.norm(expected), rtol=1e-12
        )
        assert reference.encode([]).shape == (0, 3)
    edit(config, activation_function="torch.nn.modules.activation.Mish")
    with pytest.raises(UnsupportedReferenceError, match="Mish"):
        Reference(copy)


@pytest.mark.parametrize(
    ("file", "changes", "named"),
    [
        ("config.json", {"model_type": "t5"}, "bert, distilbert, .*qwen3, .*'t5'"),
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


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("gemma3-embedding", {"rope_scaling": {"rope_type": "linear", "factor": 8}}, "linear"),
        ("gemma3-embedding", {"attn_logit_softcapping": 50}, "attn_logit_softcapping"),
        ("jina-bert-v2", {"feed_forward_type": "original"}, "original"),
        ("mpnet", {"relative_attention_num_buckets": 64}, "relative_attention_num_buckets"),
        ("nomic-bert", {"prenorm": True}, "prenorm"),
        ("qwen2", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen3", {"rope_theta": None}, "rope_theta"),
        ("qwen3", {"num_hidden_layers": 3}, "input_layernorm"),
    ],
)
def test_refuses_variants_by_name(
    name: str, changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(HF / name, tmp_path / name))
    edit(copy / "config.json", **changes)
    with pytest.raises(UnsupportedReferenceError, match=named):
        Reference(copy).encode_one("a")


def test_refuses_other_modules(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text(encoding="utf-8"))
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_CNN", "type": "x.models.CNN"})
    (copy / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    with pytest.raises(UnsupportedReferenceError, match="CNN"):
        Reference(copy)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file_is_named(copy: Path, file: str) -> None:
    (copy / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        Reference(copy)
