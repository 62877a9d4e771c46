"""`EmbeddingTool`: what the engine and the store give, within bounds, and never an exception."""

import json

import numpy as np
import pytest
from dictionary_store import DictionaryStore

from arrowembed import Embedder
from arrowembed.errors import InvalidArgumentError, StoreLockedError
from arrowembed.store.records import Hit
from arrowembed.tools import EmbeddingTool
from arrowembed.tools.kinds import MAX_K, MAX_TEXTS
from arrowembed.tools.room import MAX_TEXT, MIN_BYTES, fitted, json_bytes
from arrowembed.tools.sharing import open_shared, release, to_numpy

TEXTS = ["the cat sleeps", "taxes are due in May", "a dog barks"]


@pytest.fixture
def result(embedding):
    """Calls an action that has to succeed."""

    def result(action, **params):
        outcome = embedding.execute(action, params)
        assert outcome["ok"], outcome
        assert json.loads(json.dumps(outcome)) == outcome
        return outcome["result"]

    return result


@pytest.fixture
def error(embedding):
    """Calls an action that has to fail."""

    def error(action, **params):
        outcome = embedding.execute(action, params)
        assert not outcome["ok"], outcome
        return outcome["error"]

    return error


def test_vectors_are_those_of_the_model(result, model):
    embedded = result("embed", texts=TEXTS, **{"return": "values"})
    np.testing.assert_allclose(embedded["values"], model.encode(TEXTS), atol=5.1e-7, rtol=0)
    assert (embedded["count"], embedded["dimension"]) == (3, model.dimension)
    assert "handle" not in embedded


@pytest.mark.parametrize("kind", ["text", "query", "document"])
def test_kinds_of_texts_have_their_prompts(prompted_folder, kind):
    model = Embedder(prompted_folder)
    expected = {
        "text": model.encode(TEXTS),
        "query": model.encode(TEXTS, prompt_name="query"),
        "document": model.encode(TEXTS, prompt_name="passage"),
    }
    params = {"texts": TEXTS, "kind": kind, "return": "values"}
    values = EmbeddingTool(model).execute("embed", params)["result"]["values"]
    np.testing.assert_allclose(values, expected[kind], atol=5.1e-7, rtol=0)


def test_shared_vectors_are_those_of_the_model(result, model):
    shared = result("embed", texts=TEXTS, ids=["a", "b", "c"], **{"return": "shared"})["shared"]
    table = open_shared(shared)
    np.testing.assert_array_equal(to_numpy(table["vector"]), model.encode(TEXTS))
    assert table["id"].to_pylist() == ["a", "b", "c"]
    assert shared["expires"] is not None
    release(shared)


def test_similarities_are_those_of_the_model(result, model):
    found = result("similarity", a=TEXTS, b=["a pet", "money"])
    expected = model.similarity(TEXTS, ["a pet", "money"])
    np.testing.assert_allclose(found["scores"], expected, atol=1e-6)
    assert found["best"] == expected.argmax(axis=1).tolist()
    assert found["function"] == model.similarity_function


def test_handles_stand_for_vectors(result, embedding, model):
    handle = {"handle": result("embed", texts=TEXTS)["handle"]}
    direct = result("similarity", a=TEXTS, b=["a pet"])
    assert result("similarity", a=handle, b=["a pet"]) == direct
    # The whole result of embed, which models like to pass on, is no handle; the error says so.
    whole = result("embed", texts=TEXTS)
    assert (
        "a.count is unknown"
        in embedding.execute("similarity", {"a": whole, "b": handle})["error"]["message"]
    )


def test_the_handles_that_were_used_last_are_kept(model):
    embedding = EmbeddingTool(model, max_handles=2)

    def handle():
        return {"handle": embedding.execute("embed", {"texts": ["a"]})["result"]["handle"]}

    def known(handle):
        return embedding.execute("similarity", {"a": handle, "b": ["a"]})["ok"]

    first, second = handle(), handle()
    assert known(first)
    third = handle()
    assert [known(first), known(second), known(third)] == [True, False, True]
    outcome = embedding.execute("similarity", {"a": second, "b": ["a"]})
    assert outcome["error"]["code"] == "unknown_handle"
    assert "embed the texts again" in outcome["error"]["hint"]


def test_handles_have_a_limit_in_bytes(model):
    room = 4 * model.dimension * 3
    embedding = EmbeddingTool(model, max_handle_bytes=room)
    handles = [
        embedding.execute("embed", {"texts": ["a", "b"]})["result"]["handle"] for _ in range(3)
    ]
    known = [
        embedding.execute("similarity", {"a": {"handle": handle}, "b": ["a"]})["ok"]
        for handle in handles
    ]
    assert known == [False, False, True]
    too_large = embedding.execute("embed", {"texts": ["a"] * 4})["error"]
    assert too_large["code"] == "result_too_large"


