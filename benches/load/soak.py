"""A quarter of an hour of mixed requests, good and bad: does the memory of the service grow?

cd benches && python -m load.soak [--minutes 15]
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from texts import text_set

from arrowembed import Embedder
from arrowembed.store import open_store
from load.service import Service, own

Samples = np.ndarray[Any, np.dtype[np.float64]]

ROOT = Path(__file__).parents[2]
CLIENTS = 16
WARM_UP = 120.0
"""Seconds that are not looked at, at most a third of all: pools reach their sizes."""
CACHED = 10_000
"""Vectors that the service keeps; before the time begins, its cache is filled."""


def request(chance: random.Random, texts: list[str]) -> tuple[str, Any]:
    """A path and a body; one in ten is refused."""
    some = chance.choices(texts, k=chance.choice((1, 1, 2, 8, 32)))
    new = [f"{text} {chance.random()}" for text in some]
    kinds: list[tuple[str, Any]] = [
        ("/tokenize", {"texts": some}),
        ("/similarity", {"source": some[0], "targets": some}),
        ("/embed", {"inputs": some}),
        ("/embed", {"texts": some * 4, "encoding": "base64"}),
        ("/embed", {"texts": [None]}),
        ("/search", {"query": some[0], "k": 5, "filter": {"number": {"$gte": 10}}}),
        ("/embed_all", {"inputs": some[:2], "truncate": True}),
        *[("/embed", {"texts": new})] * 3,
    ]
    return chance.choice(kinds)


class Soak:
    """Clients that go on until it is time to stop."""

    def __init__(self, service: Service, texts: list[str], seconds: float) -> None:
        self.service, self.texts, self.seconds = service, texts, seconds
        self.statuses: Counter[str] = Counter()
        self.samples: list[tuple[float, int, int]] = []
        """Seconds, bytes of memory, and how many of these are of no file."""

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self.service.url, timeout=60) as client:
            await self._fill_cache(client)
            started = time.monotonic()
            clients = [asyncio.create_task(self._client(client, n)) for n in range(CLIENTS)]
            while (now := time.monotonic() - started) < self.seconds:
                memory = self.service.resident(), self.service.resident("Pss_Anon")
                self.samples.append((now, *memory))
                await asyncio.sleep(5)
            for task in clients:
                task.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _fill_cache(self, client: httpx.AsyncClient) -> None:
        for first in range(0, CACHED, 100):
            some = (self.texts[i % len(self.texts)] for i in range(first, first + 100))
            new = [f"{text} {first + i}" for i, text in enumerate(some)]
            answer = await client.post("/embed", json={"texts": new})
            answer.raise_for_status()

    async def _client(self, client: httpx.AsyncClient, number: int) -> None:
        chance = random.Random(number)
        while True:
            path, body = request(chance, self.texts)
            # Some give up before the answer can be there.
            patience = 0.002 if chance.random() < 0.05 else 60
            try:
                answer = await client.post(path, json=body, timeout=patience)
                self.statuses[str(answer.status_code)] += 1
            except httpx.TimeoutException:
                self.statuses["given up"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--log", type=Path, default=ROOT / ".peers" / "logs" / "soak.log")
    parser.add_argument("--minutes", type=float, default=15)
    options = parser.parse_args()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    embedder = Embedder(options.model)
    texts = text_set("mixed", 2000, embedder)
    with tempfile.TemporaryDirectory() as folder:
        with open_store(Path(folder) / "texts", model=embedder) as store:
            ids = [str(number) for number in range(len(texts))]
            store.add(ids, texts, metadata=[{"number": number} for number in range(len(texts))])
        with own(options.model, options.log, "--store", f"{folder}/texts") as service:
            soak = Soak(service, texts, 60 * options.minutes)
            asyncio.run(soak.run())
    warm = min(WARM_UP, soak.seconds / 3)
    times, sizes, own_sizes = np.array([s for s in soak.samples if s[0] >= warm]).T
    print(f"{sum(soak.statuses.values())} requests in {options.minutes:g} minutes:")
    print("  " + ", ".join(f"{name}: {n}" for name, n in sorted(soak.statuses.items())))
    print(f"memory from {sizes.min() / 1e6:.1f} to {sizes.max() / 1e6:.1f} MB:")
    for name, of_kind in (("all", sizes), ("what is of no file", own_sizes)):
        half = len(times) // 2
        slopes = [hourly(times, of_kind), hourly(times[half:], of_kind[half:])]
        medians = [np.median(part) / 1e6 for part in np.array_split(of_kind, 4)]
        print(f"  {name}, medians of quarters: {', '.join(f'{m:.1f}' for m in medians)}")
        print(f"    slope {slopes[0]:+.1f} MB an hour, of the second half {slopes[1]:+.1f}")


def hourly(times: Samples, sizes: Samples) -> float:
    """Megabytes an hour, by least squares."""
    return float(np.polyfit(times, sizes, 1)[0] * 3600 / 1e6)


if __name__ == "__main__":
    main()
