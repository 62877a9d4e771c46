"""Exact search beside FAISS, LanceDB and a loop that only reads; `make bench-index` calls it.

    cd benches && python -m index [--rows 10000 1000000] [--rounds 7]

Every engine has a process of its own, which stands still while another is measured; rounds are
interleaved. The vectors are random and of length one, so that dot products and cosines are the
same. Linux only.
"""

import argparse
import contextlib
import os
import signal
import statistics
import sys
from pathlib import Path

import numpy as np
from peers import environments, machine
from peers.lines import OWN
from peers.process import Worker, WorkerError
from peers.report import table

from index.engines import ENGINES

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
COUNTS = (1, 64)
"""Queries of a search."""
K = 10
REFERENCE = "arrowembed float32"


def vectors(folder: Path, rows: int, dim: int) -> Path:
    """A folder with random vectors and queries, made where there is none yet."""
    folder = folder / f"index-{rows}x{dim}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "queries.npy").exists():
        random = np.random.default_rng(0)

        def unit(n: int) -> np.ndarray:
            numbers: np.ndarray = random.standard_normal((n, dim), dtype=np.float32)
            numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
            return numbers

        np.save(folder / "vectors.npy", unit(rows))
        np.save(folder / "queries.npy", unit(max(COUNTS)))
    return folder


def brute_force(folder: Path, count: int) -> np.ndarray:
    """The rows of the largest products in double precision."""
    numbers, queries = (
        np.load(folder / "vectors.npy", mmap_mode="r"),
        np.load(folder / "queries.npy"),
    )
    queries = queries[:count].astype(np.float64)
    best = np.full((count, K), -np.inf)
    rows = np.zeros((count, K), dtype=np.int64)
    step = 1 << 15
    for first in range(0, len(numbers), step):
        products = queries @ numbers[first : first + step].T.astype(np.float64)
        here = np.arange(first, first + products.shape[1])
        products = np.concatenate([best, products], axis=1)
        candidates = np.concatenate([rows, np.broadcast_to(here, (count, len(here)))], axis=1)
        order = np.argpartition(-products, K - 1, axis=1)[:, :K]
        best = np.take_along_axis(products, order, axis=1)
        rows = np.take_along_axis(candidates, order, axis=1)
    return np.take_along_axis(rows, np.argsort(-best, axis=1), axis=1)


def blas_kernels() -> dict[str, str]:
    """The best that this machine runs: FAISS's OpenBLAS knows few processors by itself."""
    instructions = machine.describe()["instructions"].split()
    for needed, kernels in (("avx512f", "SkylakeX"), ("avx2", "Haswell")):
        if needed in instructions:
            return {"OPENBLAS_CORETYPE": kernels}
    return {}


def measure(folder: Path, options: argparse.Namespace) -> str:
    """A table for one number of vectors."""
    peers = environments.python(options.home, "peers", REQUIREMENTS)
    seconds: dict[tuple[str, int], list[float]] = {}
    rows: dict[tuple[str, int], np.ndarray] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in options.engines:
            own = name.startswith((OWN, "read"))
            settings = {"engine": name, "folder": str(folder), "threads": options.threads}
            worker = Worker(
                environments.python(options.home, OWN) if own else peers,
                settings,
                options.home / "logs" / f"index-{'-'.join(name.split())}.log",
                module="index.worker",
                variables={
                    "LANCE_CPU_THREADS": str(options.threads),
                    "OPENBLAS_NUM_THREADS": str(options.threads),
                    **blas_kernels(),
                },
                without=("OPENBLAS_L2_SIZE",),
            )
            workers[name] = stack.enter_context(worker)
            print(f"{folder.name}: {name}", flush=True)
            worker.ready()
        for _ in range(options.rounds):
            for count in COUNTS:
                for name, worker in workers.items():
                    answer = worker.ask(count=count, k=K)
                    seconds.setdefault((name, count), []).append(answer["seconds"])
                    rows[name, count] = np.array(answer["rows"])

    def cells(name: str) -> list[str]:
        found = []
        for count in COUNTS:
            here, ours = (statistics.median(seconds[n, count]) for n in (name, REFERENCE))
            same = "-"
            if name != "read":
                same = f"{(rows[name, count] == expected[:count]).mean():.1%}"
            found += [f"{1e3 * here:.2f}", f"{here / ours:.2f}", same]
        return found

    expected = brute_force(folder, max(COUNTS))
    header = [""]
    for count in COUNTS:
        header += [f"{count} queries: ms" if count > 1 else "1 query: ms", "ratio", "rows"]
    return table(header, ([name, *cells(name)] for name in options.engines))


def main() -> None:
    parser = argparse.ArgumentParser(prog="index", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engines", nargs="*", default=list(ENGINES), help="none: all of them")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--home", type=Path, default=ROOT / ".peers")
    options = parser.parse_args()
    if unknown := set(options.engines) - set(ENGINES):
        parser.error(f"no engine {', '.join(sorted(unknown))}; known are {', '.join(ENGINES)}")
    if REFERENCE not in options.engines:
        options.engines.insert(0, REFERENCE)
    # Ended like that, too, it ends the engines' processes, which may be standing still.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    (options.home / "logs").mkdir(parents=True, exist_ok=True)
    parts = ["# Exact search side by side"]
    parts.append(
        f"Medians of {options.rounds} interleaved rounds, {options.threads} threads, k = {K}. "
        f"Ratios are times as multiples of {REFERENCE}'s; rows are those that are the same as in "
        "float64, in the same place. `read` only reads the float32 vectors."
    )
    parts.append(table(["machine", ""], machine.describe().items()))
    for rows in options.rows:
        try:
            found = measure(vectors(options.home, rows, options.dim), options)
        except (environments.SetupError, WorkerError) as error:
            raise SystemExit(f"index: {error}") from None
        parts += [f"## {rows} vectors of {options.dim} numbers", found]
    page = "\n\n".join(parts) + "\n"
    (options.home / "index.md").write_text(page)
    print(f"\n{page}\nwritten to {options.home}/index.md")


if __name__ == "__main__":
    main()
