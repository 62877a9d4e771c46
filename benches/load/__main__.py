"""The service under load, beside the bare engine and a service of FastAPI and fastembed.

    cd benches && python -m load [--rounds 3] [--seconds 15] [--clients wrk|locust]

`make bench-load` calls it. Clients, service and engine share the machine; what clients take of it
is said beside the result. Linux only; wrk comes from the system's packages.
"""

import argparse
import http.client
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peers import environments
from peers.models import Models
from peers.report import table
from texts import text_set

from arrowembed import Embedder
from arrowembed_converter import sources
from load.clients import REQUIREMENTS, Load, Measured, generator
from load.service import CORES, Service, own, running

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
        self.bodies = {texts: self._bodies(texts) for texts in (1, FULL.texts, BATCH.texts)}

    def _bodies(self, texts: int) -> Path:
        file = self.home / f"load-{texts}.jsonl"
        parts = (self.texts[i : i + texts] for i in range(0, TEXTS, texts))
        file.write_text("".join(json.dumps({"texts": part}) + "\n" for part in parts))
        return file

    def load(self, service: Service, load: Load) -> Measured:
        """One measurement."""
        return self.send(service.url, load, self.bodies[load.texts], self.seconds)

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
                    # Once through all texts, in each process.
                    bench.load(service, BATCH)
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


def beside_fastembed(bench: Bench) -> tuple[float, float]:
    """Texts a second of our service and of fastembed's at full load."""
    python = environments.python(bench.home, "fastembed-service", REQUIREMENTS)
    source = sources.locate("all-MiniLM-L6-v2")
    model = Models(bench.home, {"source": source}).find("onnx/fused")
    command = [str(python), "-m", "uvicorn", "load.fastembed_service:app", "--port", "{port}"]
    command += ["--log-level", "warning"]
    variables = {
        "FASTEMBED_MODEL": str(model),
        "FASTEMBED_THREADS": str(len(os.sched_getaffinity(0))),
        "HF_HUB_OFFLINE": "1",
    }
    ours, theirs = [], []
    for _ in range(bench.rounds):
        with own(bench.model, bench.logs / "load-own.log", "--cache-entries", "0") as service:
            ours.append(FULL.texts * bench.load(service, FULL).requests_per_second)
        with running(command, bench.logs / "load-fastembed.log", **variables) as service:
            theirs.append(FULL.texts * bench.load(service, FULL).requests_per_second)
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="load", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--home", type=Path, default=ROOT / ".peers")
    parser.add_argument("--rounds", type=int, default=3)
    # What is under way when a load ends is not counted: as much as clients send at once.
    parser.add_argument("--seconds", type=int, default=15, help="for each load")
    parser.add_argument("--clients", choices=("wrk", "locust"), default="wrk")
    bench = Bench(parser.parse_args())

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
    ours, theirs = beside_fastembed(bench)
    print(f"beside FastAPI and fastembed: {ours:.0f} and {theirs:.0f} texts/s, {ours / theirs:.1f}")
    header = ["", "clients", "texts", "requests/s", "texts/s", "p50, ms", "p99, ms", "failed"]
    print(f"\n{table(header, many_loads(bench))}")


if __name__ == "__main__":
    main()
