"""What a call as a tool takes beyond the call itself, and how large the process is.

    python benches/tools.py MODEL

Each line compares one text's call of the engine or the store with the same through a tool, in
turns, in one process. The engine's cache is on and the text is in it, so that the difference is not
lost in the time that computing takes; the last lines compute.
"""

import argparse
import asyncio
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from arrowembed import Embedder
from arrowembed.store import open_store
from arrowembed.tools import EmbeddingTool, ToolRegistry

TEXT = "The cat has been asleep on the windowsill all afternoon."
ENTRIES = 1000


async def measured(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of the calls in microseconds, made in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            result = call()
            if isinstance(result, Awaitable):
                await result
            times[name].append(time.perf_counter() - started)
    return {name: 1e6 * statistics.median(found) for name, found in times.items()}


def show(title: str, medians: dict[str, float]) -> None:
    """Prints each call, and by how much it is slower than the first."""
    bare = next(iter(medians.values()))
    print(title)
    for name, median in medians.items():
        print(f"  {name:<34}{median:>9.0f} us{median - bare:>+9.0f} us")


def resident() -> float:
    """Peak of resident memory in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def through_tools(
    embedding: EmbeddingTool, registry: ToolRegistry, action: str, arguments: dict[str, Any]
) -> dict[str, Callable[[], object]]:
    """The ways to call a tool."""
    return {
        "execute": lambda: embedding.execute(action, arguments),
        "registry, no limit in time": lambda: registry.call(action, arguments, timeout=None),
        "registry": lambda: registry.call(action, arguments),
        "registry, asyncio": lambda: registry.acall(action, arguments),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=2001)
    options = parser.parse_args()

    model = Embedder(options.model)
    uncached = Embedder(options.model, cache_size=0)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_store(Path(folder) / "store", model=model) as store,
    ):
        store.add([str(n) for n in range(ENTRIES)], [f"{TEXT} {n}" for n in range(ENTRIES)])
        embedding, computing = EmbeddingTool(model, store), EmbeddingTool(uncached)
        registry, computed = ToolRegistry(), ToolRegistry()
        registry.register(embedding)
        computed.register(computing)
        one, query = {"texts": [TEXT]}, {"query": TEXT}
        for title, bare, tools, action, arguments in (
            ("embed", lambda: model.encode([TEXT]), (embedding, registry), "embed", one),
            (
                f"search in {ENTRIES} entries",
                lambda: store.search(TEXT, 5),
                (embedding, registry),
                "search",
                query,
            ),
            (
                "embed, computed",
                lambda: uncached.encode([TEXT]),
                (computing, computed),
                "embed",
                one,
            ),
        ):
            calls = {"bare": bare, **through_tools(*tools, action, arguments)}
            show(title, asyncio.run(measured(calls, options.rounds)))
    print(f"peak of resident memory {resident():.0f} MB")


if __name__ == "__main__":
    main()