def test_what_is_remembered_is_found_and_forgotten(result, store):
    ids = result("remember", texts=TEXTS, metadata={"topic": "home"})["ids"]
    assert len(set(ids)) == 3
    hits = result("search", query="the cat sleeps", k=2)["hits"]
    expected = store.search("the cat sleeps", 2)
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert hits[0] == {
        "id": ids[0],
        "score": pytest.approx(1, abs=1e-6),
        "text": "the cat sleeps",
        "metadata": {"topic": "home"},
    }
    assert result("forget", ids=[ids[0], "unknown"]) == {"deleted": 1}
    assert result("search", query="the cat sleeps")["hits"][0]["id"] != ids[0]
    assert result("forget", filter={"topic": "home"}) == {"deleted": 2}
    assert result("search", query="anything") == {"hits": [], "omitted": 0}


def test_texts_that_the_model_did_not_read_to_the_end_are_told(result, model):
    # Of this model, a word is a token or more; two more stand around a text.
    fits, too_long = "the " * (model.max_seq_length - 2), "the " * (model.max_seq_length - 1)
    texts = ["short", too_long, fits, "語" * 1000]
    lengths = [len(ids) for ids in model.tokenize([*texts[:3]])["input_ids"]]
    assert lengths[1:] == [model.max_seq_length] * 2
    assert result("embed", texts=texts)["truncated"] == [1, 3]
    assert result("remember", texts=texts)["truncated"] == [1, 3]
    assert "truncated" not in result("embed", texts=[fits])
    assert "truncated" not in result("remember", texts=["short"])


def test_the_same_text_is_remembered_once(result, store):
    first = result("remember", texts=["a", "b", "a"])["ids"]
    assert len(first) == 2
    assert result("remember", texts=["a"], metadata={"n": 2})["ids"] == first[:1]
    assert store.count() == 2
    assert store.get(first[:1])[0].metadata == {"n": 2}


def test_ids_replace(result, store):
    assert result("remember", texts=["one"], ids=["x"]) == {"ids": ["x"]}
    assert result("remember", texts=["two"], ids=["x"]) == {"ids": ["x"]}
    assert [record.text for record in store.get()] == ["two"]


def test_search_takes_filters_and_handles(result):
    result("remember", texts=["a cat"], metadata={"year": 2020})
    result("remember", texts=["a dog"], metadata={"year": 2024})
    found = result("search", query="a cat", filter={"year": {"$gt": 2020}})
    assert [hit["text"] for hit in found["hits"]] == ["a dog"]
    handle = result("embed", texts=["a dog"], kind="query")["handle"]
    found = result("search", query={"handle": handle}, k=1)
    assert [hit["text"] for hit in found["hits"]] == ["a dog"]


def test_wrong_calls_of_a_store_say_what_to_do(error, result):
    assert "give ids or a filter" in error("forget")["message"]
    unknown = error("search", query="a", filter={"year": {"$near": 3}})
    assert unknown["code"] == "invalid_argument"
    assert "$gte" in unknown["message"]
    assert "ids: 1 for 2 texts" in error("remember", texts=["a", "b"], ids=["x"])["message"]
    assert "ids: 1 for 2 texts" in error("embed", texts=["a", "b"], ids=["x"])["message"]
    two = result("embed", texts=["a", "b"])["handle"]
    assert "has 2 vectors" in error("search", query={"handle": two})["message"]
    many = error("search", query="a", k=MAX_K + 1)
    assert f"k should be less than or equal to {MAX_K}, given {MAX_K + 1}" in many["message"]
    assert "comes twice" in error("remember", texts=["a", "b"], ids=["x", "x"])["message"]


@pytest.mark.parametrize("action", ["search", "remember", "forget"])
def test_without_a_store_there_is_none(model, action):
    outcome = EmbeddingTool(model).execute(action, {})
    assert outcome["error"]["code"] == "no_store"


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("serach", 'did you mean "search"?'),
        ("EMBED", 'did you mean "embed"?'),
        ("dance", "known: embed, similarity, search, remember, forget"),
        ("", "known: embed"),
        (None, "known: embed"),
        (3, "known: embed"),
        (["embed"], "known: embed"),
        ({"a": 1}, "known: embed"),
        ("x" * 10_000, "known: embed"),
        ("\ud800", "known: embed"),
    ],
)
def test_unknown_actions_are_told_the_known(embedding, action, told):
    outcome = embedding.execute(action, {})
    assert outcome["error"]["code"] == "unknown_action"
    assert told in outcome["error"]["message"]
    assert len(json.dumps(outcome, ensure_ascii=False).encode()) < 1000


def test_the_combined_tool_carries_out_all_actions(embedding):
    tool = embedding.combined()
    done = tool.call({"action": "remember", "params": {"texts": ["the cat sleeps"]}})
    assert done == embedding.execute("remember", {"texts": ["the cat sleeps"]})
    assert tool.call({"action": "search", "params": '{"query": "cat"}'})["result"]["hits"]
    wrong = tool.call({"action": "search", "params": {"qeury": "cat"}})["error"]
    assert 'search: query is missing; qeury is unknown; did you mean "query"?' in wrong["message"]
    assert '{"query":"pets","k":3}' in wrong["hint"]
    wrong = tool.call({"action": "find", "params": {}})["error"]
    assert "'embed', 'similarity', 'search', 'remember' or 'forget'" in wrong["message"]


