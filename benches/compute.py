"""How many times as fast integers are as float32, on one instruction set.

    ARROWEMBED_ISA=avx2 python benches/compute.py MODEL

MODEL has float weights. Rounds are interleaved in one process, ratios are medians over rounds.
"""

import argparse
import time
from pydoc_data import topics
from statistics import median

from arrowembed import Embedder, set_num_threads
from arrowembed.options import Compute

ROUNDS = 8
COMPUTE: tuple[Compute, ...] = ("float32", "float16", "bfloat16", "int16", "int8")


def seconds(model: Embedder, texts: list[str]) -> float:
    before = time.perf_counter()
    model.encode(texts)
    return time.perf_counter() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    set_num_threads(options.threads)

    words = " ".join(topics.topics.values()).split()

    def texts(length: int, count: int) -> list[str]:
        return [" ".join(words[i * length : (i + 1) * length]) for i in range(count)]

    kinds = {"short": [texts(6, 200)], "long": [texts(220, 10)], "one short": [texts(6, 1)] * 30}
    models = {name: Embedder(options.model, compute=name, cache_size=0) for name in COMPUTE}
    print(f"{models['int8'].info()['isa']}, {options.threads} thread(s)")
    for kind, calls in kinds.items():
        rounds = [
            {name: sum(seconds(model, call) for call in calls) for name, model in models.items()}
            for _ in range(ROUNDS)
        ]
        ratios = [
            f"{name} {median(times['float32'] / times[name] for times in rounds):.2f}"
            for name in COMPUTE[1:]
        ]
        print(f"{kind:10} {'  '.join(ratios)}")


if __name__ == "__main__":
    main()
