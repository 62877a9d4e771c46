"""What the server answers, whatever it is reached by; asked by the official client."""

import asyncio
import json

import anyio
import numpy as np
import pytest
from mcp import Client, MCPError

from arrowembed import Embedder
from arrowembed.tools.mcp.offer import Offer
from arrowembed.tools.mcp.server import make_server

MODES = ["auto", "legacy"]
"""The protocol of 2026-07-28, and the handshake of all earlier ones."""

TEXTS = ["The cat sleeps on the mat.", "Taxes are due in May.", "Der Hund bellt."]

LONG = {"texts": [f"{i} " + "many words in a long text " * 100 for i in range(256)]}


def connected(offer, mode="auto"):
    """A client of a server in this process."""
    return Client(make_server(offer), mode=mode, read_timeout_seconds=60)


@pytest.mark.parametrize("mode", MODES)
def test_the_tools_and_what_they_are_like(offer_with_store, mode):
    async def ask():
        async with connected(offer_with_store, mode) as client:
            assert client.server_info.name == "arrowembed"
            assert "remember keeps texts" in client.instructions
            return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(ask())}
    assert list(tools) == ["embed", "similarity", "search", "remember", "forget"]
    for tool in tools.values():
        assert tool.title
        assert tool.description
        assert tool.input_schema["type"] == tool.output_schema["type"] == "object"
        assert tool.annotations.open_world_hint is False
    hints = {
        name: (tool.annotations.read_only_hint, tool.annotations.destructive_hint)
        for name, tool in tools.items()
    }
    reads = {"embed": (True, False), "similarity": (True, False), "search": (True, False)}
    assert hints == {**reads, "remember": (False, True), "forget": (False, True)}


@pytest.mark.parametrize("mode", MODES)
def test_each_tool_is_called(offer_with_store, bert_mean_folder, mode, result_of):
    async def ask():
        async with connected(offer_with_store, mode) as client:
            compared = await result_of(client, "similarity", {"a": TEXTS[:1], "b": TEXTS})
            embedded = await result_of(client, "embed", {"texts": TEXTS, "return": "values"})
            kept = await result_of(client, "embed", {"texts": TEXTS[1:2]})
            await result_of(client, "remember", {"texts": TEXTS, "ids": ["a", "b", "c"]})
            found = await result_of(client, "search", {"query": TEXTS[1], "k": 1})
            same = await result_of(client, "search", {"query": {"handle": kept["handle"]}, "k": 1})
            gone = await result_of(client, "forget", {"ids": ["b", "d"]})
            left = await result_of(client, "search", {"query": TEXTS[1], "k": 5})
            return compared, embedded, found, same, gone, left

    compared, embedded, found, same, gone, left = asyncio.run(ask())
    model = Embedder(bert_mean_folder)
    vectors = model.encode(TEXTS)
    np.testing.assert_allclose(embedded["values"], vectors, atol=1e-6)
    np.testing.assert_allclose(
        compared["scores"], model.similarity(vectors[:1], vectors), atol=1e-6
    )
    assert found["hits"][0]["text"] == same["hits"][0]["text"] == TEXTS[1]
    assert gone == {"deleted": 1}
    assert {hit["id"] for hit in left["hits"]} == {"a", "c"}


WRONG = [
    ("embed", {}, "invalid_arguments", "texts"),
    ("embed", {"texts": 7}, "invalid_arguments", "texts"),
    ("embed", {"texts": ["a"], "txt": 1}, "invalid_arguments", "txt"),
    ("embed", None, "invalid_arguments", "texts"),
    ("similarty", {"a": ["a"], "b": ["b"]}, "unknown_tool", "similarity"),
    ("search", {"query": "a"}, "unknown_tool", "search"),
    ("", {}, "unknown_tool", "embed"),
    ("similarity", {"a": {"handle": "none"}, "b": ["b"]}, "unknown_handle", "none"),
]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_wrong_is_for_the_model_to_read(offer, mode, error_of):
    async def ask():
        async with connected(offer, mode) as client:
            return [await error_of(client, name, given) for name, given, *_ in WRONG]

    for (_, _, code, named), error in zip(WRONG, asyncio.run(ask()), strict=True):
        assert error["code"] == code
        assert named in error["message"]
        assert error["hint"]


@pytest.mark.parametrize("mode", MODES)
def test_without_a_store_there_is_no_memory(offer, mode):
    async def ask():
        async with connected(offer, mode) as client:
            assert "remember" not in client.instructions
            assert client.server_capabilities.resources is None
            with pytest.raises(MCPError, match="not found"):
                await client.list_resources()
            return [tool.name for tool in (await client.list_tools()).tools]

    assert asyncio.run(ask()) == ["embed", "similarity"]


