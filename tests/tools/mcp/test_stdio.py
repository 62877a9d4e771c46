"""`arrowembed mcp` over standard input and output, by the official client, as a host uses it."""

import asyncio
import json
import signal
import time
from pathlib import Path

import anyio
import numpy as np
import pytest

from arrowembed.errors import HandleGoneError
from arrowembed.tools.sharing import open_shared, to_numpy

MODES = ["auto", "legacy"]
"""The protocol of 2026-07-28, and the handshake of all earlier ones."""

TEXTS = ["The cat sleeps on the mat.", "Taxes are due in May.", "Der Hund bellt."]

LONG = {"texts": [f"{i} " + "many words in a long text " * 100 for i in range(256)]}

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def call(identifier, name, arguments):
    params = {"name": name, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": identifier, "method": "tools/call", "params": params}


def tell(process, *messages):
    for message in messages:
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        process.stdin.write(line + b"\n")
    process.stdin.flush()


def hear(process):
    return json.loads(process.stdout.readline())


@pytest.mark.parametrize("mode", MODES)
def test_a_session_of_a_host(host_with_store, mode, result_of, error_of):
    """Several calls at once, one that is wrong, one that is cancelled; and one after a restart."""

    async def first():
        async with host_with_store.client(mode=mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            async with anyio.create_task_group() as group:
                for text in TEXTS:
                    arguments = {"texts": [text], "ids": [text[:3]]}
                    group.start_soon(result_of, client, "remember", arguments)
            error = await error_of(client, "serch", {"query": "a"})
            with anyio.move_on_after(0.05) as given_up:
                await client.call_tool("embed", LONG)
            assert given_up.cancelled_caught
            (content,) = (await client.read_resource("arrowembed://store")).contents
            return names, error["message"], json.loads(content.text)["count"]

    async def second():
        async with host_with_store.client() as client:
            return await result_of(client, "search", {"query": TEXTS[2], "k": 1})

    names, message, count = asyncio.run(first())
    assert names == ["embed", "similarity", "search", "remember", "forget"]
    assert '"search"' in message
    assert count == len(TEXTS)
    assert asyncio.run(second())["hits"][0]["id"] == "Der"
    assert host_with_store.log == ""


@pytest.mark.parametrize(
    ("how", "busy"),
    [
        ("eof", True),
        ("unread", False),
        ("terminate", True),
        ("terminate", False),
        ("interrupt", True),
    ],
)
def test_it_ends_at_once_and_quietly(host_with_store, how, busy):
    with host_with_store.process() as process:
        tell(process, INITIALIZE, INITIALIZED, call(2, "remember", {"texts": ["a"]}))
        assert [hear(process)["id"] for _ in range(2)] == [1, 2]
        if busy:
            tell(process, *(call(i, "embed", LONG) for i in range(3, 6)))
            # So that they have begun.
            tell(process, call(6, "similarity", {"a": ["a"], "b": ["b"]}))
            assert hear(process)["id"] == 6
        started = time.monotonic()
        match how:
            case "eof":
                process.stdin.close()
            case "unread":
                process.stdout.close()
                tell(process, {"jsonrpc": "2.0", "id": 7, "method": "ping"})
            case "terminate":
                process.send_signal(signal.SIGTERM)
            case "interrupt":
                process.send_signal(signal.SIGINT)
        status = process.wait(60)
        # A host kills what is still there after two seconds; this is for a machine under load.
        assert time.monotonic() - started < 10
    assert status == (130 if how == "interrupt" else 0)
    assert host_with_store.log == ""


def test_it_ends_although_its_client_does_not_read(host):
    with host.process() as process:
        tell(process, INITIALIZE, INITIALIZED)
        arguments = {"texts": ["a"] * 40, "return": "values"}
        for i in range(2, 20):
            tell(process, call(i, "embed", arguments))
        assert hear(process)["id"] == 1
        hear(process)
        # The answers that are left, of 20 KB each, are more than a pipe takes.
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert host.log == ""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_it_is_still_starting(host, how):
    with host.process() as process:
        tell(process, INITIALIZE)
        assert hear(process)["id"] == 1
        process.send_signal(how)
        assert process.wait(60) == (130 if how == signal.SIGINT else 0)
    assert "Traceback" not in host.log


def test_a_client_that_says_nothing_at_all(host):
    with host.process() as process:
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(60) == 0
    assert host.log == ""


def test_lines_that_are_no_messages_hinder_nothing(host):
    with host.process() as process:
        tell(process, b"no json", b"", b"\xff\xfe", b"[" * 100_000, b"{}", INITIALIZE)
        assert hear(process)["id"] == 1
        tell(process, INITIALIZED, b"x" * (17 << 20), call(2, "embed", {"texts": ["\u0000 a"]}))
        assert hear(process)["id"] == 2
        # A line in pieces, and two lines in one piece.
        line = json.dumps(call(3, "embed", {"texts": ["näin 🦀"]}), ensure_ascii=False).encode()
        for i in range(0, len(line), 7):
            process.stdin.write(line[i : i + 7])
            process.stdin.flush()
        tell(process, b"\n" + json.dumps({"jsonrpc": "2.0", "id": 4, "method": "ping"}).encode())
        assert {hear(process)["id"], hear(process)["id"]} == {3, 4}


def plugin(folder, code):
    """A package that offers tools, as if it were installed in a folder of the path."""
    folder.mkdir()
    (folder / "noisy_tools.py").write_text(code)
    info = folder / "noisy_tools-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy-tools\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[arrowembed.tools]\nnoise = noisy_tools:noise\nbroken = noisy_tools:absent\n"
    )
    return str(folder)


NOISY = '''
import os, subprocess, sys
from arrowembed.tools import tool

@tool(scope="read")
def noise(text: str) -> str:
    """Writes to standard output in every way, and reads standard input."""
    print(text, flush=True)
    os.write(1, text.encode())
    subprocess.run([sys.executable, "-c", "print('of a child')"], check=True)
    return text + sys.stdin.read()
'''


def test_whatever_is_printed_stays_out_of_the_protocol(host, tmp_path, result_of):
    path = plugin(tmp_path / "plugins", NOISY)

    async def ask():
        async with host.client("--plugins", PYTHONPATH=path) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            return names, await result_of(client, "noise", {"text": "{}"})

    names, result = asyncio.run(ask())
    assert names == ["embed", "similarity", "noise"]
    assert result == {"result": "{}"}
    assert "of a child" in host.log
    # And the one that is broken is named.
    assert "'broken' of noisy-tools are left out" in host.log


def test_a_model_that_is_not_there_is_told_in_the_log_and_to_whoever_calls(
    host_of, tmp_path, error_of
):
    host = host_of("--model", tmp_path / "absent")

    async def ask():
        async with host.client() as client:
            return await error_of(client, "similarity", {"a": ["a"], "b": ["b"]})

    assert asyncio.run(ask())["code"] == "model_not_found"
    assert "absent" in host.log
    assert "Traceback" not in host.log


def test_shared_vectors_can_be_opened_by_the_host_and_go_with_the_server(host, result_of):
    async def ask():
        async with host.client() as client:
            given = {"texts": TEXTS, "return": "shared", "ids": ["a", "b", "c"]}
            shared = (await result_of(client, "embed", given))["shared"]
            table = open_shared(shared)
            values = await result_of(client, "embed", {"texts": TEXTS, "return": "values"})
            return shared, table, values["values"]

    shared, table, values = asyncio.run(ask())
    np.testing.assert_allclose(to_numpy(table["vector"]), values, atol=1e-6)
    assert table["id"].to_pylist() == ["a", "b", "c"]
    assert not Path(shared["path"]).exists()
    with pytest.raises(HandleGoneError):
        open_shared(shared)