def test_values_are_bounded(result, error, model):
    most = MIN_BYTES // (model.dimension * 11)
    result("embed", texts=["a"] * most, **{"return": "values"})
    too_many = error("embed", texts=["a"] * (most + 1), **{"return": "values"})
    assert too_many["code"] == "result_too_large"
    assert f"only {most} fit" in too_many["message"]
    assert "reference" in too_many["hint"]


def test_similarities_are_bounded(result, error):
    result("similarity", a=["a"] * 10, b=["b"] * 100)
    assert error("similarity", a=["a"] * MAX_TEXTS, b=["b"] * MAX_TEXTS)["code"] == (
        "result_too_large"
    )


def test_long_texts_are_shortened(result):
    long = "word " * 1000
    result("remember", texts=[long, "short"], metadata={"n": 1})
    long_hit, short_hit = sorted(
        result("search", query="word", max_characters=20)["hits"],
        key=lambda hit: hit["text"] == "short",
    )
    assert long_hit["text"] == long[:20] + "… [20 of 5000 characters]"
    assert long_hit["shortened"] is True
    assert short_hit["text"] == "short"
    assert "shortened" not in short_hit


@pytest.mark.parametrize("character", ["a", "ä", "語", "\0", '"', "🐈"])
def test_however_long_what_is_found_the_result_is_bounded(character):
    hits = [
        Hit(character * 256, character * 10_000, {"a": character * 300}, score=0.5)
        for _ in range(MAX_K)
    ]
    found = fitted(hits, MIN_BYTES, MAX_TEXT)
    assert json_bytes(found) <= MIN_BYTES
    assert len(found["hits"]) >= 1
    assert len(found["hits"]) + found["omitted"] == MAX_K
    assert found["hits"][0]["text"].startswith(character * MAX_TEXT)


def test_large_metadata_are_left_out(result):
    result("remember", texts=["a"], metadata={"n": "x" * 5000})
    (hit,) = result("search", query="a")["hits"]
    assert (hit["metadata"], hit["shortened"]) == ({}, True)


def test_errors_of_a_store_are_answers(model, tmp_path):
    class Locked(DictionaryStore):
        def _insert(self, rows, *, replace):
            raise StoreLockedError("another process has been writing for 10 s")

        def _delete(self, ids, condition):
            raise RuntimeError("secret")

    embedding = EmbeddingTool(model, Locked.of(model, tmp_path))
    locked = embedding.execute("remember", {"texts": ["a"]})["error"]
    assert (locked["code"], locked["hint"]) == ("store_locked", "Call again in a few seconds.")
    broken = embedding.execute("forget", {"ids": ["a"]})["error"]
    assert broken["code"] == "internal"
    assert "secret" not in json.dumps(broken)


def test_a_model_that_is_not_there_is_an_answer(tmp_path):
    outcome = EmbeddingTool(str(tmp_path / "nowhere")).execute("embed", {"texts": ["a"]})
    assert outcome["error"]["code"] == "model_not_found"
    outcome = EmbeddingTool(store=tmp_path / "s", model="no-such-model").execute(
        "remember", {"texts": ["a"]}
    )
    assert outcome["error"]["code"] == "model_not_found"


def test_arguments_are_checked(model):
    with pytest.raises(InvalidArgumentError, match="max_output_bytes: 10"):
        EmbeddingTool(model, max_output_bytes=10)
    with pytest.raises(InvalidArgumentError, match="max_entries: 0"):
        EmbeddingTool(model, max_handles=0)


def test_a_store_by_its_path_is_made_and_found_again(bert_mean_folder, tmp_path):
    folder = tmp_path / "memory"
    with EmbeddingTool(str(bert_mean_folder), folder) as embedding:
        assert embedding.execute("embed", {"texts": ["a"]})["ok"]
        assert not folder.exists()  # nothing is opened before it is needed
        (name,) = embedding.execute("remember", {"texts": ["the cat sleeps"]})["result"]["ids"]
    with EmbeddingTool(store=folder) as embedding:
        embedding.open()
        # Its model is the store's.
        assert embedding.execute("embed", {"texts": ["a"]})["result"]["dimension"] == 48
        (hit,) = embedding.execute("search", {"query": "the cat sleeps"})["result"]["hits"]
        assert (hit["id"], hit["text"]) == (name, "the cat sleeps")
    assert embedding.execute("search", {"query": "a"})["error"]["code"] == "closed"


def test_a_store_that_was_given_is_not_closed(model, store):
    with EmbeddingTool(model, store) as embedding:
        embedding.open()
    assert store.count() == 0
