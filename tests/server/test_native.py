"""The native dialect, over a real socket."""

import base64
import json

import numpy as np
import pyarrow as pa
import pytest

from arrowembed import Embedder, quantize_embeddings
from arrowembed.options import PRECISIONS

ARROW = "application/vnd.apache.arrow.stream"
PAIR = ["The cat sleeps on the mat.", "Rain is expected tomorrow."]


@pytest.fixture(scope="module")
def tiny(bert_mean_folder):
    return Embedder(bert_mean_folder)


@pytest.fixture(scope="module")
def prompted(prompted_folder):
    return Embedder(prompted_folder)


def vectors_of(answer):
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["embeddings"], np.float32)


def stream_of(*texts, kind=None):
    batches = [pa.record_batch({"text": pa.array(part, kind or pa.string())}) for part in texts]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def table_of(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(answer.content).read_all()
    column = table["embedding"].combine_chunks()
    return np.stack(column.to_numpy(zero_copy_only=False)), table.schema.metadata


def test_vectors_are_those_of_the_embedder(service, tiny, texts):
    answer = service.post("/embed", {"texts": texts})
    np.testing.assert_array_equal(vectors_of(answer), tiny.encode(texts))
    fields = answer.json()
    tokens = sum(map(len, tiny.tokenize(texts)["input_ids"]))
    assert fields["usage"].pop("truncated") > 0
    assert fields["usage"] == {"texts": len(texts), "tokens": tokens, "cached": 0}
    assert (fields["model"], fields["dimensions"]) == ("tiny", tiny.dimension)
    again = service.post("/embed", {"texts": texts}).json()
    assert again["usage"]["cached"] == len(texts)
    assert again["embeddings"] == fields["embeddings"]


def test_one_text_is_a_list_of_one(service, tiny):
    for one in ("one", ["one"]):
        answer = service.post("/embed", {"texts": one})
        np.testing.assert_array_equal(vectors_of(answer), [tiny.encode("one")])


def test_models_by_name_and_alias(service, tiny, prompted):
    for name, model in (("tiny", tiny), ("small", tiny), ("tiny@main", tiny), (None, tiny)):
        answer = service.post("/embed", {"texts": PAIR, "model": name})
        np.testing.assert_array_equal(vectors_of(answer), model.encode(PAIR))
        assert answer.json()["model"] == "tiny"
        assert "x-model-variant" not in answer.headers
    assert service.post("/embed", {"texts": PAIR, "model": "prompted"}).json()["model"] == (
        "prompted"
    )


def test_prompts(service, prompted):
    for options in ({"prompt_name": "query"}, {"prompt": "anything: "}, {"prompt": ""}):
        answer = service.post("/embed", {"texts": PAIR, "model": "prompted", **options})
        np.testing.assert_array_equal(vectors_of(answer), prompted.encode(PAIR, **options))
    plain = service.post("/embed", {"texts": PAIR, "model": "prompted"})
    assert not np.array_equal(vectors_of(plain), prompted.encode(PAIR, prompt_name="query"))


@pytest.mark.parametrize(
    ("normalize", "meant"), [(None, None), (True, "l2"), (False, "none")], ids=str
)
def test_normalization(service, tiny, normalize, meant):
    answer = service.post("/embed", {"texts": PAIR, "normalize": normalize})
    np.testing.assert_array_equal(vectors_of(answer), tiny.encode(PAIR, normalize=meant))


def test_dimensions(service, tiny):
    answer = service.post("/embed", {"texts": PAIR, "dimensions": 8})
    np.testing.assert_array_equal(vectors_of(answer), tiny.encode(PAIR, truncate_dim=8))
    assert answer.json()["dimensions"] == 8


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(service, tiny, precision):
    expected = tiny.encode(PAIR)
    ranges = [[-1.0] * tiny.dimension, [1.0] * tiny.dimension]
    wanted = {"texts": PAIR, "precision": precision, "ranges": ranges}
    expected = quantize_embeddings(expected, precision, ranges)
    numbers = service.post("/embed", wanted).json()
    assert np.array_equal(np.array(numbers["embeddings"], expected.dtype), expected)
    assert (numbers["precision"], numbers["dimensions"]) == (precision, tiny.dimension)
    strings = service.post("/embed", {**wanted, "encoding": "base64"}).json()["embeddings"]
    kind = expected.dtype.newbyteorder("<")
    decoded = [np.frombuffer(base64.b64decode(string), kind) for string in strings]
    np.testing.assert_array_equal(decoded, expected)
    answer = service.post("/embed", wanted, headers={"accept": ARROW})
    vectors, metadata = table_of(answer)
    np.testing.assert_array_equal(vectors, expected)
    assert vectors.dtype == expected.dtype
    assert metadata[b"precision"] == precision.encode()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_arrow_in_and_out(service, tiny, texts, kind):
    body = stream_of(texts[:4], [], texts[4:], kind=kind)
    answer = service.client.post(
        "/embed?dimensions=16&model=small", content=body, headers={"content-type": ARROW}
    )
    vectors, metadata = table_of(answer)
    np.testing.assert_array_equal(vectors, tiny.encode(texts, truncate_dim=16))
    assert metadata[b"model"] == b"tiny"
    assert json.loads(metadata[b"dimensions"]) == 16
    assert json.loads(metadata[b"usage"])["texts"] == len(texts)


def test_options_in_the_query(service, tiny):
    answer = service.post("/embed?dimensions=8&normalize=false&truncate=true", {"texts": PAIR})
    expected = tiny.encode(PAIR, truncate_dim=8, normalize="none")
    np.testing.assert_array_equal(vectors_of(answer), expected)
    answer = service.post("/embed?dimensions=8", {"texts": PAIR, "dimensions": 4})
    assert answer.json()["dimensions"] == 4


def test_inputs_are_answered_as_text_embeddings_inference_does(service, tiny):
    answer = service.post("/embed", {"inputs": PAIR, "unknown": "passed over"})
    np.testing.assert_array_equal(
        np.array(answer.json(), np.float32), tiny.encode(PAIR, normalize="l2")
    )
    options = {"normalize": False, "dimensions": 8, "truncate": True}
    answer = service.post("/embed", {"inputs": "one", **options})
    expected = tiny.encode(["one"], normalize="none", truncate_dim=8)
    np.testing.assert_array_equal(np.array(answer.json(), np.float32), expected)
    refused = service.post("/embed", {"inputs": "a word " * 1000})
    assert refused.status_code == 422
    assert set(refused.json()) == {"error", "error_type"}
    assert refused.json()["error_type"] == "validation"


def test_similarity_of_one_text_to_several(service, tiny):
    targets = ["A cat is asleep.", "It rains.", "Stocks fell."]
    answer = service.post("/similarity", {"source": "A cat sleeps.", "targets": targets}).json()
    expected = tiny.similarity("A cat sleeps.", targets)[0]
    np.testing.assert_array_equal(np.array(answer["similarities"], np.float32), expected)
    assert (answer["function"], answer["model"]) == (tiny.similarity_function, "tiny")
    assert answer["usage"]["texts"] == 4


def test_similarity_of_pairs(service, tiny):
    pairs = [PAIR, ["same", "same"]]
    answer = service.post("/similarity", {"pairs": pairs}).json()
    expected = tiny.similarity_pairwise(*map(list, zip(*pairs, strict=True)))
    np.testing.assert_array_equal(np.array(answer["similarities"], np.float32), expected)
    assert answer["similarities"][1] == pytest.approx(1.0)


def test_tokens(service, tiny, prompted, texts):
    answer = service.post("/tokenize", {"texts": texts}).json()
    assert answer["input_ids"] == tiny.tokenize(texts)["input_ids"]
    assert (answer["model"], answer["max_seq_length"]) == ("tiny", tiny.max_seq_length)
    answer = service.post(
        "/tokenize", {"texts": "one", "model": "prompted", "prompt_name": "query"}
    )
    expected = prompted.tokenize("one", prompt_name="query")["input_ids"]
    assert answer.json()["input_ids"] == expected


def test_a_request_has_an_id(service):
    made = service.client.get("/health").headers["x-request-id"]
    assert len(made) == 32
    assert made != service.client.get("/health").headers["x-request-id"]
    for given, taken in (("abc-1.2_3~", True), ("two words", False), ("x" * 129, False)):
        answer = service.client.get("/nowhere", headers={"x-request-id": given})
        assert (answer.headers["x-request-id"] == given) is taken
        assert answer.json()["error"]["request_id"] == answer.headers["x-request-id"]


def test_facts_of_the_service(service, tiny):
    assert service.client.get("/health").json() == {"status": "ok"}
    assert service.client.get("/ready").json() == {"status": "ready"}
    info = service.client.get("/info").json()
    assert info["default_model"] == "tiny"
    assert info["limits"]["max_texts"] == 100
    assert info["models"] == service.client.get("/models").json()["models"]
    first, second = info["models"]
    assert first == {
        "name": "tiny",
        "default": True,
        "aliases": ["small"],
        "variants": [
            {
                "name": "main",
                "state": "loaded",
                "share": 1.0,
                "dimensions": tiny.dimension,
                "max_seq_length": tiny.max_seq_length,
            }
        ],
        "stores": [],
    }
    assert (second["name"], second["default"]) == ("prompted", False)


def test_the_documentation_needs_nothing_from_elsewhere(service):
    page = service.client.get("/docs").text
    assert "http://" not in page
    assert "https://" not in page
    for part in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        start = page.index(f"/static-offline-docs/{part}")
        assert service.client.get(page[start : page.index('"', start)]).status_code == 200
    document = service.client.get("/openapi.json").json()
    bodies = document["paths"]["/embed"]["post"]["requestBody"]["content"]
    assert set(bodies) == {"application/json", ARROW}
    for example in bodies["application/json"]["schema"]["examples"]:
        assert service.post("/embed", example).status_code == 200
    for path in ("/similarity", "/tokenize"):
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        for example in schema["schema"]["examples"]:
            assert service.post(path, example).status_code == 200
