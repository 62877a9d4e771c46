"""What the calls of a store take, lightweight beside LanceDB without an index, in turns in one run.

    python benches/stores.py [--entries 100000] [--dimension 384] [--rounds 30]

Medians in milliseconds, and how many times as long LanceDB takes. Writes include waiting for the
disk, so the folder (`--folder`) should lie on the one that you mean. The last lines are of
processes that open the store, which imports what it needs, and search it once: time, and memory
that is theirs alone (Linux only).
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from arrowembed.store import Store, open_store
from arrowembed.store.description import BACKENDS

OPENING = """
import json, sys, time
import numpy as np
from arrowembed.store import open_store

def own():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1e3 for line in file if line.startswith("RssAnon"))

before, started = own(), time.perf_counter()
store = open_store(sys.argv[1])
opened = time.perf_counter()
store.search(np.ones(store.description.dimension))
searched = time.perf_counter()
print(json.dumps([1e3 * (opened - started), 1e3 * (searched - opened), own() - before]))
"""
LANGUAGES = ("en", "de", "fr", "ja")


def fill(store: Store, count: int, rng: np.random.Generator) -> None:
    for start in range(0, count, 10_000):
        stop = min(start + 10_000, count)
        store.add(**entries([f"{i}" for i in range(start, stop)], store, rng))
    store.compact()


def entries(ids: list[str], store: Store, rng: np.random.Generator) -> dict[str, Any]:
    vectors = rng.standard_normal((len(ids), store.description.dimension), dtype=np.float32)
    return {
        "ids": ids,
        "texts": [f"The text of entry {name}, which is a sentence of some words." for name in ids],
        "vectors": vectors,
        "metadata": [{"n": i, "lang": LANGUAGES[i % len(LANGUAGES)]} for i in range(len(ids))],
    }


def calls(store: Store, count: int) -> dict[str, Callable[[int], object]]:
    """What is measured, of the number of the round."""
    rng = np.random.default_rng(1)
    query = rng.standard_normal(store.description.dimension, dtype=np.float32)
    some = {"lang": "de", "n": {"$lt": 100}}
    return {
        "add one": lambda i: store.add(**entries([f"one {i}"], store, rng)),
        "add 1000": lambda i: store.add(
            **entries([f"many {i} {j}" for j in range(1_000)], store, rng)
        ),
        "upsert one": lambda i: store.upsert(**entries([f"{i}"], store, rng)),
        "delete one": lambda i: store.delete([f"{count - 1 - i}"]),
        "get one by id": lambda i: store.get([f"{count // 2 + i}"]),
        "search": lambda _: store.search(query),
        "search 1 of 4": lambda _: store.search(query, filter={"lang": "de"}),
        "search 1 of 400": lambda _: store.search(query, filter=some),
        "search 64 at once": lambda _: store.search_batch(np.tile(query, (64, 1))),
        "count 1 of 4": lambda _: store.count({"lang": "de"}),
    }


def measured(stores: dict[str, Store], count: int, rounds: int) -> dict[str, dict[str, float]]:
    named = {name: calls(store, count) for name, store in stores.items()}
    medians: dict[str, dict[str, float]] = {}
    for call in next(iter(named.values())):
        times: dict[str, list[float]] = {name: [] for name in stores}
        for i in range(rounds):
            for name in stores:
                started = time.perf_counter()
                named[name][call](i)
                times[name].append(1e3 * (time.perf_counter() - started))
        medians[call] = {name: statistics.median(found) for name, found in times.items()}
    return medians


def opening(stores: dict[str, Store], rounds: int) -> dict[str, dict[str, float]]:
    found: dict[str, list[list[float]]] = {name: [] for name in stores}
    for _ in range(rounds):
        for name, store in stores.items():
            done = subprocess.run(
                [sys.executable, "-c", OPENING, store.path], stdout=subprocess.PIPE, check=True
            )
            found[name].append(json.loads(done.stdout))
    titles = ("open", "first search", "own memory, MB")
    return {
        title: {
            name: statistics.median(run[position] for run in runs) for name, runs in found.items()
        }
        for position, title in enumerate(titles)
    }


def show(rows: dict[str, dict[str, float]]) -> None:
    for title, values in rows.items():
        first, *others = values.values()
        ratios = " | ".join(f"{other:.2f} | {other / first:.1f}" for other in others)
        print(f"| {title} | {first:.2f} | {ratios} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="where the stores are made")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        stores: dict[str, Store] = {
            backend: open_store(
                Path(folder) / backend, dimension=options.dimension, backend=backend
            )
            for backend in BACKENDS
        }
        for store in stores.values():
            fill(store, options.entries, np.random.default_rng(0))
        print("| ms | lightweight | LanceDB | ratio |\n|---|---|---|---|")
        show(measured(stores, options.entries, options.rounds))
        if sys.platform == "linux":
            show(opening(stores, max(1, options.rounds // 5)))
        for store in stores.values():
            store.close()


if __name__ == "__main__":
    main()