def test_read_only_offers_nothing_that_changes_the_store(bert_mean_folder, tmp_path, error_of):
    async def ask():
        with Offer(str(bert_mean_folder), tmp_path / "store", read_only=True) as offer:
            async with connected(offer) as client:
                assert "remember" not in client.instructions
                names = [tool.name for tool in (await client.list_tools()).tools]
                return names, await error_of(client, "remember", {"texts": ["a"]})

    names, error = asyncio.run(ask())
    assert names == ["embed", "similarity", "search"]
    assert error["code"] == "permission_denied"


@pytest.mark.parametrize("mode", MODES)
def test_the_store_is_a_resource_and_so_is_each_entry(offer_with_store, mode, result_of):
    identifier = "näin/ja noin?{1}"

    async def read(client, uri):
        (content,) = (await client.read_resource(uri)).contents
        assert content.mime_type == "application/json"
        return json.loads(content.text)

    async def ask():
        async with connected(offer_with_store, mode) as client:
            (store,) = (await client.list_resources()).resources
            empty = await read(client, store.uri)
            arguments = {"texts": TEXTS[:1], "ids": [identifier], "metadata": {"topic": "home"}}
            await result_of(client, "remember", arguments)
            (record,) = (await client.list_resource_templates()).resource_templates
            uri = record.uri_template.replace("{id}", "n%C3%A4in%2Fja%20noin%3F%7B1%7D")
            unknown = ["arrowembed://store/records/other", "arrowembed://else", "file:///etc/hosts"]
            for other in [*unknown, "arrowembed://store/records/", "%", "{id}"]:
                with pytest.raises(MCPError, match="no resource"):
                    await client.read_resource(other)
            return empty, await read(client, store.uri), await read(client, uri)

    empty, filled, entry = asyncio.run(ask())
    assert (empty["count"], filled["count"], filled["dimension"]) == (0, 1, 48)
    assert "path" not in filled
    assert entry == {"id": identifier, "text": TEXTS[0], "metadata": {"topic": "home"}}


def test_a_store_that_cannot_be_opened_is_told(bert_mean_folder, tmp_path, error_of):
    (tmp_path / "store.json").write_text("{")

    async def ask():
        with Offer(str(bert_mean_folder), tmp_path) as offer:
            async with connected(offer) as client:
                with pytest.raises(MCPError, match="damaged"):
                    await client.read_resource("arrowembed://store")
                return await error_of(client, "search", {"query": "a"})

    assert asyncio.run(ask())["code"] == "invalid_store"


def test_many_calls_at_once_get_each_its_own_answer(offer_with_store, bert_mean_folder, result_of):
    texts = [f"text number {i} of many" for i in range(40)]
    answers = {}

    async def ask():
        async with connected(offer_with_store) as client:

            async def one(text):
                given = {"texts": [text], "return": "values"}
                answers[text] = (await result_of(client, "embed", given))["values"][0]
                await result_of(client, "remember", {"texts": [text], "ids": [text]})

            async with anyio.create_task_group() as group:
                for text in texts:
                    group.start_soon(one, text)
            return [await result_of(client, "search", {"query": t, "k": 40}) for t in texts]

    for text, found in zip(texts, asyncio.run(ask()), strict=True):
        scores = {hit["id"]: hit["score"] for hit in found["hits"]}
        assert scores.keys() == {*texts}
        assert scores[text] == pytest.approx(max(scores.values()), abs=1e-5)
    vectors = Embedder(bert_mean_folder).encode(texts)
    np.testing.assert_allclose([answers[text] for text in texts], vectors, atol=1e-6)


def test_several_hosts_use_one_store(bert_mean_folder, tmp_path, result_of):
    async def ask():
        with (
            Offer(str(bert_mean_folder), tmp_path / "store") as first,
            Offer(str(bert_mean_folder), tmp_path / "store") as second,
        ):
            async with connected(first) as one, connected(second) as other:
                for writer, reader, text in ((one, other, TEXTS[0]), (other, one, TEXTS[1])):
                    await result_of(writer, "remember", {"texts": [text]})
                    found = await result_of(reader, "search", {"query": text, "k": 1})
                    assert found["hits"][0]["text"] == text

    asyncio.run(ask())


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_is_cancelled_hinders_no_other(offer, mode, result_of):
    async def ask():
        async with connected(offer, mode) as client:
            await client.list_tools()
            for _ in range(3):
                with anyio.move_on_after(0.05) as given_up:
                    await client.call_tool("embed", LONG)
                assert given_up.cancelled_caught
            result = await result_of(client, "similarity", {"a": ["a"], "b": ["b"]})
            while offer.registry.metrics()["embed"]["running"]:
                await asyncio.sleep(0.01)
            return result

    assert len(asyncio.run(ask())["scores"]) == 1
    assert offer.registry.metrics()["embed"]["errors"] == {"cancelled": 3}


def test_a_call_that_takes_too_long_says_so(bert_mean_folder, error_of):
    async def ask():
        with Offer(str(bert_mean_folder), timeout=0.01) as offer:
            offer.embedding.open()
            async with connected(offer) as client:
                return await error_of(client, "embed", LONG)

    assert asyncio.run(ask())["code"] == "timeout"
