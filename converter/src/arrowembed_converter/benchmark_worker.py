"""One system in a process of its own, driven over standard input by `benchmark`.

    python -m arrowembed_converter.benchmark_worker SYSTEM MODEL THREADS

It writes a line of JSON once it has computed a first vector, and then one for each line it reads:
`{"batches": [[text, …], …]}` is answered with the seconds that each batch took.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from arrowembed_converter import peers

FIRST_TEXT = "A first text."


def main(system: str, model: str, threads: int) -> None:
    """Serves until standard input ends."""
    before = time.perf_counter()
    try:
        encoder = peers.load(system, model, threads)
        opened = time.perf_counter()
        encoder.encode([FIRST_TEXT])
    except Exception as error:  # noqa: BLE001 - a peer may raise anything
        _answer(error=str(error) or type(error).__name__)
        return
    first = time.perf_counter()
    _answer(open=opened - before, first=first - opened, resident_bytes=resident_bytes())
    for line in sys.stdin:
        seconds = []
        for batch in json.loads(line)["batches"]:
            before = time.perf_counter()
            encoder.encode(batch)
            seconds.append(time.perf_counter() - before)
        _answer(seconds=seconds, resident_bytes=resident_bytes())


def resident_bytes() -> int | None:
    """This process's memory, the pages of mapped files that it has touched included."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = status.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def _answer(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
