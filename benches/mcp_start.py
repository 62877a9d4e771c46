"""How long a host waits for a server of the Model Context Protocol, from the start of its process.

    python benches/mcp_start.py MODEL

Beside `arrowembed mcp`, with and without a store, in turns: the smallest server that the package
`mcp` makes, with one tool that does nothing, and the import of that package alone. Memory is what
is resident after the call, in MB (Linux).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

SMALLEST = """
import asyncio
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

async def list_tools(context, params):
    tool = types.Tool(name="nothing", input_schema={"type": "object"})
    return types.ListToolsResult(tools=[tool])

async def call_tool(context, params):
    return types.CallToolResult(content=[])

async def main():
    server = Server("smallest", on_list_tools=list_tools, on_call_tool=call_tool)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())

asyncio.run(main())
"""

CLIENT = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}
STEPS = ("initialize", "tools/list", "tools/call", "exit")
COMPARE = {"name": "similarity", "arguments": {"a": ["a warm day"], "b": ["sunny weather"]}}
REMEMBER = {"name": "remember", "arguments": {"texts": ["The user's cat is called Miez."]}}
NOTHING: dict[str, object] = {"name": "nothing", "arguments": {}}


def session(command: list[str], call: Mapping[str, object]) -> dict[str, float]:
    """Milliseconds from the start of the process to each answer, and for its end; and MB."""
    started = time.perf_counter()
    found = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        requests: list[tuple[str, Mapping[str, object]]] = [
            ("initialize", CLIENT),
            ("tools/list", {}),
            ("tools/call", call),
        ]
        for identifier, (method, params) in enumerate(requests, start=1):
            request = {"jsonrpc": "2.0", "id": identifier, "method": method, "params": params}
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if answer["id"] != identifier or answer["result"].get("isError"):
                raise RuntimeError(answer)
            found[method] = 1e3 * (time.perf_counter() - started)
            if method == "initialize":
                initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
                process.stdin.write(json.dumps(initialized).encode() + b"\n")
        found["memory"] = resident(process.pid)
        ending = time.perf_counter()
        process.stdin.close()
        process.wait()
        found["exit"] = 1e3 * (time.perf_counter() - ending)
    return found


def resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1e3


def import_alone() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mcp.server.lowlevel"], check=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    ours = [sys.executable, "-m", "arrowembed", "mcp", "--model", options.model]
    servers: dict[str, tuple[list[str], Mapping[str, object]]] = {
        "arrowembed mcp": (ours, COMPARE),
        "with a store": ([*ours, "--store"], REMEMBER),
        "smallest server": ([sys.executable, "-c", SMALLEST], NOTHING),
    }
    sessions: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    imports = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds):
            for name, (command, call) in servers.items():
                store = [f"{folder}/{number}"] if command[-1] == "--store" else []
                sessions[name].append(session([*command, *store], call))
            imports.append(1e3 * import_alone())

    print(f"milliseconds from the start of the process, medians of {options.rounds} rounds")
    print(f"{'':12}" + "".join(f"{name:>17}" for name in servers) + f"{'ratio':>8}")
    for step in (*STEPS, "memory"):
        medians = [statistics.median(one[step] for one in sessions[name]) for name in servers]
        cells = "".join(f"{value:17.0f}" for value in medians)
        print(f"{step:12}{cells}{medians[0] / medians[-1]:8.2f}")
    print(f"import of the package mcp alone: {statistics.median(imports):.0f}")


if __name__ == "__main__":
    main()
