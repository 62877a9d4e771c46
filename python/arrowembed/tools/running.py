"""Work on threads of its own, which whoever waits for it may stop waiting for.

Python cannot end a thread. Work that was given up is told so: embedding stops between two
micro-batches, a tool that asks `is_cancelled` as soon as it asks, all other work goes on to its
end, and what it gives is dropped.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

from arrowembed.progress import cancelled_by, is_cancelled

__all__ = ["Workers", "in_forked_child", "is_cancelled"]

T = TypeVar("T")


Work: TypeAlias = Callable[[], Callable[[], None]]
"""What a thread does; it gives what is to be done last, which hands the result over."""

_MAX_IDLE = 8
"""Threads that are kept for the next work: the engine has memory for each thread at hand."""

_idle: deque[SimpleQueue[Work]] = deque()
"""Where those threads wait."""


class Workers:
    """Threads for work; none keeps the process from ending.

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

        def run() -> Callable[[], None]:
            try:
                with cancelled_by(cancelled):
                    finish = partial(future.set_result, work())
            except BaseException as error:  # noqa: BLE001 - handed on to whoever waits
                finish = partial(future.set_exception, error)
            free.release()
            return finish

        try:
            _inbox().put(partial(context.run, run))
        except RuntimeError:
            # The system has no more threads, or the process is ending.
            free.release()
            return None
        return future

    def _renew(self) -> None:
        self._free = threading.BoundedSemaphore(self._limit)


def _inbox() -> SimpleQueue[Work]:
    """That of a thread which waits for work.

    Raises:
        RuntimeError: There is none, and none can be started.
    """
    try:
        return _idle.pop()
    except IndexError:
        inbox: SimpleQueue[Work] = SimpleQueue()
        name = "arrowembed-tool"
        threading.Thread(target=_serve, args=(inbox,), name=name, daemon=True).start()
        return inbox


def _serve(inbox: SimpleQueue[Work]) -> None:
    """What a thread does: work, and wait for more unless enough others do."""
    stays = True
    while stays:
        finish = inbox.get()()
        # Before the result is there: who gets it may have the next work at once.
        stays = len(_idle) < _MAX_IDLE
        if stays:
            _idle.append(inbox)
        finish()
        del finish  # and the result with it


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


if hasattr(os, "register_at_fork"):
    # The child has none of the threads.
    os.register_at_fork(after_in_child=_idle.clear)
