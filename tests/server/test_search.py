"""Searches over HTTP, beside the same searches of the store itself and beside plain arithmetic."""

import asyncio
import json
import threading
from contextlib import contextmanager

import httpx
import numpy as np
import pytest
from exposition import scrape
from running import running, wait_for

from arrowembed import Embedder
from arrowembed.errors import StoreMismatchError, StoreNotFoundError
from arrowembed.server import create_app, read_settings
from arrowembed.server.security.keys import new_key
from arrowembed.store import open_store

TEXTS = [
    "the cat sleeps on the mat",
    "a dog barks at night",
    "rain is expected tomorrow",
    "taxes are due in May",
    "the kitten takes a nap",
    "bread is baked in the morning",
]
METADATA = [{"year": 2018 + i, "tags": ["a", i], "animal": i in (0, 1, 4)} for i in range(6)]
IDS = [f"doc-{i}" for i in range(6)]


@pytest.fixture(scope="module")
def prompted(prompted_folder):
    return Embedder(prompted_folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, prompted):
    """A store of either backend, made with prompts, and one of vectors alone."""
    folder = tmp_path_factory.mktemp("stores")
    for backend in ("lightweight", "lancedb"):
        with open_store(folder / backend, model=prompted, backend=backend) as store:
            store.add(IDS, TEXTS, metadata=METADATA)
    vectors = np.eye(4, dtype=np.float32)[:3]
    with open_store(folder / "vectors", dimension=4, metric="dot") as store:
        store.add(["x", "y", "z"], vectors=vectors)
    return folder


def stores_in(folder, *names):
    return [{"name": name, "path": str(folder / name)} for name in names]


@pytest.fixture(scope="module")
def service(bert_mean_folder, prompted_folder, folders):
    with running(
        # The default model is not that of the stores.
        models=[
            {"name": "tiny", "source": str(bert_mean_folder)},
            {"name": "prompted", "source": str(prompted_folder), "aliases": ["p"]},
        ],
        stores=stores_in(folders, "lightweight", "lancedb", "vectors"),
        max_hits=50,
    ) as service:
        yield service


def found(service, **fields):
    answer = service.post("/search", fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("name", ["lightweight", "lancedb"])
def test_a_text_finds_what_is_nearest_to_it(service, prompted, name):
    query = "where does the cat rest"
    answer = found(service, query=query, store=name, k=4)
    # As queries and documents are embedded, each with its prompt.
    documents = prompted.encode(TEXTS, prompt="passage: ", normalize="l2").astype(np.float64)
    cosines = documents @ prompted.encode(query, prompt="query: ", normalize="l2")
    nearest = np.argsort(-cosines)[:4]
    assert [hit["id"] for hit in answer["hits"]] == [IDS[i] for i in nearest]
    np.testing.assert_allclose(
        [hit["score"] for hit in answer["hits"]], cosines[nearest], atol=1e-5
    )
    for hit, i in zip(answer["hits"], nearest, strict=True):
        assert set(hit) == {"id", "score", "text", "metadata"}
        assert (hit["text"], hit["metadata"]) == (TEXTS[i], METADATA[i])
    assert (answer["store"], answer["metric"]) == (name, "cosine")
    assert answer["usage"]["texts"] == 1
    assert answer["usage"]["tokens"] == len(
        prompted.tokenize(query, prompt="query: ")["input_ids"][0]
    )


@pytest.mark.parametrize("name", ["lightweight", "lancedb"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 2},
        {"k": 3, "offset": 2},
        {"offset": 100},
        {"include": []},
        {"include": ["vector", "metadata"]},
        {"filter": {"year": {"$gte": 2020}, "animal": False}},
        {"filter": {"$or": [{"year": 2018}, {"animal": True}]}, "k": 1, "offset": 1},
        {"filter": {"nothing": {"$exists": True}}},
    ],
    ids=range(9),
)
def test_options_are_those_of_the_store(service, folders, prompted, name, options):
    vector = prompted.encode("a pet").tolist()
    answer = found(service, vector=vector, store=name, **options)
    assert answer["usage"] is None
    with open_store(folders / name, model=prompted) as store:
        expected = store.search(np.array(vector), options.pop("k", 10), **options)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    include = options.get("include", ["text", "metadata"])
    for hit, other in zip(answer["hits"], expected, strict=True):
        assert set(hit) == {"id", "score", *include}
        assert hit["score"] == pytest.approx(other.score, abs=1e-6)
        if "vector" in include:
            np.testing.assert_array_equal(np.array(hit["vector"], np.float32), other.vector)


