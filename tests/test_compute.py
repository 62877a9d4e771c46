"""`compute`: the numbers that matrices are multiplied in."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from arrowembed import Embedder, _core, models, set_num_threads
from arrowembed.errors import InvalidArgumentError

HF = Path(__file__).parent / "data" / "hf"
COARSER = ["bfloat16", "int16", "int8"]


def cached():
    """The models in the cache, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in (models.home() / "unpacked").glob("*")}


@pytest.mark.parametrize("compute", COARSER)
def test_chosen_when_opened_or_when_converted_is_the_same(
    bert_mean_folder, texts, tmp_path, compute
):
    opened = Embedder(bert_mean_folder, compute=compute)
    _core.convert(str(bert_mean_folder), str(tmp_path / "converted"), dtype=compute)
    converted = Embedder(tmp_path / "converted")
    assert opened.info()["compute"] == converted.info()["compute"] == compute
    np.testing.assert_array_equal(opened.encode(texts), converted.encode(texts))


def test_half_precision_is_of_float16_weights(bert_mean_folder, texts, tmp_path):
    opened = Embedder(bert_mean_folder, compute="float16", cache_size=0)
    (made,) = cached()
    assert opened.info()["path"] == str(made)
    _core.convert(str(bert_mean_folder), str(tmp_path / "float16"), dtype="float16")
    converted = Embedder(tmp_path / "float16", compute="float16", cache_size=0)
    assert list(cached()) == [made], "a model of float16 weights is mapped as it is"
    assert opened.info()["compute"] == converted.info()["compute"] == "float16"
    vectors = converted.encode(texts)
    np.testing.assert_array_equal(opened.encode(texts), vectors)
    single = Embedder(tmp_path / "float16", cache_size=0).encode(texts)
    if converted.info()["isa"] == "avx512fp16":
        assert np.any(vectors != single)
        np.testing.assert_allclose(vectors, single, atol=2e-3)
    else:
        np.testing.assert_array_equal(vectors, single)


@pytest.mark.parametrize("compute", [*COARSER, "float16"])
def test_a_model_is_made_anew_only_once(bert_mean_folder, compute):
    for given in (None, "float32"):
        assert Embedder(bert_mean_folder, compute=given).info()["compute"] == "float32"
    assert cached() == {}
    model = Embedder(bert_mean_folder, compute=compute)
    (made,) = cached().items()
    assert str(made[0]) == model.info()["path"]
    Embedder(bert_mean_folder, compute=compute)
    assert dict([made]) == cached()


@pytest.mark.parametrize("compute", [*COARSER, "float16"])
def test_batches_threads_and_order_change_nothing(bert_mean_folder, texts, compute):
    model = Embedder(bert_mean_folder, compute=compute, cache_size=0)
    alone = np.stack([model.encode(text) for text in texts])
    before = _core.get_num_threads()
    try:
        for threads in (1, 2, 5):
            set_num_threads(threads)
            np.testing.assert_array_equal(model.encode(texts), alone)
            np.testing.assert_array_equal(model.encode(texts[::-1], batch_size=2), alone[::-1])
    finally:
        set_num_threads(before)


def test_integers_of_sixteen_bits_are_close_to_float32(bert_mean_folder, texts):
    exact = Embedder(bert_mean_folder, cache_size=0).encode(texts)
    integers = Embedder(bert_mean_folder, compute="int16", cache_size=0).encode(texts)
    np.testing.assert_allclose(integers, exact, atol=1e-4)


def test_auto_is_lossless_to_the_eye(bert_mean_folder, texts, tmp_path):
    auto = Embedder(bert_mean_folder, compute="auto", cache_size=0)
    exact = Embedder(bert_mean_folder, cache_size=0)
    assert auto.info()["compute"] in ("float32", "float16", "bfloat16", "int16")
    cosines = auto.similarity_pairwise(auto.encode(texts), exact.encode(texts))
    np.testing.assert_allclose(cosines, 1, atol=1e-4)
    # A model that has been made of integers is computed in them.
    _core.convert(str(bert_mean_folder), str(tmp_path / "int8"), dtype="int8")
    assert Embedder(tmp_path / "int8", compute="auto").info()["compute"] == "int8"


def test_auto_passes_over_integers_that_lose_too_much(texts, tmp_path):
    """One feature far above all others takes the bits of its block; floats do not notice."""
    usual, folder = HF / "bert-mean", tmp_path / "source"
    shutil.copytree(usual, folder)
    weights = load_file(folder / "model.safetensors")
    for layer in range(2):
        name = f"bert.encoder.layer.{layer}.attention"
        weights[f"{name}.self.value.weight"][0] *= 4096
        weights[f"{name}.self.value.bias"][0] *= 4096
        weights[f"{name}.output.dense.weight"][:, 0] /= 4096
    save_file(weights, folder / "model.safetensors")
    info = Embedder(usual, compute="auto").info()
    preferred = {"amx": "bfloat16", "neon": "float32"}.get(info["isa"], "int16")
    assert info["compute"] == preferred
    expected = "float32" if preferred == "int16" else preferred
    for _ in range(2):
        assert Embedder(folder, compute="auto").info()["compute"] == expected
    exact = Embedder(folder, cache_size=0).encode(texts)
    np.testing.assert_array_equal(exact, Embedder(usual, cache_size=0).encode(texts))
    if expected == "float32":
        auto = Embedder(folder, compute="auto", cache_size=0).encode(texts)
        np.testing.assert_array_equal(auto, exact)
    integers = Embedder(folder, compute="int16", cache_size=0)
    cosines = integers.similarity_pairwise(integers.encode(texts), exact)
    assert np.min(cosines) < 1 - 1e-4, "what the integers would have lost"


@pytest.mark.parametrize("dtype", COARSER)
def test_float32_from_coarser_numbers(bert_mean_folder, texts, tmp_path, dtype):
    _core.convert(str(bert_mean_folder), str(tmp_path / dtype), dtype=dtype)
    model = Embedder(tmp_path / dtype, compute="float32", cache_size=0)
    assert model.info()["compute"] == "float32"
    candle = Embedder(tmp_path / dtype, device="candle", compute="auto", cache_size=0)
    assert candle.info()["compute"] == "float32"
    np.testing.assert_allclose(model.encode(texts), candle.encode(texts), atol=2e-3)


def test_it_is_part_of_a_pickle(bert_mean_folder, texts):
    model = Embedder(bert_mean_folder, compute="int16")
    copy = pickle.loads(pickle.dumps(model))
    assert copy.info()["compute"] == "int16"
    np.testing.assert_array_equal(copy.encode(texts), model.encode(texts))


def test_what_is_not_allowed(bert_mean_folder):
    with pytest.raises(InvalidArgumentError, match="auto, float32, float16, bfloat16, int16, int8"):
        Embedder(bert_mean_folder, compute="int4")
    with pytest.raises(InvalidArgumentError, match=r"candle.*allows auto and float32"):
        Embedder(bert_mean_folder, compute="int16", device="candle")
