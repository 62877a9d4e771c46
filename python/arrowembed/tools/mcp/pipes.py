"""Standard input and output as lines, before and within an event loop.

Both are read and written by threads that do not keep the process from ending: a thread that waits
for a client's next line, or for a client that does not read, cannot be stopped. Whatever else reads
or writes standard input and output meanwhile gets nothing, and standard error.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

MAX_LINE_BYTES: Final = 16 << 20
"""Of one message; of a longer one only the beginning is passed on, which is no JSON then."""

_CHUNK: Final = 1 << 16
_WAITING: Final = 64
"""Messages that are read ahead of whoever takes them."""


def claim() -> tuple[int, int]:
    """Takes standard input and output away from everybody else.

    Returns:
        Descriptors of what the client writes and reads. They are never closed, since a thread may
        be waiting for one to the end.
    """
    sys.stdout.flush()
    incoming, outgoing = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return incoming, outgoing


class Lines:
    """The lines that a client sends, for `async for`.

    Args:
        descriptor: To read them from.
        on_first: Is given the first line as soon as it is there, on the reading thread.
    """

    def __init__(self, descriptor: int, on_first: Callable[[str], object]) -> None:
        self._descriptor = descriptor
        self._on_first: Callable[[str], object] | None = on_first
        self._lines: queue.Queue[str | None] = queue.Queue(_WAITING)
        self._ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Event | None = None

    def start(self) -> None:
        """Begins to read."""
        threading.Thread(target=self._read, name="arrowembed-mcp-in", daemon=True).start()

    def end(self) -> None:
        """As if the client had said no more; may be called from any thread."""
        self._ended = True
        self._tell()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        import asyncio  # noqa: PLC0415 - slow to import, and not before the greeting

        if self._news is None:
            self._news = asyncio.Event()
            self._loop = asyncio.get_running_loop()
        while not self._ended:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                # Told by the loop itself, so nothing is missed between these two.
                self._news.clear()
                if not self._ended:
                    await self._news.wait()
                continue
            if line is None:
                break
            return line
        self._ended = True
        raise StopAsyncIteration

    def _read(self) -> None:
        rest = bytearray()
        skipping = False
        while chunk := self._chunk():
            first, *others = chunk.split(b"\n")
            rest += first
            for other in others:
                if not skipping:
                    self._put(rest)
                rest, skipping = bytearray(other), False
            if len(rest) > MAX_LINE_BYTES:
                if not skipping:
                    self._put(rest)
                rest, skipping = bytearray(), True
        self._lines.put(None)
        self._tell()

    def _chunk(self) -> bytes:
        try:
            return os.read(self._descriptor, _CHUNK)
        except OSError:
            return b""

    def _put(self, line: bytearray) -> None:
        if not line.strip():
            return
        text = line[:MAX_LINE_BYTES].decode("utf-8", "replace")
        if self._on_first is not None:
            first, self._on_first = self._on_first, None
            first(text)
        self._lines.put(text)
        self._tell()

    def _tell(self) -> None:
        loop, news = self._loop, self._news
        if loop is None or news is None:
            return
        try:
            loop.call_soon_threadsafe(news.set)
        except RuntimeError:
            return  # the loop is closed, and nobody waits any longer


class Replies:
    """What is sent to a client: whole lines, in order, without waiting for it in the event loop.

    Args:
        descriptor: To write them to.
        on_broken: Is called, on the writing thread, when the client reads no more.
    """

    def __init__(self, descriptor: int, on_broken: Callable[[], object]) -> None:
        self._descriptor = descriptor
        self._on_broken = on_broken
        self._pending: queue.Queue[tuple[bytes, asyncio.Future[None] | None]] = queue.Queue()
        self._broken = False
        self._waiting: set[asyncio.Future[None]] = set()
        threading.Thread(target=self._write, name="arrowembed-mcp-out", daemon=True).start()

    def send(self, line: str) -> None:
        """Sends a line, and does not wait until it is written."""
        self._pending.put((line.encode("utf-8", "backslashreplace"), None))

    async def write(self, line: str) -> None:
        """Sends a line and waits until the client, or a buffer on the way to it, has it."""
        import asyncio  # noqa: PLC0415 - as above

        if self._broken:
            return
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(written)
        written.add_done_callback(self._waiting.discard)
        self._pending.put((line.encode("utf-8", "backslashreplace"), written))
        await written

    def give_up(self) -> None:
        """Lets go of whoever waits for a client that does not read; to be called in the loop."""
        self._broken = True
        for written in list(self._waiting):
            _set(written)

    async def flush(self) -> None:
        """Nothing is left to do."""

    def _write(self) -> None:
        while True:
            data, written = self._pending.get()
            if not self._broken:
                try:
                    while data:
                        data = data[os.write(self._descriptor, data) :]
                except OSError:
                    self._broken = True
                    self._on_broken()
            if written is not None:
                _set_from_thread(written)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _set_from_thread(future: asyncio.Future[None]) -> None:
    try:
        future.get_loop().call_soon_threadsafe(_set, future)
    except RuntimeError:
        return  # the loop is closed, and nobody waits any longer
