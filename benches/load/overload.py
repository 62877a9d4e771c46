"""Ten times as many texts as the service can embed, for a minute: what becomes of them.

    cd benches && python -m load.overload [--seconds 60] [--times 10]

Ends with status 1 if an answer was wrong, or anything but an answer or a refusal came.
"""

import argparse
import asyncio
import base64
import statistics
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import orjson
from texts import text_set

from arrowembed import Embedder
from load.service import Service, own

ROOT = Path(__file__).parents[2]
TEXTS = 100
"""In a request."""
REQUESTS = 40
"""That are different."""


class Overload:
    """Requests that are sent whether or not the earlier ones are answered."""

    def __init__(self, service: Service, texts: list[str], vectors: np.ndarray) -> None:
        self.service = service
        parts = [texts[i : i + TEXTS] for i in range(0, len(texts), TEXTS)]
        self.bodies = [orjson.dumps({"texts": part, "encoding": "base64"}) for part in parts]
        self.expected = [vectors[i : i + TEXTS] for i in range(0, len(texts), TEXTS)]
        self.seconds: dict[int, list[float]] = {}
        self.failures: Counter[str] = Counter()
        self.resident: list[int] = []

    async def run(self, per_second: float, seconds: float) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=1000)
        async with (
            httpx.AsyncClient(base_url=self.service.url, timeout=120, limits=limits) as client,
            asyncio.TaskGroup() as tasks,
        ):
            started = time.perf_counter()
            for number in range(int(per_second * seconds)):
                if number % int(per_second) == 0:
                    self.resident.append(self.service.resident())
                ahead = started + number / per_second - time.perf_counter()
                await asyncio.sleep(max(0.0, ahead))
                tasks.create_task(self._send(client, number % len(self.bodies)))

    async def _send(self, client: httpx.AsyncClient, which: int) -> None:
        started = time.perf_counter()
        try:
            answer = await client.post(
                "/embed", content=self.bodies[which], headers={"content-type": "application/json"}
            )
        except httpx.HTTPError as error:
            self.failures[type(error).__name__] += 1
            return
        self.seconds.setdefault(answer.status_code, []).append(time.perf_counter() - started)
        if answer.status_code == 200:
            rows = [base64.b64decode(row) for row in orjson.loads(answer.content)["embeddings"]]
            vectors = np.frombuffer(b"".join(rows), "<f4").reshape(TEXTS, -1)
            if not np.array_equal(vectors, self.expected[which]):
                self.failures["wrong vectors"] += 1
        elif answer.status_code != 429:
            self.failures[f"status {answer.status_code}"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--log", type=Path, default=ROOT / ".peers" / "logs" / "overload.log")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--times", type=float, default=10)
    options = parser.parse_args()
    options.log.parent.mkdir(parents=True, exist_ok=True)
    embedder = Embedder(options.model, cache_size=0)
    texts = text_set("short", TEXTS * REQUESTS, embedder)
    started = time.perf_counter()
    vectors = embedder.encode(texts)
    capacity = len(texts) / (time.perf_counter() - started)
    with own(options.model, options.log, "--cache-entries", "0") as service:
        overload = Overload(service, texts, vectors)
        per_second = options.times * capacity / TEXTS
        asyncio.run(overload.run(per_second, options.seconds))
        after = service.resident()
    print(f"{per_second:.0f} requests of {TEXTS} texts a second, {options.times:g} times what")
    print(f"the engine can do, for {options.seconds:g} s")
    for status, seconds in sorted(overload.seconds.items()):
        p50, p99 = (1e3 * q for q in np.quantile(seconds, [0.5, 0.99]))
        print(f"status {status}: {len(seconds)} answers, p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    answered = TEXTS * len(overload.seconds.get(200, [])) / options.seconds
    print(f"embedded: {answered:.0f} texts/s, {answered / capacity:.2f} of the engine's")
    median, most = statistics.median(overload.resident), max(overload.resident)
    print(f"memory: {median / 1e6:.0f} MB, at most {most / 1e6:.0f}, afterwards {after / 1e6:.0f}")
    print(f"failures: {dict(overload.failures) or 'none'}")
    if overload.failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
