"""How many times as fast two threads are as one, on batches of short, mixed and long texts.

    python benches/threads.py MODEL --compute float32 int16 int8

One and two threads take turns, once before and once after each other in every round, so that both
see the same machine. Ratios are medians over rounds; beside them is how many processors the
threads were running on.
"""

import argparse
import time
from statistics import median

from texts import text_set

from arrowembed import Embedder, set_num_threads

COUNTS = {"short": 400, "mixed": 42, "long": 22}
"""Texts of a call: half a second to a second of one thread."""


def seconds(model: Embedder, texts: list[str], threads: int) -> tuple[float, float]:
    """Of the call, and of all its threads together."""
    set_num_threads(threads)
    running = time.process_time()
    before = time.perf_counter()
    model.encode(texts)
    return time.perf_counter() - before, time.process_time() - running


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--compute", nargs="+", default=["float32"])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    models = {name: Embedder(options.model, compute=name, cache_size=0) for name in options.compute}
    isa = next(iter(models.values())).info()["isa"]
    print(f"{isa}, {options.rounds} rounds")
    for kind, count in COUNTS.items():
        texts = text_set(kind, count, next(iter(models.values())))
        for name, model in models.items():
            seconds(model, texts, 2)
            ratios, processors = [], []
            for _ in range(options.rounds):
                one, two, again, last = (seconds(model, texts, n) for n in (1, 2, 2, 1))
                ratios.append((one[0] + last[0]) / (two[0] + again[0]))
                processors.append((two[1] + again[1]) / (two[0] + again[0]))
            print(f"{kind:6} {name:8} {median(ratios):.2f} ({median(processors):.2f} processors)")


if __name__ == "__main__":
    main()
