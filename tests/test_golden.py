"""The real all-MiniLM-L6-v2 against float64 vectors computed with transformers."""

import json
from pathlib import Path

import numpy as np
import pytest

from arrowembed import Embedder, _core

GOLDEN = Path(__file__).parent / "data" / "golden"
TEXTS = json.loads((GOLDEN / "texts.json").read_text("utf-8"))
TOKENS = json.loads((GOLDEN / "token_ids.json").read_text("utf-8"))
EXPECTED = np.load(GOLDEN / "embeddings_f64.npy")


@pytest.fixture(scope="module")
def float32(minilm_source, tmp_path_factory):
    target = tmp_path_factory.mktemp("golden") / "float32"
    _core.convert(str(minilm_source), str(target), dtype="float32")
    return Embedder(target, cache_size=0)


@pytest.fixture(scope="module")
def float16(minilm_folder):
    return Embedder(minilm_folder, cache_size=0)


@pytest.fixture(scope="module", params=["bfloat16", "int16", "int8"])
def coarser(request, minilm_source, tmp_path_factory):
    target = tmp_path_factory.mktemp("golden") / request.param
    _core.convert(str(minilm_source), str(target), dtype=request.param)
    return Embedder(target, cache_size=0)


def cosine_errors(vectors):
    """1 - cosine of each vector and the expected one, in float64."""
    vectors = vectors.astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(EXPECTED, axis=1)
    return 1 - (vectors * EXPECTED).sum(axis=1) / lengths


def test_all_texts_are_there():
    assert len(TEXTS) == len(EXPECTED) == 77
    assert "" in TEXTS


def test_float32_weights(float32):
    errors = cosine_errors(float32.encode(TEXTS))
    assert errors.max() < 1e-9, f"text {errors.argmax()}"


def test_float16_weights(float16):
    errors = cosine_errors(float16.encode(TEXTS))
    assert errors.max() < 1e-5, f"text {errors.argmax()}"


def test_half_precision(minilm_folder):
    errors = cosine_errors(Embedder(minilm_folder, compute="float16", cache_size=0).encode(TEXTS))
    assert errors.max() < 1e-5, f"text {errors.argmax()}"
    assert errors.mean() < 4e-6


def test_integers_made_of_float16(minilm_folder):
    """The rounding of both."""
    errors = cosine_errors(Embedder(minilm_folder, compute="int16", cache_size=0).encode(TEXTS))
    assert errors.max() < 2e-6, f"text {errors.argmax()}"
    assert errors.mean() < 6e-7


def test_candle_and_the_kernels_agree(float32):
    candle = Embedder(float32.info()["path"], device="candle", cache_size=0).encode(TEXTS)
    assert cosine_errors(candle).max() < 1e-9
    np.testing.assert_allclose(candle, float32.encode(TEXTS), atol=2e-6)


def test_coarser_numbers(coarser):
    mean, worst = {"bfloat16": (3e-5, 1e-4), "int16": (4e-7, 1e-6), "int8": (3e-3, 1e-2)}[
        coarser.info()["compute"]
    ]
    errors = cosine_errors(coarser.encode(TEXTS))
    assert errors.max() < worst, f"text {errors.argmax()}"
    assert errors.mean() < mean


def test_candle_and_the_kernels_agree_on_coarser_numbers(coarser):
    """candle rounds no activations, so that only the weights' loss is in its vectors."""
    candle = Embedder(coarser.info()["path"], device="candle", cache_size=0).encode(TEXTS)
    ours = coarser.encode(TEXTS)
    apart = 1 - (candle.astype(np.float64) * ours).sum(axis=1)
    assert apart.max() < {"bfloat16": 1e-4, "int16": 1e-6, "int8": 1e-2}[coarser.info()["compute"]]
    assert cosine_errors(candle).max() < cosine_errors(ours).max()


def test_the_safetensors_folder_as_it_is(minilm_source):
    errors = cosine_errors(Embedder(minilm_source).encode(TEXTS))
    assert errors.max() < 1e-5, f"text {errors.argmax()}"


@pytest.mark.parametrize(
    ("layout", "form", "compression"),
    [
        ("row_major", "arrow", "none"),
        ("packed", "arrow", "zstd"),
        ("row_major", "arrow", "lz4"),
        ("row_major", "parquet", "zstd"),
    ],
)
def test_every_form_of_the_file(minilm_source, tmp_path, layout, form, compression):
    _core.convert(
        str(minilm_source),
        str(tmp_path / "model"),
        dtype="float32",
        layout=layout,
        format=form,
        compression=compression,
    )
    errors = cosine_errors(Embedder(tmp_path / "model").encode(TEXTS))
    assert errors.max() < 1e-9, f"text {errors.argmax()}"


def test_token_ids(float16):
    assert float16.tokenize(TEXTS)["input_ids"] == TOKENS["ids"]
    assert float16.max_seq_length == 256
    cut = sum(length > 256 for length in TOKENS["full_length"])
    float16.encode(TEXTS)
    assert float16.info()["truncated"] % cut == 0
    assert cut > 0


def test_hidden_states_of_the_last_layer(float32):
    with np.load(GOLDEN / "hidden_states_f64.npz") as states:
        for key in states.files:
            position = int(key.removeprefix("text"))
            tokens = float32.encode(TEXTS[position], output_value="token_embeddings")
            np.testing.assert_allclose(tokens, states[key][-1], atol=2e-5, rtol=0)


def test_alone_and_together_are_the_same_bit_for_bit(float16):
    together = float16.encode(TEXTS)
    alone = np.stack([float16.encode(text) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)


def test_with_coarser_numbers_too(coarser):
    alone = np.stack([coarser.encode(text) for text in TEXTS])
    np.testing.assert_array_equal(coarser.encode(TEXTS), alone)


def test_the_float16_file_is_much_smaller_than_its_source(minilm_source, minilm_folder):
    source = (minilm_source / "model.safetensors").stat().st_size
    assert (minilm_folder / "model.arrow").stat().st_size < 0.7 * source


def test_meaning(float16):
    near, far = float16.similarity(
        "How do I get a new password?",
        ["Resetting your login credentials", "The history of the Roman aqueducts"],
    )[0]
    assert near > 0.5
    assert far < 0.2
