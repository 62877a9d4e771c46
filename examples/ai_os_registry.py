"""The tools of an AI operating system: one registry, many agents, each with rights of its own.

    python examples/ai_os_registry.py

Agents run at the same time. One may only read; one calls a tool that takes too long; the system
sees who used what, and no text.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Collection
from pathlib import Path
from shutil import disk_usage
from typing import Any

from arrowembed.tools import EmbeddingTool, ToolRegistry, tool
from arrowembed.tools.definition import Scope

NOTES = [
    "The backup runs every night at two.",
    "The printer on the second floor is out of toner.",
    "Anna is on leave until the end of May.",
]


@tool(scope="read", title="Free disk space", open_world=False, timeout=5)
def disk_space(folder: str = "/") -> dict[str, float]:
    """Tells how much room there is on a disk, in gigabytes.

    Args:
        folder: Any folder on it.
    """
    usage = disk_usage(folder)
    return {"free": round(usage.free / 1e9, 1), "total": round(usage.total / 1e9, 1)}


@tool(scope="read", title="Wait", open_world=False, timeout=0.2, example={"seconds": 0.1})
async def wait(seconds: float) -> str:
    """Waits, as a slow service would.

    Args:
        seconds: How long.
    """
    await asyncio.sleep(seconds)
    return "done"


class Agent:
    """A program that uses tools within its rights.

    Args:
        name: For the output.
        registry: The tools of the system.
        grants: What it may do.
    """

    def __init__(self, name: str, registry: ToolRegistry, grants: Collection[Scope]) -> None:
        self.name, self._registry, self._grants = name, registry, grants

    async def use(self, tool: str, **arguments: Any) -> None:
        """Calls a tool and prints what came of it."""
        outcome = await self._registry.acall(tool, arguments, grants=self._grants)
        if outcome["ok"]:
            print(f"{self.name}: {tool} -> {str(outcome['result'])[:100]}")
        else:
            error = outcome["error"]
            print(f"{self.name}: {tool} -> {error['code']}: {error['message']}. {error['hint']}")


async def run(registry: ToolRegistry) -> None:
    """Several agents at once."""
    librarian = Agent("librarian", registry, ["read", "write"])
    guest = Agent("guest", registry, ["read"])
    await librarian.use("memory_remember", texts=NOTES, metadata={"source": "notes"})
    await asyncio.gather(
        guest.use("memory_search", query="Who is away?", k=1),
        guest.use("memory_forget", filter={"source": "notes"}),  # it may not
        guest.use("memory_serach", query="printer"),  # there is no such tool
        guest.use("memory_search", query="printer", k="two"),  # no number
        librarian.use("disk_space"),
        librarian.use("wait", seconds=10),  # longer than it may take
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    options = parser.parse_args()

    registry = ToolRegistry(timeout=30)
    registry.register(disk_space, wait)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddingTool(options.model, Path(folder) / "store") as embedding,
    ):
        registry.register(embedding, prefix="memory_")
        for found in registry.discover():  # what installed packages offer
            print(f"{found.package}: {', '.join(found.tools) or found.error}")
        print("tools:", ", ".join(tool.name for tool in registry.tools()))
        print("for guests:", ", ".join(tool.name for tool in registry.tools(["read"])), "\n")
        asyncio.run(run(registry))
    print(f"\n{'tool':<18}{'calls':>6}{'ms':>8}{'in':>7}{'out':>7}  errors")
    for name, usage in registry.metrics().items():
        print(
            f"{name:<18}{usage['calls']:>6}{1000 * usage['seconds']:>8.1f}{usage['input_bytes']:>7}"
            f"{usage['output_bytes']:>7}  {usage['errors'] or ''}"
        )


if __name__ == "__main__":
    main()
