"""Searches over gRPC, beside those over HTTP."""

import json

import numpy as np
import pytest
from calling import calling, refused
from running import running

from arrowembed import Embedder
from arrowembed.server.grpc import api
from arrowembed.server.security.keys import new_key
from arrowembed.store import open_store

TEXTS = ["the cat sleeps on the mat", "rain is expected tomorrow", "the kitten takes a nap"]
METADATA = [{"year": 2018, "huge": 2**60 + 1}, {}, {"year": 2020, "é": ["a", None]}]


@pytest.fixture(scope="module")
def folder(bert_mean_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    with open_store(folder / "docs", model=Embedder(bert_mean_folder)) as store:
        store.add(["a", "b", "c"], TEXTS, metadata=METADATA)
    with open_store(folder / "vectors", dimension=2, metric="dot") as store:
        store.add(["x", "y"], vectors=[[1, 0], [0, 2]])
    return folder


@pytest.fixture(scope="module")
def service(bert_mean_folder, folder):
    with running(
        models=[str(bert_mean_folder)],
        stores=[str(folder / "docs"), str(folder / "vectors")],
        grpc_port=0,
        max_hits=50,
    ) as service:
        yield service


@pytest.fixture(scope="module")
def search(service):
    with calling(service) as channel:
        yield lambda **fields: channel.stub.Search(api.SearchRequest(**fields), timeout=60)


def test_hits_are_those_of_http(service, search):
    response = search(query="a pet", limit=2, filter=json.dumps({"year": {"$gte": 2000}}))
    answer = service.post(
        "/search", {"query": "a pet", "k": 2, "filter": {"year": {"$gte": 2000}}}
    ).json()
    for hit, other in zip(response.hits, answer["hits"], strict=True):
        assert (hit.id, hit.text) == (other["id"], other["text"])
        assert hit.score == pytest.approx(other["score"], abs=1e-6)
        assert json.loads(hit.metadata) == other["metadata"]
        assert not hit.vector
    assert (response.store, response.metric, response.usage.texts) == ("docs", "cosine", 1)


def test_what_is_included(search, bert_mean_folder):
    (hit,) = search(query="a pet", limit=1, include=[api.HIT_FIELD_VECTOR]).hits
    assert not hit.HasField("text")
    assert not hit.HasField("metadata")
    text = TEXTS["abc".index(hit.id)]
    expected = Embedder(bert_mean_folder).encode(text)
    np.testing.assert_allclose(np.array(hit.vector, np.float32), expected, atol=1e-6)
    hits = search(query="a pet", offset=1, include=[api.HIT_FIELD_ID]).hits
    assert len(hits) == 2
    assert not any(hit.HasField("text") or hit.HasField("metadata") or hit.vector for hit in hits)


def test_a_vector(search):
    response = search(vector=[0.5, 1], store="vectors")
    assert [(hit.id, hit.score) for hit in response.hits] == [("y", 2), ("x", 0.5)]
    assert not response.HasField("usage")
    assert not response.hits[0].HasField("text")


BAD = [
    ({}, "INVALID_ARGUMENT", "invalid_request", "query: Field required"),
    ({"query": "a", "vector": [1]}, "INVALID_ARGUMENT", "invalid_request", "query: no such field"),
    ({"query": "a", "limit": 51}, "INVALID_ARGUMENT", "invalid_request", "51 hits"),
    ({"query": "a", "filter": "{"}, "INVALID_ARGUMENT", "invalid_request", "filter: expected JSON"),
    ({"query": "a", "filter": "[]"}, "INVALID_ARGUMENT", "invalid_request", "filter: "),
    ({"query": "a", "filter": '{"a": null}'}, "INVALID_ARGUMENT", "invalid_argument", "filter.a"),
    ({"query": "a", "include": [9]}, "INVALID_ARGUMENT", "invalid_request", "include: 9 stands"),
    ({"vector": [float("nan"), 0]}, "INVALID_ARGUMENT", "invalid_request", "vector[0]: "),
    ({"vector": [1]}, "INVALID_ARGUMENT", "invalid_argument", "shape (1, 1)"),
    ({"query": "a", "store": "none"}, "NOT_FOUND", "unknown_store", "there is no 'none' here"),
    ({"query": "a", "store": "vectors"}, "INVALID_ARGUMENT", "invalid_request", "send vector"),
]


@pytest.mark.parametrize(("fields", "status", "code", "message"), BAD, ids=range(len(BAD)))
def test_bad_requests(search, fields, status, code, message):
    error = refused(search, **fields)
    assert (error.status, error.code) == (status, code)
    assert message in error.message


def test_stores_are_described(service):
    with calling(service) as channel:
        info = channel.stub.Info(api.InfoRequest(), timeout=60)
    docs, vectors = info.stores
    assert (docs.name, docs.default, docs.entries, docs.model) == ("docs", True, 3, "bert-mean")
    assert (vectors.dimensions, vectors.metric, vectors.HasField("model")) == (2, "dot", False)
    assert list(info.models[0].stores) == ["docs"]


def test_who_may_search(bert_mean_folder, folder):
    keys = {scope: new_key(scope, [scope]) for scope in ("embed", "search")}
    kept = " ".join(entry.entry() for _, entry in keys.values())
    with (
        running(
            models=[str(bert_mean_folder)],
            stores=[str(folder / "vectors")],
            grpc_port=0,
            api_keys=kept,
        ) as service,
        calling(service) as channel,
    ):
        request = api.SearchRequest(vector=[1, 0])
        metadata = [("x-api-key", keys["search"][0])]
        assert len(channel.stub.Search(request, metadata=metadata, timeout=60).hits) == 2
        metadata = [("x-api-key", keys["embed"][0])]
        error = refused(channel.stub.Search, request, metadata=metadata, timeout=60)
        assert (error.status, error.code) == ("PERMISSION_DENIED", "forbidden")
