"""Runs the engines in rounds, one after the other in each, in another order each time."""

import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from peers.lines import Line
from peers.process import Worker, WorkerError
from peers.results import START, Accuracy, Memory, Results, Sample

T = TypeVar("T")

ENOUGH = 10.0
"""Seconds after which an engine is left out of the later rounds of a task."""

Texts = Mapping[str, tuple[list[str], int]]
"""By task: the texts, and how many tokens they have together."""
Golden = tuple[list[str], NDArray[np.float64], list[list[int]]]
"""Texts, their vectors in float64: (texts, dimension), and their token ids."""


class Engine:
    """A line that can be started."""

    def __init__(self, line: Line, python: Path, model: Path, log: Path) -> None:
        self.line = line
        self._python = python
        self._model = model
        self._log = log

    def start(self, threads: int, *, one: bool) -> Worker:
        settings = {
            "engine": self.line.engine,
            "model": str(self._model),
            "threads": threads,
            "one": one,
            "options": dict(self.line.options),
        }
        return Worker(self._python, settings, self._log)


class Bench:
    """Collects results.

    An engine that fails is noted and left out of the rest of the task; one that does not open, of
    everything that follows.
    """

    def __init__(self, engines: list[Engine], results: Results) -> None:
        self._engines = {engine.line.name: engine for engine in engines}
        self._results = results
        self._batches: dict[tuple[str, str], int] = {}

    def many(self, texts: Texts, threads: int, golden: Golden | None = None) -> None:
        """All texts of a set in one call, each engine with the batch size that is best for it."""
        with ExitStack() as stack:
            workers = self._start_all(stack, threads, one=False)
            if golden is not None:
                self._each(workers, "golden texts", partial(self._check, golden))
            for task, (passages, tokens) in texts.items():
                print(task, flush=True)
                self._each(workers, task, partial(self._find_batch, task, passages))
                samples = {
                    name: Sample(
                        name, task, threads, self._batches[name, task], len(passages), tokens
                    )
                    for name in workers
                }
                self._rounds(workers, samples, {"texts": passages})

    def one(self, texts: Texts, threads: int) -> None:
        """One text after the other, each in a call of its own."""
        with ExitStack() as stack:
            workers = self._start_all(stack, threads, one=True)
            for task, (passages, tokens) in texts.items():
                print(task, flush=True)
                samples = {
                    name: Sample(name, task, threads, 1, len(passages), tokens) for name in workers
                }
                self._rounds(workers, samples, {"texts": passages, "each": True})

    def starts(self, threads: int) -> None:
        """From starting a Python process to its first vector, nothing else running."""
        samples = {name: Sample(name, START, threads, 1, 1, 0) for name in self._engines}
        self._results.samples += samples.values()

        def start(name: str, engine: Engine) -> None:
            started = time.perf_counter()
            with engine.start(threads, one=True) as worker:
                worker.ready()
                samples[name].seconds.append(time.perf_counter() - started)

        engines = dict(self._engines)
        self._each(engines, START, start)
        for sample in samples.values():
            # The first process has brought the files into memory for the others.
            sample.seconds.clear()
        for number in range(self._results.rounds):
            self._each(shuffled(engines, number), START, start)

    def memory(self, texts: list[str], task: str, threads: int) -> None:
        """Of the second of two processes, which shares what it can with the first."""

        def measure(name: str, engine: Engine) -> None:
            with engine.start(threads, one=False) as first, engine.start(threads, one=False) as w:
                first.ready()
                loaded = w.ready()["loaded"]
                for worker in (first, w):
                    worker.ask(texts=texts, batch=self._batches[name, task])
                found = w.ask(memory=True)
                memory = Memory(loaded, found["resident"], found["private"])
                self._results.memory[name] = memory

        measured = {n: e for n, e in self._engines.items() if (n, task) in self._batches}
        self._each(measured, "memory", measure)

    def _start_all(self, stack: ExitStack, threads: int, *, one: bool) -> dict[str, Worker]:
        workers: dict[str, Worker] = {}

        def start(name: str, engine: Engine) -> None:
            worker = stack.enter_context(engine.start(threads, one=one))
            worker.ready()
            self._results.about[name] = worker.ask(about=True)
            workers[name] = worker

        self._each(self._engines, "opening", start)
        return workers

    def _check(self, golden: Golden, name: str, worker: Worker) -> None:
        texts, expected, ids = golden
        answer = worker.ask(vectors=texts, batch=8)
        self._results.accuracy[name] = compare(answer, expected, ids)

    def _find_batch(self, task: str, texts: list[str], name: str, worker: Worker) -> None:
        if (name, task) in self._batches:
            return
        sizes = self._engines[name].line.batches
        some = texts[: max(len(texts) // 2, *sizes)]
        if len(sizes) > 1:
            worker.ask(texts=some, batch=sizes[0])
        tried = {size: worker.ask(texts=some, batch=size)["seconds"][0] for size in sizes}
        self._batches[name, task] = min(tried, key=lambda size: tried[size])

    def _rounds(
        self, workers: dict[str, Worker], samples: dict[str, Sample], request: dict[str, Any]
    ) -> None:
        self._results.samples += samples.values()

        def measure(name: str, worker: Worker) -> None:
            sample = samples[name]
            if sum(sample.seconds) < ENOUGH:
                sample.seconds += worker.ask(**request, batch=sample.batch)["seconds"]

        for number in range(self._results.rounds):
            task = next((s.task for s in samples.values()), "")
            order = shuffled(workers, number)
            self._each(order, task, measure)
            for name in set(workers) - set(order):
                del workers[name]

    def _each(self, among: dict[str, T], what: str, do: Callable[[str, T], None]) -> None:
        """Does something with one after the other; takes those out that fail."""
        for name, item in list(among.items()):
            try:
                do(name, item)
            except WorkerError as error:
                self._results.failures.setdefault(name, f"{what}: {error}")
                print(f"{name}: {what}: {error}", flush=True)
                del among[name]


def shuffled(items: dict[str, T], seed: int) -> dict[str, T]:
    names = list(items)
    random.Random(seed).shuffle(names)
    return {name: items[name] for name in names}


def compare(
    answer: dict[str, Any], expected: NDArray[np.float64], ids: list[list[int]]
) -> Accuracy:
    """The vectors that a worker answered, with those of the reference."""
    each = [
        float(np.dot(row, wanted) / (np.linalg.norm(row) * np.linalg.norm(wanted)))
        if row is not None
        else None
        for row, wanted in zip(answer["vectors"], expected, strict=True)
    ]
    cosines = [cosine for cosine in each if cosine is not None]
    found = answer.get("ids")
    return Accuracy(
        mean=float(np.mean(cosines)) if cosines else 0.0,
        worst=min(cosines, default=0.0),
        below=sum(cosine < 0.99 for cosine in cosines),
        failed=len(expected) - len(cosines),
        together=answer.get("together"),
        each=each,
        right=None if found is None else [a == b for a, b in zip(found, ids, strict=True)],
    )
