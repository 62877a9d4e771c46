"""Compares engines; `make bench-peers` calls it.

    python -m peers --model models/all-MiniLM-L6-v2 onnxruntime fastembed

Needs Linux, for memory and for the cores that a process may use.
"""

import argparse
import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from texts import cut, text_set, token_counts

from arrowembed import Embedder
from arrowembed_converter import sources
from peers import environments, limit, lines, machine
from peers.measure import Bench, Engine, Golden, Texts
from peers.models import Models
from peers.report import report
from peers.results import MANY, Results

ROOT = Path(__file__).parents[2]
COUNTS = {"short": 384, "mixed": 96, "long": 32}
SINGLES = {12: 20, 128: 10}
"""How many texts of so many tokens come one by one in a round."""


def golden() -> Golden:
    folder = ROOT / "tests" / "data" / "golden"
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    ids = json.loads((folder / "token_ids.json").read_text(encoding="utf-8"))["ids"]
    return texts, np.load(folder / "embeddings_f64.npy"), ids


def set_up(chosen: list[lines.Line], models: Models, home: Path, results: Results) -> list[Engine]:
    """Environments and models; who cannot be set up is noted."""
    engines = []
    for number, line in enumerate(chosen):
        try:
            python = environments.python(home, line.engine)
            model = models.find(line.model)
        except environments.SetupError as error:
            results.failures[line.name] = f"setting up: {error}"
            print(f"{line.name}: {error}", flush=True)
            continue
        engines.append(Engine(line, python, model, home / "logs" / f"line-{number}.log"))
    return engines


def main() -> None:
    if sys.platform != "linux":
        raise SystemExit("engines are compared on Linux only")
    parser = argparse.ArgumentParser(prog="peers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("peers", nargs="*", help="engines or lines; none: all of them")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--source", default="all-MiniLM-L6-v2", help="the Hugging Face folder")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=MANY, default=MANY)
    parser.add_argument("--home", type=Path, default=ROOT / ".peers")
    parser.add_argument("--avx2", action="store_true", help="as if the processor had nothing newer")
    options = parser.parse_args()
    try:
        chosen = lines.chosen(options.peers)
    except ValueError as error:
        parser.error(str(error))

    # Ended like that, too, it ends the engines' processes, which may be standing still.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    (options.home / "logs").mkdir(parents=True, exist_ok=True)
    try:
        limited = limit.library(options.home) if options.avx2 else None
    except environments.SetupError as error:
        raise SystemExit(str(error)) from None
    embedder = Embedder(options.model)

    def counted(texts: list[str]) -> tuple[list[str], int]:
        return texts, sum(token_counts(texts, embedder))

    sets: Texts = {kind: counted(text_set(kind, COUNTS[kind], embedder)) for kind in options.kinds}
    singles: Texts = {
        f"{tokens} tokens": counted(cut([tokens] * count, embedder))
        for tokens, count in SINGLES.items()
    }
    results = Results(machine.describe(), options.threads, options.rounds)
    results.lines = [line.name for line in chosen]
    source = sources.locate(options.source)
    models = Models(options.home, {"arrow": options.model.absolute(), "source": source})
    engines = set_up(chosen, models, options.home, results)
    if limited:
        os.environ["LD_PRELOAD"] = str(limited)
        results.machine["instructions"] += "; engines that ask are told of none after AVX2"
    bench = Bench(engines, results)

    try:
        for threads in sorted({options.threads, 1}, reverse=True):
            print(f"threads: {threads}", flush=True)
            bench.many(sets, threads, golden() if threads == options.threads else None)
            bench.one(singles, threads)
        print("start and memory", flush=True)
        bench.starts(options.threads)
        task = "mixed" if "mixed" in sets else options.kinds[0]
        bench.memory(sets[task][0], task, options.threads)
    finally:
        # What has been measured until an interruption is worth having, too.
        page = report(results)
        raw = json.dumps(dataclasses.asdict(results), indent=1)
        (options.home / "results.json").write_text(raw)
        (options.home / "report.md").write_text(page)
        print(f"\n{page}\nwritten to {options.home}/report.md and results.json")


if __name__ == "__main__":
    main()
