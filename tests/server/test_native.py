"""The native dialect, over a real socket."""

import numpy as np
import pytest

from arrowembed import Embedder


@pytest.fixture(scope="module")
def tiny(bert_mean_folder):
    return Embedder(bert_mean_folder)


def vectors_of(answer):
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["embeddings"], np.float32)


def test_vectors_are_those_of_the_embedder(service, tiny, texts):
    answer = service.post("/embed", {"texts": texts})
    np.testing.assert_array_equal(vectors_of(answer), tiny.encode(texts))
    fields = answer.json()
    tokens = sum(map(len, tiny.tokenize(texts)["input_ids"]))
    truncated = fields["usage"].pop("truncated")
    assert truncated > 0
    assert fields["usage"] == {"texts": len(texts), "tokens": tokens, "cached": 0}
    assert (fields["model"], fields["dimensions"]) == ("tiny", tiny.dimension)
    again = service.post("/embed", {"texts": texts}).json()
    assert again["usage"]["cached"] == len(texts)
    assert again["embeddings"] == fields["embeddings"]


def test_one_text(service, tiny):
    np.testing.assert_array_equal(
        vectors_of(service.post("/embed", {"texts": "one"})), [tiny.encode("one")]
    )
