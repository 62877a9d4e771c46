"""Work on threads of its own, which whoever waits for it may stop waiting for.

Python cannot end a thread. Work that was given up is told so: embedding stops between two
micro-batches, a tool that asks `is_cancelled` as soon as it asks, all other work goes on to its
end, and what it gives is dropped.
"""

from __future__ import annotations

import os
import threading
import weakref
from concurrent.futures import Future
from contextvars import copy_context
from typing import TYPE_CHECKING, TypeVar

from arrowembed.progress import cancelled_by, is_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Workers", "in_forked_child", "is_cancelled"]

T = TypeVar("T")


class Workers:
    """Threads, each for one piece of work; none keeps the process from ending.

    Args:
        limit: Most pieces of work at a time, counting those that were given up and go on.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._renew()
        in_forked_child(self._renew)

    def start(self, work: Callable[[], T], cancelled: threading.Event) -> Future[T] | None:
        """Starts work, unless there is too much already.

        Args:
            work: Sees the caller's context variables.
            cancelled: To be set when nobody waits any longer.
        """
        free = self._free
        if not free.acquire(blocking=False):
            return None
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        context = copy_context()

        def run() -> None:
            try:
                with cancelled_by(cancelled):
                    result = work()
            except BaseException as error:  # noqa: BLE001 - handed on to whoever waits
                free.release()
                future.set_exception(error)
            else:
                free.release()
                future.set_result(result)

        thread = threading.Thread(
            target=context.run, args=(run,), name="arrowembed-tool", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:
            # The system has no more threads, or the process is ending.
            free.release()
            future.set_exception(error)
        return future

    def _renew(self) -> None:
        self._free = threading.BoundedSemaphore(self._limit)


def in_forked_child(renew: Callable[[], None]) -> None:
    """Has a method make new locks in a forked child, as long as its object is there.

    What another thread held when the process was forked would never be released in the child.
    """
    if hasattr(os, "register_at_fork"):
        method = weakref.WeakMethod(renew)

        def renew_if_there() -> None:
            bound = method()
            if bound is not None:
                bound()

        os.register_at_fork(after_in_child=renew_if_there)
