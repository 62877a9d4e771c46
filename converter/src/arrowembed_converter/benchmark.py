"""How large, how quick and how hungry: the engine, and another package beside it.

Every system runs in processes of its own, so that neither imports nor threads nor memory mix, and
rounds are interleaved, so that a busy moment of the machine hits all of them.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics
from types import TracebackType
from typing import Any, Self

from arrowembed import models
from arrowembed.errors import ArrowEmbedError
from arrowembed_converter import sources

STARTS = 5
"""Fresh processes for the start-up times."""
SINGLES = 60
"""Texts that are encoded one by one, in each round."""
BATCH = 32
BATCHES = 4
"""Batches in each round."""


class WorkerError(ArrowEmbedError):
    """A system's process could not open its model or ended."""

    code = "worker"


@dataclass(frozen=True)
class System:
    """What is measured: one of `peers.SYSTEMS`, and the model it opens."""

    name: str
    model: str


@dataclass(frozen=True)
class Measurement:
    """Medians of one system; times in milliseconds."""

    system: str
    model: str
    size_mb: float | None
    """Weights on the disk; None where the peer keeps them itself."""
    start_to_first_vector_ms: float
    """From starting a Python process to the first vector, imports included."""
    open_ms: float
    """Opening the model, its package's import included."""
    first_inference_ms: float
    resident_mb: float | None
    """Memory of the process after the first vector."""
    resident_after_mb: float | None
    """Memory of the process after all rounds."""
    latency_p50_ms: float
    latency_p99_ms: float
    batch_ms: float
    """32 sentences in one call."""
    texts_per_second: float
    """Over those batches."""


@dataclass(frozen=True)
class Benchmark:
    """The measurements, the engine's first."""

    threads: int
    rounds: int
    measurements: list[Measurement]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def __str__(self) -> str:
        width = max(16, *(len(m.system) + 2 for m in self.measurements))
        pair = len(self.measurements) == 2
        header = f"{'':30}" + "".join(f"{m.system:>{width}}" for m in self.measurements)
        lines = [header + (f"{'ratio':>10}" if pair else "")]
        for title, field, unit in _ROWS:
            values = [getattr(m, field) for m in self.measurements]
            cells = ["-" if value is None else f"{value:.1f} {unit}" for value in values]
            line = f"{title:30}" + "".join(f"{cell:>{width}}" for cell in cells)
            if pair and None not in values:
                line += f"{values[1] / values[0]:>10.2f}"
            lines.append(line)
        lines.append(
            f"{self.threads} threads; medians of {self.rounds} interleaved rounds, {STARTS} starts"
        )
        return "\n".join(lines)


_ROWS = (
    ("weights", "size_mb", "MB"),
    ("process start to first vector", "start_to_first_vector_ms", "ms"),
    ("open", "open_ms", "ms"),
    ("first inference", "first_inference_ms", "ms"),
    ("memory after the first vector", "resident_mb", "MB"),
    ("memory after all rounds", "resident_after_mb", "MB"),
    ("one sentence, p50", "latency_p50_ms", "ms"),
    ("one sentence, p99", "latency_p99_ms", "ms"),
    (f"{BATCH} sentences", "batch_ms", "ms"),
    ("sentences per second", "texts_per_second", "/s"),
)


def benchmark_model(
    model: str,
    *,
    against: str | None = None,
    peer_model: str | None = None,
    threads: int | None = None,
    rounds: int = 7,
) -> Benchmark:
    """Measures the engine on a model, and a peer on the same texts.

    Args:
        model: Name or path of a model.
        against: One of `peers.PEERS`.
        peer_model: What the peer opens; None is the folder the model came from, looked up by its
            name (fastembed: the name itself).
        threads: To compute on; None is one for each core.
        rounds: How often everything is measured.

    Raises:
        WorkerError: A system could not open its model, for example because it is not installed.
    """
    threads = threads or os.cpu_count() or 1
    path = models.find(model)
    systems = [System("arrowembed", str(path))]
    if against is not None:
        systems.append(System(against, peer_model or _peer_model(against, model)))
    return measure(systems, threads, rounds)


