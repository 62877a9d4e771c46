"""Engines side by side: interleaved rounds on the same texts and threads, medians and ratios.

    python benches/compare.py arrowembed=MODEL onnxruntime=FOLDER@PYTHON …

`MODEL` is what the engine opens, `PYTHON` the interpreter that has it installed (default: this
one). The first engine named is the one that the others are compared with.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from texts import text_set

WORKER = Path(__file__).parent / "peers" / "worker.py"
COUNTS = {"short": 400, "mixed": 150, "long": 48}
PROBES = ["A first text.", "", "Ein Text mit Umläuten: äöü.", "long " * 400]


class Worker:
    """An engine in its own process."""

    def __init__(self, spec: str, threads: int) -> None:
        self.name, _, rest = spec.partition("=")
        model, _, python = rest.partition("@")
        variables = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
        self.process = subprocess.Popen(
            [python or sys.executable, str(WORKER), self.name, model, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
        )
        self.ready = self.read()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **request: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.read()


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    norms = sum(x * x for x in a) * sum(y * y for y in b)
    return float(dot / norms**0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="+", metavar="ENGINE=MODEL[@PYTHON]")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    options = parser.parse_args()

    workers = [Worker(spec, options.threads) for spec in options.engines]
    first = workers[0]
    reference = first.ask(vectors=PROBES)["vectors"]
    for worker in workers[1:]:
        vectors = worker.ask(vectors=PROBES)["vectors"]
        worst = min(cosine(a, b) for a, b in zip(reference, vectors, strict=True))
        print(f"{worker.name}: worst cosine to {first.name} on {len(PROBES)} texts {worst:.7f}")

    print(f"\n{options.threads} threads, medians of {options.rounds} interleaved rounds")
    print(f"{'texts':<12}{'engine':<24}{'batch':>6}{'texts/s':>10}{'ratio':>8}")
    tasks = [(kind, text_set(kind, count), False) for kind, count in COUNTS.items()]
    # Twenty calls of one text each: threads of other engines that still spin slow the first ones.
    tasks += [(f"one {kind}", text_set(kind, 20), True) for kind in ("short", "long")]
    for kind, texts, one in tasks:
        batches = [1] if one else options.batches
        request = {"texts": texts, "one": one}
        best = {}
        for worker in workers:
            tried = {b: worker.ask(**request, batch=b)["seconds"] for b in batches * 2}
            best[worker] = min(tried, key=lambda b: tried[b])
        seconds: dict[Worker, list[float]] = {worker: [] for worker in workers}
        for _ in range(options.rounds):
            for worker in workers:
                seconds[worker].append(worker.ask(**request, batch=best[worker])["seconds"])
        own = statistics.median(seconds[first])
        for worker in workers:
            median = statistics.median(seconds[worker])
            rate, ratio = (1 if one else len(texts)) / median, median / own
            print(f"{kind:<12}{worker.name:<24}{best[worker]:>6}{rate:>10.0f}{ratio:>8.2f}")
    print("ratio: how many times the first engine's time this one takes")


if __name__ == "__main__":
    main()
