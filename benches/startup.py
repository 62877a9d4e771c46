"""How long until the first vector: in a started process, and from the start of a process.

python benches/startup.py MODEL [--against sentence-transformers=FOLDER@PYTHON]
"""

import argparse
import statistics
import subprocess
import sys
import time

IN_PROCESS = """
import sys, time
import numpy
from arrowembed import Embedder, _core
start = time.perf_counter()
model = Embedder(sys.argv[1])
opened = time.perf_counter()
model.encode("The first text.")
print(opened - start, time.perf_counter() - start)
"""

PROCESSES = {
    "arrowembed": (
        "import sys; from arrowembed import Embedder; "
        "Embedder(sys.argv[1]).encode('The first text.')"
    ),
    "sentence-transformers": (
        "import sys; from sentence_transformers import SentenceTransformer; "
        "SentenceTransformer(sys.argv[1], device='cpu').encode('The first text.')"
    ),
}


def process_seconds(engine: str, model: str, python: str) -> float:
    started = time.perf_counter()
    subprocess.run([python, "-c", PROCESSES[engine], model], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--against", action="append", default=[], metavar="ENGINE=MODEL@PYTHON")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()

    opened, first = [], []
    for _ in range(options.rounds):
        done = subprocess.run(
            [sys.executable, "-c", IN_PROCESS, options.model],
            check=True,
            capture_output=True,
            text=True,
        )
        a, b = map(float, done.stdout.split())
        opened.append(a)
        first.append(b)
    print(f"medians of {options.rounds} fresh processes")
    print(f"open (map the file, read the tokenizer)   {1e3 * statistics.median(opened):8.1f} ms")
    print(f"open to first vector, process started     {1e3 * statistics.median(first):8.1f} ms")

    engines = [("arrowembed", options.model, sys.executable)]
    for spec in options.against:
        engine, _, rest = spec.partition("=")
        model, _, python = rest.partition("@")
        engines.append((engine, model, python or sys.executable))
    seconds: dict[str, list[float]] = {engine: [] for engine, _, _ in engines}
    for _ in range(options.rounds):
        for engine, model, python in engines:
            seconds[engine].append(process_seconds(engine, model, python))
    own = statistics.median(seconds["arrowembed"])
    for engine, times in seconds.items():
        median = statistics.median(times)
        label = f"process start to exit, one vector: {engine:<22}"
        print(f"{label} {median:7.3f} s  {median / own:5.1f}x")


if __name__ == "__main__":
    main()
