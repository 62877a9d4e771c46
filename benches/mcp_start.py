"""How long a host waits for a server of the Model Context Protocol, from the start of its process.

    python benches/mcp_start.py MODEL

Beside `arrowembed mcp`, in turns: the smallest server that the package `mcp` makes, with one tool
that does nothing, and the import of that package alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping

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


def session(command: list[str], call: Mapping[str, object]) -> dict[str, float]:
    """Seconds from the start of the process to the answer of each request, and for its end."""
    started = time.perf_counter()
    seconds = {}
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
            seconds[method] = time.perf_counter() - started
            if method == "initialize":
                initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
                process.stdin.write(json.dumps(initialized).encode() + b"\n")
        ending = time.perf_counter()
        process.stdin.close()
        process.wait()
        seconds["exit"] = time.perf_counter() - ending
    return seconds


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
    smallest = [sys.executable, "-c", SMALLEST]
    compare = {"name": "similarity", "arguments": {"a": ["a warm day"], "b": ["sunny weather"]}}

    mine, theirs, imports = [], [], []
    for _ in range(options.rounds):
        mine.append(session(ours, compare))
        theirs.append(session(smallest, {"name": "nothing", "arguments": {}}))
        imports.append(import_alone())

    print(f"milliseconds from the start of the process, medians of {options.rounds} rounds")
    print(f"{'':12}{'arrowembed mcp':>16}{'smallest server':>18}{'ratio':>8}")
    for step in STEPS:
        a = 1e3 * statistics.median(seconds[step] for seconds in mine)
        b = 1e3 * statistics.median(seconds[step] for seconds in theirs)
        print(f"{step:12}{a:16.0f}{b:18.0f}{a / b:8.2f}")
    print(f"import of the package mcp alone: {1e3 * statistics.median(imports):.0f}")


if __name__ == "__main__":
    main()
