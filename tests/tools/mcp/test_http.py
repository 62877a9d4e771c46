"""`arrowembed mcp --transport http`: by the official client, and by those who should not get in."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, contextmanager

import anyio
import httpx
import pytest
import uvicorn
from httpx2 import AsyncClient
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from arrowembed.errors import InvalidArgumentError
from arrowembed.server.security.keys import ApiKeys, new_key
from arrowembed.tools.mcp.http import _names, make_app, read_api_keys

MODES = ["auto", "legacy"]

TEXTS = ["The cat sleeps on the mat.", "Taxes are due in May."]

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
HEADERS = {"accept": "application/json, text/event-stream"}


@contextmanager
def listening(offer, keys=None):
    """The address of a server in a thread of this process."""
    app = make_app(offer, ["127.0.0.1"], keys)
    config = uvicorn.Config(app, port=0, log_config=None, ws="none", timeout_graceful_shutdown=2)
    listener = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"
    finally:
        server.should_exit = True
        thread.join()


@asynccontextmanager
async def connected(url, key=None, mode="auto"):
    """A client of it, which shows a key."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    async with AsyncClient(headers=headers) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, mode=mode, read_timeout_seconds=60) as client:
            yield client


@pytest.fixture
def url(offer):
    with listening(offer) as url:
        yield url


@pytest.mark.parametrize("mode", MODES)
def test_a_session_of_a_client(offer_with_store, mode, result_of, error_of):
    async def ask(url):
        async with connected(url, mode=mode) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            async with anyio.create_task_group() as group:
                for text in TEXTS:
                    arguments = {"texts": [text], "ids": [text[:3]]}
                    group.start_soon(result_of, client, "remember", arguments)
            error = await error_of(client, "serch", {"query": "a"})
        async with connected(url, mode=mode) as client:
            found = await result_of(client, "search", {"query": TEXTS[1], "k": 1})
            (content,) = (await client.read_resource("arrowembed://store")).contents
            return names, error["message"], found["hits"][0]["id"], json.loads(content.text)

    with listening(offer_with_store) as url:
        names, message, found, store = asyncio.run(ask(url))
    assert names == ["embed", "similarity", "search", "remember", "forget"]
    assert '"search"' in message
    assert found == "Tax"
    assert store["count"] == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_is_cancelled_hinders_no_other(offer, url, mode, result_of):
    long = {"texts": [f"{i} " + "many words in a long text " * 100 for i in range(256)]}

    async def ask():
        async with connected(url, mode=mode) as client:
            with anyio.move_on_after(0.1) as given_up:
                await client.call_tool("embed", long)
            assert given_up.cancelled_caught
            await result_of(client, "similarity", {"a": ["a"], "b": ["b"]})

    asyncio.run(ask())
    deadline = time.monotonic() + 60
    while offer.registry.metrics()["embed"]["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert offer.registry.metrics()["embed"]["errors"] == {"cancelled": 1}


@pytest.mark.parametrize("sent", ["half a request", "a call"])
def test_a_client_that_vanishes_hinders_no_other(url, sent, result_of):
    address = httpx.URL(url)
    session = httpx.post(url, json=INITIALIZE, headers=HEADERS).headers["mcp-session-id"]
    long = {"texts": [f"{i} " + "many words in a long text " * 100 for i in range(256)]}
    params = {"name": "embed", "arguments": long}
    message = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}
    body = json.dumps(message).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{address.port}\r\n"
        f"content-type: application/json\r\naccept: {HEADERS['accept']}\r\n"
        f"mcp-session-id: {session}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((address.host, address.port)) as connection:
        connection.sendall(head.encode() + (body if sent == "a call" else body[:1000]))
        if sent == "a call":
            assert connection.recv(100).startswith(b"HTTP/1.1 200")

    async def ask():
        async with connected(url) as client:
            return await result_of(client, "similarity", {"a": ["a"], "b": ["b"]})

    assert len(asyncio.run(ask())["scores"]) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:3000"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:80"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 400),
    ],
    ids=str,
)
def test_web_pages_from_elsewhere_are_refused(url, headers, status):
    """Also those whose name has come to mean this machine (DNS rebinding)."""
    given = {**HEADERS, "content-type": "application/json", **headers}
    answer = httpx.post(url, content=json.dumps(INITIALIZE), headers=given)
    assert answer.status_code == status


def test_a_body_beyond_all_measure_is_refused(url):
    answer = httpx.post(url, content=b" " * (5 << 20), headers=HEADERS)
    assert answer.status_code == 413


@pytest.fixture(scope="module")
def keys():
    """A key for each set of scopes, and all of them as a server knows them."""
    made = {
        "embed": new_key("embeds", ["embed"]),
        "search": new_key("searches", ["embed", "search"]),
        "admin": new_key("writes", ["embed", "search", "admin"]),
    }
    return {name: key for name, (key, _) in made.items()}, ApiKeys(k for _, k in made.values())


