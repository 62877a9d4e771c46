"""The service under load, beside the bare engine and other services.

    cd benches && python -m load [--rounds 3] [--seconds 15] [--clients wrk|locust] [--tei PROGRAM]

`make bench-load` calls it. Clients, service and engine share the machine; what clients take of it
is said beside the result. Linux only; wrk comes from the system's packages. `others.py` says which
services ours is compared with.
"""

import argparse
import http.client
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peers.report import table
from texts import text_set

from arrowembed import Embedder
from load.clients import Load, Measured, generator
from load.others import Other, others
from load.service import CORES, Service, own

ROOT = Path(__file__).parents[2]
CLIENTS = (1, 8, 64, 256)
TEXTS = 4096
FULL = Load(clients=64, texts=8)
"""By which the service is compared with the bare engine."""
BATCH = Load(clients=8, texts=32)


class Bench:
    """What all measurements need."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.home: Path = options.home
        self.model: Path = options.model
        self.seconds: int = options.seconds
        self.rounds: int = options.rounds
        self.logs = self.home / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.send = generator(options.clients, self.home)
        self.embedder = Embedder(self.model, cache_size=0)
        self.texts = text_set("short", TEXTS, self.embedder)
        self.bodies = {
            (texts, field): self._bodies(texts, field)
            for texts in (1, FULL.texts, BATCH.texts)
            for field in ("texts", "inputs")
        }

    def _bodies(self, texts: int, field: str) -> Path:
        """A file of all texts in requests of so many, in this field of a body."""
        file = self.home / f"load-{texts}-{field}.jsonl"
        parts = (self.texts[i : i + texts] for i in range(0, TEXTS, texts))
        file.write_text("".join(json.dumps({field: part}) + "\n" for part in parts))
        return file

    def load(self, service: Service, load: Load, field: str = "texts") -> Measured:
        """One measurement."""
        return self.send(service.url, load, self.bodies[load.texts, field], self.seconds)

    def engine_rate(self) -> float:
        """Texts a second of the bare engine, for as long as the service is asked."""
        started, texts = time.perf_counter(), 0
        while (seconds := time.perf_counter() - started) < self.seconds:
            self.embedder.encode(self.texts)
            texts += TEXTS
        return texts / seconds


def row(name: str, load: Load, measured: Measured) -> list[str]:
    rate = measured.requests_per_second
    numbers = [f"{rate:.0f}", f"{rate * load.texts:.0f}", f"{measured.p50:g}", f"{measured.p99:g}"]
    return [name, str(load.clients), str(load.texts), *numbers, str(measured.failures)]


def many_loads(bench: Bench) -> list[list[str]]:
    """All loads, with the cache and without, with one process and with two."""
    rows = []
    for workers in (1, 2):
        for cache in (0, TEXTS):
            processes = "1 process" if workers == 1 else f"{workers} processes"
            name = f"{'cached' if cache else 'computed'}, {processes}"
            arguments = ["--workers", str(workers), "--cache-entries", str(cache)]
            with own(bench.model, bench.logs / "load-own.log", *arguments) as service:
                loads = [*(Load(clients, 1) for clients in CLIENTS), BATCH]
                if cache:
                    # Each process is to know all texts, and which it gets is chance.
                    for _ in range(1 if workers == 1 else 4):
                        bench.load(service, FULL)
                rows += [row(name, load, bench.load(service, load)) for load in loads]
    return rows


@dataclass(frozen=True)
class Comparison:
    """The bare engine and the service at full load, in rounds, each of both in turns."""

    start_seconds: float
    engine: list[float]
    """Texts a second, as the next; of each round the mean of those before and after the service."""
    served: list[float]
    shares: dict[str, float]
    """Parts of the processors' time while clients asked, by what took them."""

    @property
    def ratio(self) -> float:
        """How much of the engine's rate the service has; the median of rounds."""
        return statistics.median(s / e for s, e in zip(self.served, self.engine, strict=True))