def test_the_first_store_is_the_default(service):
    assert found(service, query="a pet")["store"] == "lightweight"


def test_a_store_of_vectors(service):
    answer = found(service, vector=[0.1, 0.9, 0.5, 0], store="vectors", k=2)
    assert answer["metric"] == "dot"
    assert [(hit["id"], hit["text"]) for hit in answer["hits"]] == [("y", None), ("z", None)]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], [0.9, 0.5], rtol=1e-6)


def test_what_is_written_meanwhile_is_found(bert_mean_folder, tmp_path):
    with open_store(tmp_path / "store", dimension=2) as store:
        store.add(["a"], vectors=[[1, 0]])
        with running(models=[str(bert_mean_folder)], stores=[str(tmp_path / "store")]) as service:
            assert len(found(service, vector=[1, 0])["hits"]) == 1
            store.add(["b"], vectors=[[2, 1]])
            store.delete(["a"])
            assert [hit["id"] for hit in found(service, vector=[1, 0])["hits"]] == ["b"]
            store.compact()
            assert [hit["id"] for hit in found(service, vector=[1, 0])["hits"]] == ["b"]


BAD = [
    ({}, 422, "invalid_request", "query: Field required"),
    ({"query": "a", "vector": [1]}, 422, "invalid_request", "query: no such field"),
    ({"query": 1}, 422, "invalid_request", "query: should be a valid string"),
    ({"query": "a", "k": 0}, 422, "invalid_request", "k: "),
    ({"query": "a", "k": 51}, 422, "invalid_request", "51 hits; ask for at most 50"),
    ({"query": "a", "k": 50, "offset": 9960}, 422, "invalid_argument", "k: 50 from 9960 on"),
    ({"query": "a", "offset": -1}, 422, "invalid_request", "offset: "),
    ({"query": "a", "include": ["score"]}, 422, "invalid_request", "include[0]: "),
    ({"query": "a", "filter": []}, 422, "invalid_request", "filter: "),
    ({"query": "a", "filter": {"a": {"$near": 1}}}, 422, "invalid_argument", "filter.a.$near: "),
    ({"query": "a", "filter": {"a": None}}, 422, "invalid_argument", "filter.a: null"),
    ({"query": "a", "filter": {"a": "\ud800"}}, 422, "invalid_text", "filter: holds half of"),
    ({"query": "\ud800"}, 422, "invalid_text", "query: holds half of"),
    ({"query": "a" * 100_001}, 422, "text_too_large", "text 0 has 100001 characters"),
    ({"query": "a", "store": "none"}, 404, "unknown_store", "store: there is no 'none' here"),
    ({"query": "a", "store": "vectors"}, 422, "invalid_request", "query: store 'vectors' was made"),
    ({"vector": []}, 422, "invalid_request", "vector: "),
    ({"vector": [1, 2]}, 422, "invalid_argument", "query: shape (1, 2); the store has vectors of"),
    ({"vector": [1e300, 0, 0, 0], "store": "vectors"}, 422, "invalid_argument", "too large"),
]


@pytest.mark.parametrize(("fields", "status", "code", "message"), BAD, ids=range(len(BAD)))
def test_bad_requests(service, fields, status, code, message):
    body = json.dumps(fields)
    answer = service.client.post(
        "/search", content=body, headers={"content-type": "application/json"}
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert message in error["message"]


def test_without_a_store(bert_mean_folder):
    with running(models=[str(bert_mean_folder)]) as service:
        status, error = service.error("/search", {"query": "a"})
        assert (status, error["code"]) == (501, "no_store")
        assert service.client.get("/info").json()["stores"] == []


def test_stores_are_described(service, prompted):
    info = service.client.get("/info").json()
    described = {store["name"]: store for store in info["stores"]}
    assert list(described) == ["lightweight", "lancedb", "vectors"]
    assert described["lightweight"] == {
        "name": "lightweight",
        "default": True,
        "backend": "lightweight",
        "entries": 6,
        "dimensions": prompted.dimension,
        "metric": "cosine",
        "model": "prompted",
    }
    assert service.client.get("/stores").json() == {"stores": info["stores"]}
    assert (described["lancedb"]["backend"], described["vectors"]["model"]) == ("lancedb", None)
    for models in (info["models"], service.client.get("/models").json()["models"]):
        stores = {model["name"]: model["stores"] for model in models}
        assert stores == {"tiny": [], "prompted": ["lightweight", "lancedb"]}


def test_a_model_that_gives_other_vectors_is_refused(bert_folder, folders):
    failures = []
    app = create_app(
        read_settings(models=[str(bert_folder)], stores=[str(folders / "lightweight")]),
        on_failed_start=failures.append,
    )

    async def start():
        async with app.router.lifespan_context(app):
            while not failures:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(start(), 60))
    (error,) = failures
    assert isinstance(error, StoreMismatchError)
    assert "lightweight was made with" in str(error)
    assert not app.state.models.ready


