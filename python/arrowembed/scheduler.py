"""`Scheduler`: the texts of many asyncio tasks, computed together.

What is computed when is decided by the engine in Rust. Here its answers find their way back into
the event loop of the task that awaits them.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from arrowembed import _core
from arrowembed.texts import as_texts

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from arrowembed._core import QueueInfo
    from arrowembed.embedder import Embedder
    from arrowembed.options import Normalize, Pooling
    from arrowembed.texts import Texts

    _Answer = tuple[NDArray[np.float32], _core.EncodeStats, float, float]


@dataclass(frozen=True, slots=True)
class Encoded:
    """The vectors of a request, and what they took."""

    vectors: NDArray[np.float32]
    """Shape (n, dim), in the order of the texts."""
    tokens: int
    """Of all texts, after truncation."""
    truncated: int
    """Texts that were longer than the model's limit and were cut."""
    cache_hits: int
    """Texts whose vector was in the cache."""
    queue_seconds: float
    """Until the first text was taken; 0 if the cache had all."""
    compute_seconds: float
    """From then until the last vector was there."""


class Scheduler:
    """Computes the texts of many tasks together, as soon as a thread is free.

    Requests queue and take turns, so that a small one need not wait for all texts of a large one.
    Vectors are those that `Embedder.encode` gives. Any number of event loops may use one; a forked
    child has an empty queue of its own.

    Args:
        embedder: The model. If it is of an `EmbeddingEngine`, it stays in memory as long as the
            scheduler is used.
        max_queued_texts: Most texts that may wait; more are refused at once.
        max_queued_tokens: The same in tokens, of which a text has as many as its bytes let expect.
        on_batch: Called with the texts and tokens of what was computed at a time, on a thread of
            the scheduler.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        max_queued_texts: int = 4096,
        max_queued_tokens: int = 1_000_000,
        on_batch: Callable[[int, int], object] | None = None,
    ) -> None:
        self._embedder = embedder
        self._start = partial(
            embedder.queue,
            max_queued_texts=max_queued_texts,
            max_queued_tokens=max_queued_tokens,
            on_batch=on_batch,
        )
        # Each process has its own, also one that is forked: threads do not survive a fork. Those
        # of a parent are kept as they are, because to drop one waits for its threads.
        self._of_process = {os.getpid(): self._started()}

    def _started(self) -> _core.Scheduler:
        core = self._start()
        weakref.finalize(self, _close, core, os.getpid())
        return core

    @property
    def _core(self) -> _core.Scheduler:
        process = os.getpid()
        core = self._of_process.get(process)
        if core is None:
            core = self._of_process.setdefault(process, self._started())
        return core

    async def encode(
        self,
        sentences: Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pooling: Pooling | None = None,
        normalize: Normalize | None = None,
        truncate: bool = True,
    ) -> Encoded:
        """Embeds texts when it is their turn.

        If the task is cancelled, for example by `asyncio.timeout`, what has not been computed is
        dropped.

        Args:
            sentences: One text or several, as for `Embedder.encode`.
            prompt_name: This and all others as for `Embedder.encode`.
            prompt: As above.
            normalize_embeddings: As above.
            truncate_dim: As above.
            pooling: As above, without "none".
            normalize: As above.
            truncate: As above.

        Raises:
            QueueFullError: No more may wait.
            ClosedError: The scheduler was drained.
            ArrowEmbedError: As `Embedder.encode`, whose other errors are raised, too.
        """
        texts = [sentences] if isinstance(sentences, str) else as_texts(sentences)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Answer] = loop.create_future()
        request = self._embedder.request(
            prompt_name,
            prompt,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pooling=pooling,
            normalize=normalize,
            truncate=truncate,
        )
        submitted = self._core.submit(texts, partial(_tell, loop, future), **request)
        if isinstance(submitted, _core.Ticket):
            try:
                vectors, stats, queued, computed = await future
            except asyncio.CancelledError:
                submitted.cancel()
                raise
        else:
            vectors, stats, queued, computed = submitted
        self._embedder.warn_of_truncation(stats)
        return Encoded(
            vectors, stats["tokens"], stats["truncated"], stats["cache_hits"], queued, computed
        )

    def info(self) -> QueueInfo:
        """How much waits and is being computed, and the limits."""
        return self._core.info()

    async def drain(self, timeout: float | None = None) -> bool:
        """Takes no more requests and waits until all that were accepted have ended.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.

        Returns:
            Whether all have ended.
        """
        return await asyncio.to_thread(self._core.drain, timeout)


def _tell(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[_Answer],
    answer: _Answer | None,
    error: Exception | None,
) -> None:
    """Wakes the task that waits. Runs on a thread of the scheduler."""
    # The loop may have been closed; then nobody waits any more.
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(_resolve, future, answer, error)


def _resolve(
    future: asyncio.Future[_Answer], answer: _Answer | None, error: Exception | None
) -> None:
    if future.done():
        return
    if answer is not None:
        future.set_result(answer)
    elif error is not None:
        future.set_exception(error)


def _close(core: _core.Scheduler, process: int) -> None:
    """Ends the thread that calls into Python, which must not once the interpreter ends."""
    if os.getpid() == process:
        core.close()