def against_engine(bench: Bench) -> Comparison:
    """How much of the engine's rate the service has, and what takes the processors meanwhile."""
    engine, served = [], []
    taken = {"clients": 0.0}
    available = 0.0
    with own(bench.model, bench.logs / "load-own.log", "--cache-entries", "0") as service:
        bench.load(service, FULL)
        rates = [bench.engine_rate()]
        for _ in range(bench.rounds):
            before, started = service.cpu_seconds(), time.perf_counter()
            measured = bench.load(service, FULL)
            available += CORES * (time.perf_counter() - started)
            taken["clients"] += measured.cpu_seconds
            for name, seconds in service.cpu_seconds().items():
                taken[name] = taken.get(name, 0.0) + seconds - before[name]
            served.append(FULL.texts * measured.requests_per_second)
            # What clients have left behind is not the engine's. It is asked before and after,
            # because a machine that others share is another a minute later.
            time.sleep(1)
            rates.append(bench.engine_rate())
            engine.append((rates[-2] + rates[-1]) / 2)
    shares = {name: seconds / available for name, seconds in taken.items()}
    shares["nobody or others"] = 1 - sum(shares.values())
    return Comparison(service.start_seconds, engine, served, shares)


def overhead(bench: Bench) -> tuple[float, float]:
    """Milliseconds of one short text by the bare engine and by the service, one at a time, p50."""
    engine: list[float] = []
    served: list[float] = []

    def timed(into: list[float], work: Callable[[], object]) -> None:
        started = time.perf_counter()
        work()
        into.append(1e3 * (time.perf_counter() - started))

    with own(bench.model, bench.logs / "load-own.log", "--cache-entries", "0") as service:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)

        def request(text: str) -> None:
            body = json.dumps({"texts": [text]})
            connection.request("POST", "/embed", body, {"content-type": "application/json"})
            connection.getresponse().read()

        # In turns, so that both see the same machine.
        for text in bench.texts[:400]:
            timed(engine, partial(bench.embedder.encode, [text]))
            timed(served, partial(request, text))
    return statistics.median(engine), statistics.median(served)


def beside(bench: Bench, other: Other) -> list[list[str]]:
    """Our service and another, each load in turns; medians of rounds."""
    loads = (Load(1, 1), Load(64, 1), FULL, BATCH)
    ours: dict[Load, list[float]] = {load: [] for load in loads}
    theirs: dict[Load, list[float]] = {load: [] for load in loads}
    for _ in range(bench.rounds):
        with own(bench.model, bench.logs / "load-own.log", "--cache-entries", "0") as service:
            for load in loads:
                measured = bench.load(service, load, other.field)
                ours[load].append(load.texts * measured.requests_per_second)
        with other.running(bench.logs / f"load-{other.name}.log") as service:
            for load in loads:
                measured = bench.load(service, load, other.field)
                theirs[load].append(load.texts * measured.requests_per_second)
    rows = []
    for load in loads:
        mine, its = statistics.median(ours[load]), statistics.median(theirs[load])
        numbers = [str(load.clients), str(load.texts), f"{mine:.0f}", f"{its:.0f}"]
        # Within a very short load it may have answered nothing.
        rows.append([other.name, *numbers, f"{mine / its:.2f}" if its else "-"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--home", type=Path, default=ROOT / ".peers")
    parser.add_argument("--rounds", type=int, default=3)
    # What is under way when a load ends is not counted: as much as clients send at once.
    parser.add_argument("--seconds", type=int, default=15, help="for each load")
    parser.add_argument("--clients", choices=("wrk", "locust"), default="wrk")
    parser.add_argument("--tei", type=Path, help="text-embeddings-router, to be compared with")
    options = parser.parse_args()
    if options.tei is not None and not options.tei.is_file():
        parser.error(f"--tei: there is no program {options.tei}")
    bench = Bench(options)

    compared = against_engine(bench)
    engine, served = statistics.median(compared.engine), statistics.median(compared.served)
    print(f"ready {1e3 * compared.start_seconds:.0f} ms after the start of the process")
    print(f"{FULL.clients} clients with {FULL.texts} texts a request, nothing from the cache:")
    print(f"  {served:.0f} texts/s, {compared.ratio:.2f} of the bare engine's {engine:.0f}")
    shares = (f"{name} {share:.3f}" for name, share in compared.shares.items())
    print(f"  processors: {', '.join(shares)}")
    alone, requested = overhead(bench)
    print("one short text at a time, p50:")
    print(f"  {requested:.2f} ms, {requested - alone:.2f} more than the bare engine's {alone:.2f}")
    header = ["beside", "clients", "texts", "texts/s", "its texts/s", "times"]
    rows = [row for other in others(bench.home, options.tei) for row in beside(bench, other)]
    print(f"\n{table(header, rows)}")
    header = ["", "clients", "texts", "requests/s", "texts/s", "p50, ms", "p99, ms", "failed"]
    print(f"\n{table(header, many_loads(bench))}")


if __name__ == "__main__":
    main()