def test_a_model_that_is_loaded_later_is_compared_then(bert_folder, folders):
    with running(
        models=[str(bert_folder)], lazy=True, stores=[str(folders / "lightweight")]
    ) as service:
        status, error = service.error("/search", {"query": "a"})
        assert (status, error["code"]) == (500, "store_mismatch")
        assert str(folders) not in error["message"]


def test_a_model_may_be_named(prompted_folder, bert_folder, folders):
    models = [
        {"name": "other", "source": str(bert_folder)},
        {"name": "mine", "source": str(prompted_folder), "truncate_dim": 8},
        {"name": "whole", "source": str(prompted_folder), "prompts": {"query": "else: "}},
    ]
    store = {"name": "docs", "path": str(folders / "lightweight")}
    with running(models=models, lazy=True, stores=[{**store, "model": "whole"}]) as service:
        # The store's own prompt, whatever the model's are.
        with_prompt = found(service, query="a pet")["hits"]
        with open_store(folders / "lightweight") as direct:
            assert [hit["id"] for hit in with_prompt] == [hit.id for hit in direct.search("a pet")]
    with running(models=models, lazy=True, stores=[{**store, "model": "mine"}]) as service:
        assert service.error("/search", {"query": "a"})[1]["code"] == "store_mismatch"


def test_a_store_of_cut_vectors(prompted_folder, tmp_path):
    with open_store(tmp_path / "cut", model=Embedder(prompted_folder, truncate_dim=16)) as store:
        store.add(IDS, TEXTS)
        expected = store.search("a pet", 3)
    for cut, served in ((None, True), (32, True), (16, True), (8, False)):
        model = {"name": "prompted", "source": str(prompted_folder), "truncate_dim": cut}
        with running(models=[model], lazy=True, stores=[str(tmp_path / "cut")]) as service:
            answer = service.post("/search", {"query": "a pet", "k": 3})
        if served:
            hits = answer.json()["hits"]
            assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
            np.testing.assert_allclose(
                [hit["score"] for hit in hits], [hit.score for hit in expected], atol=1e-6
            )
        else:
            assert answer.json()["error"]["code"] == "store_mismatch"


def test_settings_that_cannot_be(bert_mean_folder, folders, tmp_path):
    model = str(bert_mean_folder)
    store = str(folders / "lightweight")
    with pytest.raises(StoreNotFoundError, match="no store at"):
        create_app(read_settings(models=[model], stores=[str(tmp_path / "none")]))
    for stores, message in [
        ([store, f"lightweight={store}"], "'lightweight' is the name of more than one"),
        ([{"path": store, "model": "nobody"}], "the model of 'lightweight', 'nobody', is none"),
        ([{"name": "a b", "path": store}], "stores.0.name"),
        ([{"name": "a"}], "stores.0.path: Field required"),
    ]:
        with pytest.raises(Exception, match=message) as caught:
            read_settings(models=[model], stores=stores)
        assert caught.value.code == "invalid_argument"


def test_who_may_search(bert_mean_folder, folders):
    keys = {scope: new_key(scope, [scope]) for scope in ("embed", "search")}
    kept = " ".join(entry.entry() for _, entry in keys.values())
    with running(
        models=[str(bert_mean_folder)], stores=[str(folders / "vectors")], api_keys=kept
    ) as service:
        fields = {"vector": [1, 0, 0, 0]}
        statuses = {
            scope: service.post("/search", fields, headers={"x-api-key": key}).status_code
            for scope, (key, _) in keys.items()
        }
        assert statuses == {"embed": 403, "search": 200}
        assert service.post("/search", fields).status_code == 401
        statuses = {
            scope: service.client.get("/stores", headers={"x-api-key": key}).status_code
            for scope, (key, _) in keys.items()
        }
        assert statuses == {"embed": 403, "search": 200}
        headers = {"x-api-key": keys["search"][0]}
        assert service.post("/embed", {"texts": "a"}, headers=headers).status_code == 403


