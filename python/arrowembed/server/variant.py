"""One model in memory: how it comes there, is replaced, and goes.

All of it runs on one event loop; only the opening of files is done on a thread. What is asked of a
model while it is replaced is answered by the old one or by the new one, and never refused.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from arrowembed.embedder import Embedder
from arrowembed.errors import ClosedError
from arrowembed.scheduler import Scheduler
from arrowembed.server.errors import ServiceError
from arrowembed.server.watch import files_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from arrowembed.server.observe.metrics import Metrics
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.watch import Files

logger = logging.getLogger("arrowembed.server")

T = TypeVar("T")

MAIN = "main"
"""Name of the variant of a model that has only one."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in memory, with the queue in front of it."""

    name: str
    variant: str
    embedder: Embedder
    scheduler: Scheduler
    load_seconds: float
    files: Files
    """What it was loaded from."""

    @property
    def label(self) -> str:
        """The name by which requests get this very variant."""
        return f"{self.name}@{self.variant}"


class Variant:
    """A place for a model: empty, or with the one that answers at present."""

    def __init__(
        self,
        name: str,
        variant: str,
        *,
        source: str,
        opening: dict[str, Any],
        limits: ServerSettings,
        metrics: Metrics,
    ) -> None:
        self.name, self.variant = name, variant
        self.label = name if variant == MAIN else f"{name}@{variant}"
        """What metrics and logs call it."""
        self.current: ServedModel | None = None
        self.failed = False
        """Whether the last attempt to load it failed."""
        self._source, self._opening, self._limits = source, opening, limits
        self._metrics = metrics
        self._changing = asyncio.Lock()
        self._loading: asyncio.Task[ServedModel] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def state(self) -> str:
        """How it stands: loaded, loading, failed or unloaded."""
        if self.current is not None:
            return "loaded"
        if self._loading is not None:
            return "loading"
        return "failed" if self.failed else "unloaded"

    async def get(self) -> ServedModel:
        """The model, loaded if it was not."""
        return self.current or await self.load()

    async def load(self) -> ServedModel:
        """Loads the model once, however many ask. Raises `ServiceError` if that fails."""
        if self._loading is None:
            self._loading = self._start(self._load())
        # Whoever gives up waiting does not stop it for the others.
        return await asyncio.shield(self._loading)

    async def reload(self) -> None:
        """Puts the model, opened anew, in the place of the old one, which stays if that fails."""
        await asyncio.shield(self._start(self._replace()))

    async def unload(self) -> None:
        """Lets go of the model, once it has answered what it was asked."""
        async with self._changing:
            old, self.current = self.current, None
        if old is not None:
            self._start(old.scheduler.drain())

    async def close(self) -> None:
        """Takes nothing more, waits for what was taken, and for no model that is being loaded."""
        self._closed = True
        if self.current is not None:
            await self.current.scheduler.drain()

    async def _load(self) -> ServedModel:
        try:
            async with self._changing:
                if self.current is None:
                    self.current = await self._open()
                return self.current
        finally:
            self._loading = None

    async def _replace(self) -> None:
        async with self._changing:
            new = await self._open()
            old, self.current = self.current, new
        if old is not None:
            self._start(old.scheduler.drain())

    async def _open(self) -> ServedModel:
        start = time.perf_counter()
        try:
            embedder, files = await _on_a_thread(lambda: _open(self._source, self._opening))
        except Exception as error:
            self.failed = True
            logger.exception("model %s (%s) could not be loaded", self.name, self.variant)
            raise ServiceError(
                "model_unavailable",
                f"model {self.name!r} could not be loaded; the server's log says why",
            ) from error
        if self._closed:
            raise ClosedError("the server is shutting down")
        self.failed = False
        seconds = time.perf_counter() - start
        logger.info("model %s (%s) loaded in %.3f s", self.name, self.variant, seconds)
        self._metrics.model_load.labels(self.label).observe(seconds)
        scheduler = Scheduler(
            embedder,
            max_queued_texts=self._limits.max_queued_texts,
            max_queued_tokens=self._limits.max_queued_tokens,
            on_batch=partial(self._metrics.batch, self.label),
        )
        return ServedModel(self.name, self.variant, embedder, scheduler, seconds, files)

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs something that must not be given up when those who wait for it are gone."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            # What failed was logged; asyncio wants it to be looked at.
            task.exception()


def check_options(served: ServedModel, options: Mapping[str, Any]) -> None:
    """Refuses what this model has not, in the words of requests.

    Args:
        served: The model.
        options: As for `Scheduler.encode`.

    Raises:
        ServiceError: It has not so many dimensions, or no such prompt.
    """
    dimensions, has = options.get("truncate_dim"), served.embedder.dimension
    if dimensions is not None and dimensions > has:
        message = f"dimensions: {dimensions}; {served.name} has {has}"
        raise ServiceError("invalid_request", message, field="dimensions")
    prompt_name = options.get("prompt_name")
    if prompt_name is not None and prompt_name not in (prompts := served.embedder.prompts):
        known = ", ".join(prompts) or "none"
        message = f"prompt_name: {served.name} has no such prompt; known are {known}"
        raise ServiceError("unknown_prompt", message, field="prompt_name")


def _open(source: str, opening: dict[str, Any]) -> tuple[Embedder, Files]:
    embedder = Embedder(source, **opening)
    return embedder, files_of(embedder.path)


async def _on_a_thread(work: Callable[[], T]) -> T:
    """What `work` gives on a thread for which the process does not wait when it ends.

    To fetch or pack a model can take minutes; `asyncio.to_thread` would keep the process for them.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - whoever awaits it gets it
            future.set_exception(error)

    threading.Thread(target=run, name="arrowembed-load", daemon=True).start()
    return await asyncio.wrap_future(future)
