"""The dialect of Ollama, with Ollama's own client."""

import asyncio
import json
from datetime import UTC, datetime

import numpy as np
import ollama
import pytest
from running import running

from arrowembed import Embedder, __version__
from arrowembed.server.security.keys import new_key

TEXTS = ["the cat sleeps on the mat", "rain is expected tomorrow"]


@pytest.fixture(scope="module")
def tiny(bert_mean_folder):
    return Embedder(bert_mean_folder)


@pytest.fixture
def client(service):
    with ollama.Client(service.url) as client:
        yield client


def test_vectors_are_those_of_the_embedder(client, tiny, texts):
    answer = client.embed("tiny", texts)
    expected = tiny.encode(texts, normalize="l2")
    np.testing.assert_array_equal(np.array(answer.embeddings, np.float32), expected)
    assert answer.model == "tiny"
    assert answer.prompt_eval_count == sum(map(len, tiny.tokenize(texts)["input_ids"]))
    assert answer.total_duration >= answer.load_duration >= 0


def test_one_text_and_none(client, tiny):
    answer = client.embed("tiny", TEXTS[0])
    expected = tiny.encode(TEXTS[:1], normalize="l2")
    np.testing.assert_array_equal(np.array(answer.embeddings, np.float32), expected)
    for nothing in ("", []):
        answer = client.embed("tiny", nothing)
        assert (answer.embeddings, answer.prompt_eval_count) == ([], 0)


def test_names_with_the_tag_that_ollama_gives_them(client):
    for name in ("tiny:latest", "small:latest"):
        answer = client.embed(name, "a")
        assert answer.model == name
        assert answer.embeddings == client.embed("tiny", "a").embeddings
    with pytest.raises(ollama.ResponseError) as caught:
        client.embed("tiny:30m", "a")
    assert caught.value.status_code == 404


@pytest.mark.parametrize(("wish", "dimensions"), [(8, 8), (0, None), (10_000, None), (-1, None)])
def test_dimensions(client, tiny, wish, dimensions):
    answer = client.embed("tiny", TEXTS, dimensions=wish)
    expected = tiny.encode(TEXTS, normalize="l2", truncate_dim=dimensions)
    np.testing.assert_array_equal(np.array(answer.embeddings, np.float32), expected)


def test_long_texts(client, tiny):
    long = "a word " * 500
    options = {"options": {"num_ctx": 10}, "keep_alive": "5m"}
    for truncate in (None, True):
        answer = client.embed("tiny", long, truncate=truncate, **options)
        assert answer.prompt_eval_count == tiny.max_seq_length
    with pytest.raises(ollama.ResponseError, match="text 0 has ") as caught:
        client.embed("tiny", long, truncate=False, keep_alive=-1)
    assert caught.value.status_code == 400


def test_the_older_way(client, tiny):
    answer = client.embeddings("tiny", TEXTS[0])
    np.testing.assert_array_equal(np.array(answer.embedding, np.float32), tiny.encode(TEXTS[0]))
    assert client.embeddings("tiny", "").embedding == []


def test_the_asynchronous_client(service, tiny):
    async def embed():
        async with ollama.AsyncClient(service.url) as client:
            return await asyncio.gather(*(client.embed("tiny", text) for text in TEXTS))

    vectors = [answer.embeddings[0] for answer in asyncio.run(embed())]
    expected = tiny.encode(TEXTS, normalize="l2")
    np.testing.assert_array_equal(np.array(vectors, np.float32), expected)


def test_models(client, tiny, bert_mean_folder):
    first, second = client.list().models
    assert (first.model, second.model) == ("tiny", "prompted")
    info = tiny.info()
    assert first.size == info["weights_bytes"]
    assert first.digest == info["source"]["sha256"]
    changed = max(path.stat().st_mtime for path in bert_mean_folder.rglob("*"))
    assert abs(first.modified_at - datetime.fromtimestamp(changed, UTC)).total_seconds() < 60
    assert first.details.family == "bert"
    assert (first.details.format, first.details.quantization_level) == ("arrow", "float32")
    assert first.details.parameter_size == f"{info['num_parameters'] / 1000:.1f}K"
    running = client.ps().models
    assert [model.model for model in running] == ["tiny", "prompted"]
    assert (running[0].size_vram, running[0].context_length) == (0, tiny.max_seq_length)


def test_a_model(client, tiny):
    shown = client.show("tiny:latest")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo["general.architecture"] == "bert"
    assert shown.modelinfo["bert.embedding_length"] == tiny.dimension
    assert shown.modelinfo["bert.context_length"] == tiny.max_seq_length
    assert shown.details == client.list().models[0].details


def test_the_version(service):
    assert service.client.get("/api/version").json() == {"version": __version__}


def test_models_that_are_not_loaded(bert_mean_folder):
    with (
        running(models=[str(bert_mean_folder)], lazy=True) as service,
        ollama.Client(service.url) as client,
    ):
        (model,) = client.list().models
        assert (model.model, model.size, model.details) == ("bert-mean", None, None)
        assert client.ps().models == []
        assert client.show("bert-mean").details.family == "bert"
        assert len(client.ps().models) == 1


BAD = [
    ("/api/embed", {"input": "a"}, "model: Field required"),
    ("/api/embed", {"model": "tiny", "input": [1]}, "input[0]: should be a valid string"),
    ("/api/embed", {"model": "tiny", "input": {}}, "input: should be a valid list"),
    ("/api/embed", {"model": "tiny", "input": ["a"] * 101}, "101 texts; send at most 100"),
    ("/api/embed", {"model": "tiny", "input": "a", "dimensions": "8"}, "dimensions: should be"),
    ("/api/embed", {"model": "tiny", "input": "a", "options": 1}, "options: should be"),
    ("/api/embeddings", {"model": "tiny", "prompt": 1}, "prompt: should be a valid string"),
    ("/api/show", {}, "model: Field required"),
]


@pytest.mark.parametrize(("path", "fields", "message"), BAD, ids=range(len(BAD)))
def test_bad_requests(service, path, fields, message):
    answer = service.post(path, fields)
    assert answer.status_code == 400
    assert set(answer.json()) == {"error"}
    assert message in answer.json()["error"]


def test_what_this_service_does_not_do(client, service):
    for ask in (
        lambda: client.embed("no", "a"),
        lambda: client.show("no"),
        lambda: client.generate("tiny", "a"),
        lambda: client.pull("tiny"),
    ):
        with pytest.raises(ollama.ResponseError) as caught:
            ask()
        assert caught.value.status_code == 404
    assert isinstance(json.loads(service.client.get("/api/no").text)["error"], str)


def test_strangers_are_told_in_the_same_form(bert_mean_folder):
    key, kept = new_key("client", ["embed"])
    with running(models=[str(bert_mean_folder)], api_keys=kept.entry()) as service:
        with ollama.Client(service.url, headers={"x-api-key": key}) as client:
            assert client.embed("bert-mean", "a").embeddings
        with ollama.Client(service.url) as client:
            with pytest.raises(ollama.ResponseError, match="this needs credentials") as caught:
                client.embed("bert-mean", "a")
            assert caught.value.status_code == 401