def measure(systems: Sequence[System], threads: int, rounds: int) -> Benchmark:
    """Measures systems side by side."""
    texts = sentences()
    singles = [[text] for text in texts[:SINGLES]]
    batches = [texts[start : start + BATCH] for start in range(0, BATCH * BATCHES, BATCH)]
    # A system's first process is not measured: it brings the files into the page cache.
    starts = [[_start(system, threads) for system in systems] for _ in range(STARTS + 1)][1:]
    single_seconds: list[list[float]] = [[] for _ in systems]
    batch_seconds: list[list[float]] = [[] for _ in systems]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(system, threads)) for system in systems]
        for worker in workers:
            worker.seconds(batches)
        for _ in range(rounds):
            for i, worker in enumerate(workers):
                single_seconds[i] += worker.seconds(singles)
                batch_seconds[i] += worker.seconds(batches)
        after = [worker.resident_bytes for worker in workers]
    return Benchmark(
        threads,
        rounds,
        [
            _summary(system, [s[i] for s in starts], single_seconds[i], batch_seconds[i], after[i])
            for i, system in enumerate(systems)
        ],
    )


def sentences() -> list[str]:
    """Prose that every machine has: Python's language reference, cut into sentences."""
    prose = " ".join(" ".join(topics[name] for name in sorted(topics)).split())
    cut = re.split(r"(?<=[a-z)][.:])\s+(?=[A-Z])", re.sub(r"[*`]+", "", prose))
    return [sentence for sentence in cut if 30 <= len(sentence) <= 200]


class Worker:
    """A system in its own process; see `benchmark_worker`."""

    def __init__(self, system: System, threads: int) -> None:
        self._system = system
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our module
            [
                *(sys.executable, "-m", "arrowembed_converter.benchmark_worker"),
                *(system.name, system.model, str(threads)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        self.ready: dict[str, Any] = {}
        self.resident_bytes: int | None = None

    def __enter__(self) -> Self:
        try:
            self.ready = self._read()
        except WorkerError:
            self._process.communicate()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._process.kill()
        self._process.communicate()

    def seconds(self, batches: list[list[str]]) -> list[float]:
        """How long each batch took."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        self._process.stdin.write(json.dumps({"batches": batches}) + "\n")
        self._process.stdin.flush()
        return list(self._read()["seconds"])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"{self._system.name} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self._system.name}: {answer['error']}")
        self.resident_bytes = answer["resident_bytes"]
        return answer


def _start(system: System, threads: int) -> dict[str, Any]:
    before = time.perf_counter()
    with Worker(system, threads) as worker:
        return {**worker.ready, "start": time.perf_counter() - before}


def _summary(
    system: System,
    starts: list[dict[str, Any]],
    singles: list[float],
    batches: list[float],
    resident_after: int | None,
) -> Measurement:
    def median_ms(field: str) -> float:
        return 1000 * float(statistics.median(start[field] for start in starts))

    resident = [start["resident_bytes"] for start in starts]
    batch = statistics.median(batches)
    return Measurement(
        system=system.name,
        model=system.model,
        size_mb=_size_mb(Path(system.model)),
        start_to_first_vector_ms=median_ms("start"),
        open_ms=median_ms("open"),
        first_inference_ms=median_ms("first"),
        resident_mb=None if None in resident else statistics.median(resident) / 1e6,
        resident_after_mb=None if resident_after is None else resident_after / 1e6,
        latency_p50_ms=1000 * statistics.median(singles),
        latency_p99_ms=1000 * statistics.quantiles(singles, n=100)[98],
        batch_ms=1000 * batch,
        texts_per_second=BATCH / batch,
    )


def _peer_model(peer: str, model: str) -> str:
    if peer == "fastembed":
        return models.repo_id(model)
    return str(sources.locate(sources.default_name(model)))


def _size_mb(path: Path) -> float | None:
    if not path.exists():
        return None
    onnx = [file for file in (path / "model.onnx", path / "onnx" / "model.onnx") if file.is_file()]
    return sum(file.stat().st_size for file in onnx or sources.weights_files(path)) / 1e6
