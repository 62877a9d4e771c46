"""Threads for what takes too long for the event loop, and a line before them that has an end."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from arrowembed.server.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Workers:
    """Does work on threads, in the order in which it comes.

    Args:
        name: Of the threads.
        threads: How many there are at most.
        most_waiting: How much may wait for one of them; more is refused.
    """

    def __init__(self, name: str, threads: int, most_waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._most = threads + most_waiting
        self.accepted = 0
        """What waits or is being done, and is wanted."""

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives. Whoever gives up waiting has it dropped, unless it has begun.

        Raises:
            ServiceError: Too much is waiting (`queue_full`), or it is closed (`closed`).
        """
        if self.accepted >= self._most:
            raise ServiceError("queue_full", "too much is waiting")
        try:
            future = self._executor.submit(work)
        except RuntimeError as error:
            raise ServiceError("closed", "the server is shutting down") from error
        self.accepted += 1
        try:
            return await asyncio.wrap_future(future)
        finally:
            self.accepted -= 1

    async def close(self) -> None:
        """Takes nothing more, and waits for what was taken."""
        await asyncio.to_thread(self._executor.shutdown)
