"""The first answer: given before the package `mcp` is imported, and the same as the package's."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.memory import create_client_server_memory_streams
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, jsonrpc_message_adapter
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from arrowembed.errors import MissingDependencyError
from arrowembed.tools.mcp.greeting import Greeter
from arrowembed.tools.mcp.offer import Offer
from arrowembed.tools.mcp.server import make_server

CLIENT = {"name": "test", "version": "1"}
META = "io.modelcontextprotocol/"
OFFERS = {
    "no store": {},
    "store": {"store": Path("never-opened")},
    "read only": {"store": Path("never-opened"), "read_only": True},
}


def initialize(version="2025-11-25", **changes):
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": CLIENT, **changes}
    return {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}


def discover(version=MODERN_PROTOCOL_VERSIONS[-1], **changes):
    meta = {"protocolVersion": version, "clientInfo": CLIENT, "clientCapabilities": {}, **changes}
    params = {"_meta": {META + name: value for name, value in meta.items()}}
    return {"jsonrpc": "2.0", "id": "d-1", "method": "server/discover", "params": params}


async def answer_of_package(offer, request):
    """What the package itself answers."""
    server = make_server(offer)
    async with create_client_server_memory_streams() as (client, streams):
        options = server.create_initialization_options()
        serving = asyncio.create_task(server.run(*streams, options))
        read, write = client
        await write.send(SessionMessage(JSONRPCRequest.model_validate(request)))
        answer = (await read.receive()).message
        await write.aclose()
        await serving
    return json.loads(answer.model_dump_json(by_alias=True, exclude_unset=True))


REQUESTS = [
    *(initialize(version) for version in (*HANDSHAKE_PROTOCOL_VERSIONS, "1999-01-01", "")),
    initialize(capabilities={"roots": {"listChanged": True}, "sampling": {}}),
    *(discover(version) for version in MODERN_PROTOCOL_VERSIONS),
]


@pytest.mark.parametrize("offered", OFFERS)
@pytest.mark.parametrize(
    "request_", REQUESTS, ids=lambda r: r["method"] + str(r["params"].get("protocolVersion", ""))
)
def test_the_greeting_is_what_the_package_answers(offered, request_):
    offer = Offer("never-opened", **OFFERS[offered])
    greeting = Greeter(offer.identity).greet(json.dumps(request_))
    assert json.loads(greeting.line()) == asyncio.run(answer_of_package(offer, request_))
    assert greeting.line().count("\n") == 1
    jsonrpc_message_adapter.validate_json(greeting.line())


def without(request, name):
    params = {key: value for key, value in request["params"].items() if key != name}
    return {**request, "params": params}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[]",
        "7",
        "[" * 100_000,
        "{}",
        json.dumps({**initialize(), "jsonrpc": "1.0"}),
        json.dumps({**initialize(), "id": None}),
        json.dumps({**initialize(), "id": True}),
        json.dumps({**initialize(), "id": 1.5}),
        json.dumps({**initialize(), "params": []}),
        json.dumps({**initialize(), "method": 3}),
        json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {}}),
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}),
        json.dumps(initialize(7)),
        json.dumps(initialize(clientInfo={"name": "test"})),
        json.dumps(initialize(clientInfo="test")),
        *(json.dumps(without(initialize(), name)) for name in initialize()["params"]),
        json.dumps(discover("1999-01-01")),
        json.dumps(discover("2025-11-25")),
        json.dumps(discover(clientCapabilities=None)),
        json.dumps(discover(clientInfo={"name": 1})),
        json.dumps(without(discover(), "_meta")),
    ],
    ids=lambda line: line[:70],
)
def test_what_is_no_plain_first_request_is_left_to_the_package(line):
    assert Greeter(Offer().identity).greet(line) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.sampled_from([initialize(), discover()]), st.data())
def test_whatever_is_in_a_request_the_greeter_gives_an_answer_or_none(request_, data):
    """Each value of a right request is replaced by any other."""
    greeter = Greeter(Offer().identity)
    places = [(request_, key) for key in request_]
    places += [(request_["params"], key) for key in request_["params"]]
    places += [
        (inner, key)
        for inner in request_["params"].values()
        if isinstance(inner, dict)
        for key in inner
    ]
    where, key = data.draw(st.sampled_from(places))
    kept = where[key]
    where[key] = data.draw(JSON)
    try:
        greeting = greeter.greet(json.dumps(request_))
    finally:
        where[key] = kept
    if greeting is not None:
        jsonrpc_message_adapter.validate_json(greeting.line())


@given(st.text())
def test_no_line_is_too_strange_for_the_greeter(line):
    assert Greeter(Offer().identity).greet(line) is None


@pytest.mark.parametrize("request_", [initialize(), discover()], ids=["initialize", "discover"])
def test_it_is_given_while_the_package_is_still_being_imported(host, request_, tmp_path):
    """Here its import never ends."""
    package = tmp_path / "path" / "mcp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import time\ntime.sleep(3600)\n")
    with host.process(PYTHONPATH=str(package.parent)) as process:
        process.stdin.write(json.dumps(request_).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["id"] == request_["id"]
        assert answer["result"]["instructions"]
        process.terminate()
        assert process.wait(60) == 0
    assert host.log == ""


def test_it_is_sent_once(host):
    """The package answers the request, too; that answer is not sent."""
    ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
    with host.process() as process:
        for message in (initialize(), ping):
            process.stdin.write(json.dumps(message).encode() + b"\n")
        process.stdin.flush()
        assert [json.loads(process.stdout.readline())["id"] for _ in range(2)] == [1, 2]
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(60) == 0
    assert host.log == ""


def test_nothing_slow_is_imported_for_it():
    code = (
        "import sys\n"
        "from arrowembed.tools.mcp import stdio\n"
        "from pathlib import Path\n"
        "from arrowembed.tools.mcp.offer import Offer\n"
        "from arrowembed.tools.mcp.greeting import Greeter\n"
        "Greeter(Offer(store=Path('s')).identity)\n"
        "slow = {'mcp', 'mcp_types', 'pydantic', 'asyncio', 'numpy', 'pyarrow', 'anyio', 'httpx'}\n"
        "print(sorted(slow & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout == "[]\n"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "arrowembed\[mcp\]"'):
        Greeter(Offer().identity)