def test_searches_count_against_the_rate_limit(bert_mean_folder, folders):
    with running(
        models=[str(bert_mean_folder)],
        stores=[str(folders / "vectors")],
        rate_limit=1,
        rate_limit_burst=2,
    ) as service:
        statuses = [service.post("/search", {"vector": [1, 0, 0, 0]}).status_code for _ in range(3)]
        assert statuses == [200, 200, 429]


@contextmanager
def blocked(monkeypatch, bert_mean_folder, folders, **settings):
    """A service whose searches, one at a time, wait for an event; another tells of the first."""
    monkeypatch.setattr("arrowembed.server.stores._LEAST_THREADS", 1)
    monkeypatch.setattr("arrowembed.server.stores.get_num_threads", lambda: 1)
    begun, release = threading.Event(), threading.Event()
    with running(
        models=[str(bert_mean_folder)], stores=[str(folders / "vectors")], **settings
    ) as service:
        store = service.app.state.stores.find(None).store
        search = store.search

        def wait(*arguments, **options):
            begun.set()
            assert release.wait(60)
            return search(*arguments, **options)

        monkeypatch.setattr(store, "search", wait)
        try:
            yield service, begun, release
        finally:
            release.set()


def test_a_slow_search_holds_up_nothing_else_and_the_line_has_an_end(
    monkeypatch, bert_mean_folder, folders
):
    fields = {"vector": [1, 0, 0, 0]}
    statuses = []
    with blocked(monkeypatch, bert_mean_folder, folders, max_queued_searches=1) as parts:
        service, begun, release = parts

        def ask():
            answer = httpx.post(f"{service.url}/search", json=fields, timeout=60)
            statuses.append(answer.status_code)

        asking = [threading.Thread(target=ask) for _ in range(2)]
        asking[0].start()
        assert begun.wait(60)
        asking[1].start()
        # One is looked for, one waits, and there is no room for a third.
        wait_for(lambda: service.app.state.stores.workers.accepted == 2)
        status, error = service.error("/search", fields)
        assert (status, error["code"]) == (429, "queue_full")
        assert service.client.get("/health").status_code == 200
        assert service.post("/embed", {"texts": "a"}).status_code == 200
        assert not statuses
        release.set()
        for thread in asking:
            thread.join()
        assert statuses == [200, 200]
        assert service.post("/search", fields).status_code == 200


def test_a_search_that_takes_too_long_is_given_up(monkeypatch, bert_mean_folder, folders):
    with blocked(monkeypatch, bert_mean_folder, folders, request_seconds=0.5) as parts:
        service, _, release = parts
        fields = {"vector": [1, 0, 0, 0]}
        # The first is being done; the second waits, and is dropped.
        for _ in range(2):
            status, error = service.error("/search", fields)
            assert (status, error["code"]) == (504, "timeout")
        release.set()
        assert service.post("/search", fields).status_code == 200


def test_searches_are_counted_and_no_text_is_logged(process, prompted_folder, folders):
    service = process(
        f"prompted={prompted_folder}",
        *("--store", f"docs={folders / 'lightweight'}", "--store", str(folders / "vectors")),
    )
    answer = service.post("/search", {"query": "a very private question", "k": 2})
    assert answer.status_code == 200
    assert service.post("/search", {"vector": [0, 1, 0, 0], "store": "vectors"}).status_code == 200
    with httpx.Client(base_url=service.url) as client:
        seen = scrape(client)
    for store in ("docs", "vectors"):
        assert seen.total("embedding_search_seconds_count", store=store) == 1
    assert seen.total("embedding_texts_total", model="prompted") == 1
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    (line,) = [line for line in lines if line.get("store") == "docs"]
    assert (line["route"], line["hits"], line["texts"]) == ("/search", 2, 1)
    assert line["search_ms"] > 0
    text = service.log.read_text()
    assert "private" not in text
    assert TEXTS[0] not in text