@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer ae_other", "Basic YTpi", "Bearer \xff"]
)
def test_without_a_key_nobody_gets_in(offer, keys, authorization):
    headers = dict(HEADERS)
    if authorization is not None:
        headers["authorization"] = authorization.encode("latin-1")
    with listening(offer, keys[1]) as url:
        for method in ("POST", "GET", "DELETE"):
            answer = httpx.request(method, url, json=INITIALIZE, headers=headers)
            assert answer.status_code == 401
            assert "Bearer" in answer.headers["www-authenticate"]


def test_a_key_is_good_for_what_its_scopes_say(offer_with_store, keys, result_of, error_of):
    async def ask(url, scope):
        async with connected(url, keys[0][scope]) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            await result_of(client, "similarity", {"a": ["a"], "b": ["b"]})
            refused = []
            for name, arguments in (("search", {"query": "a"}), ("remember", {"texts": ["a"]})):
                if name not in names:
                    error = await error_of(client, name, arguments)
                    assert error["code"] == "permission_denied"
                    refused.append(error["message"].partition("scope ")[2])
            if "search" in names:
                await client.read_resource("arrowembed://store")
            else:
                with pytest.raises(Exception, match="needs a key with the scope 'search'"):
                    await client.read_resource("arrowembed://store")
            return names, refused

    with listening(offer_with_store, keys[1]) as url:
        told = {scope: asyncio.run(ask(url, scope)) for scope in keys[0]}
    read = ["embed", "similarity", "search"]
    assert told == {
        "embed": (read[:2], ["'search'", "'admin'"]),
        "search": (read, ["'admin'"]),
        "admin": ([*read, "remember", "forget"], []),
    }


def test_a_session_belongs_to_the_key_that_began_it(offer, keys):
    with listening(offer, keys[1]) as url:
        first, second = (
            {**HEADERS, "authorization": f"Bearer {key}"}
            for key in (keys[0]["embed"], keys[0]["search"])
        )
        session = httpx.post(url, json=INITIALIZE, headers=first).headers["mcp-session-id"]
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        statuses = [
            httpx.post(url, json=ping, headers={**who, "mcp-session-id": session}).status_code
            for who in (first, second)
        ]
    assert statuses == [200, 404]


def test_keys_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    assert read_api_keys(None) is None
    (one, kept_one), (two, kept_two) = (new_key(name, ["embed"]) for name in ("one", "two"))
    file = tmp_path / "keys"
    file.write_text(f"# of a friend\n{kept_one.entry()}\n")
    assert read_api_keys(file).find(one).name == "one"
    monkeypatch.setenv("ARROWEMBED_API_KEYS", kept_two.entry())
    assert read_api_keys(file).find(two).name == "two"
    assert read_api_keys(None).find(one) is None
    file.write_text("# nothing\n")
    with pytest.raises(InvalidArgumentError, match="holds no key"):
        read_api_keys(file)
    file.write_text(one)
    with pytest.raises(InvalidArgumentError, match="holds a key; only its hash") as caught:
        read_api_keys(file)
    assert one not in str(caught.value)
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidArgumentError, match="--api-keys-file"):
        read_api_keys(file)


@pytest.mark.parametrize(
    ("host", "more", "names"),
    [
        ("127.0.0.1", (), ["127.0.0.1", "localhost", "[::1]"]),
        ("localhost", (), ["127.0.0.1", "localhost", "[::1]"]),
        ("::1", ("box",), ["box", "127.0.0.1", "localhost", "[::1]"]),
        ("10.0.0.7", (), ["10.0.0.7"]),
        ("fe80::7", (), ["[fe80::7]"]),
        ("box.lan", ("box",), ["box", "box.lan"]),
        ("0.0.0.0", ("box",), ["box", "127.0.0.1", "localhost", "[::1]"]),
    ],
)
def test_by_which_names_it_may_be_called(host, more, names):
    assert _names(host, more) == names


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_all_addresses_need_a_name(host):
    with pytest.raises(InvalidArgumentError, match="--allowed-host"):
        _names(host, ())


def test_the_command_listens_and_stops_with_a_session_open(host, result_of):
    async def ask(url, process):
        async with connected(url, mode="legacy") as client:
            await result_of(client, "similarity", {"a": ["a"], "b": ["b"]})
            process.send_signal(signal.SIGTERM)
            started = time.monotonic()
            status = await anyio.to_thread.run_sync(process.wait, 60)
            return status, time.monotonic() - started

    with host.listening("--host", "0.0.0.0", "--allowed-host", "box") as (url, process):
        status, seconds = asyncio.run(ask(url.replace("0.0.0.0", "127.0.0.1"), process))
    assert status == 0
    assert seconds < 10
    # Nobody needs a key, and that is said.
    assert "ANYBODY WHO REACHES 0.0.0.0 MAY USE THESE TOOLS" in host.log
    assert "Traceback" not in host.log


def test_a_port_that_is_taken_ends_it(host):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with host.process("--transport", "http", "--port", port) as process:
            assert process.wait(60) == 1
    assert host.log.startswith("error: ")
    assert "Address already in use" in host.log
    assert str(port) in host.log
    assert "Traceback" not in host.log


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from arrowembed.cli import main\n"
        "sys.argv = ['arrowembed', 'mcp', '--transport', 'http']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == 'error: arrowembed mcp needs uvicorn: pip install "arrowembed[mcp]"\n'
