"""Every architecture through the Python API, against vectors of its reference implementation."""

import json
from pathlib import Path

import numpy as np
import pytest

from arrowembed import Embedder

FIXTURES = sorted((Path(__file__).parent / "data" / "hf").iterdir())


@pytest.fixture(params=FIXTURES, ids=lambda folder: folder.name)
def folder(request):
    return request.param


def texts_of(folder):
    return json.loads((folder / "texts.json").read_text("utf-8"))


def expected(folder, array):
    # A text without tokens, whose vector Hugging Face makes NaN, has a zero vector here.
    return np.nan_to_num(np.load(folder / "expected.npz")[array])


def test_all_architectures_are_there():
    assert len(FIXTURES) == 13


def test_vectors_and_tokens(folder):
    model = Embedder(folder, cache_size=0)
    fixture = texts_of(folder)
    assert model.tokenize(fixture["texts"])["input_ids"] == fixture["input_ids"]
    vectors = model.encode(fixture["texts"])
    np.testing.assert_allclose(vectors, expected(folder, "embeddings"), rtol=0, atol=2e-6)
    assert vectors.shape[1] == model.info()["dimension"]


def test_named_prompts(folder):
    fixture = texts_of(folder)
    if "prompt_names" not in fixture:
        assert "prompted_texts" not in fixture
        return
    model = Embedder(folder, cache_size=0)
    assert model.prompts == fixture["prompts"]
    for name, text, wanted in zip(
        fixture["prompt_names"],
        fixture["prompted_texts"],
        expected(folder, "prompted_embeddings"),
        strict=True,
    ):
        assert text.startswith(fixture["prompts"][name])
        plain = text.removeprefix(fixture["prompts"][name])
        np.testing.assert_allclose(model.encode(plain, prompt_name=name), wanted, rtol=0, atol=2e-6)


def test_vectors_behind_dense_layers_can_be_cut():
    folder = next(folder for folder in FIXTURES if folder.name == "gemma3-embedding")
    model = Embedder(folder, cache_size=0)
    texts = texts_of(folder)["texts"]
    cut = model.encode(texts, truncate_dim=8)
    whole = model.encode(texts)[:, :8]
    whole /= np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(cut, whole, atol=1e-6)
