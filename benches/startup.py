"""How long until the first vector: in a started process, and from the start of a process.

    python benches/startup.py MODEL

`make bench-peers` has the same for other engines.
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

PROCESS = """
import sys
from arrowembed import Embedder
Embedder(sys.argv[1]).encode("The first text.")
"""


def run(program: str, model: str) -> str:
    command = [sys.executable, "-c", program, model]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()

    opened, first, whole = [], [], []
    for _ in range(options.rounds):
        a, b = map(float, run(IN_PROCESS, options.model).split())
        opened.append(a)
        first.append(b)
        started = time.perf_counter()
        run(PROCESS, options.model)
        whole.append(time.perf_counter() - started)
    print(f"medians of {options.rounds} fresh processes")
    print(f"open (map the file, read the tokenizer)   {1e3 * statistics.median(opened):8.1f} ms")
    print(f"open to first vector, process started     {1e3 * statistics.median(first):8.1f} ms")
    print(f"process start to exit, one vector         {1e3 * statistics.median(whole):8.1f} ms")


if __name__ == "__main__":
    main()
