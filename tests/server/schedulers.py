"""Schedulers that do what a test wants, in the place of the real one."""

import asyncio
import threading


class Idle:
    """A scheduler in whose queue there is nothing."""

    def info(self):
        return {"queued_texts": 0, "queued_tokens": 0}


class Waiting(Idle):
    """A scheduler whose work ends only when it is cancelled."""

    def __init__(self):
        self.started, self.cancelled = threading.Event(), threading.Event()

    async def encode(self, texts, **options):
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class Failing(Idle):
    """A scheduler that raises an error."""

    def __init__(self, error):
        self.error = error

    async def encode(self, texts, **options):
        raise self.error


class Gate(Idle):
    """A scheduler that keeps requests waiting until the gate is opened, then has a real one work.

    Args:
        service: Whose scheduler the real one is.
        held: Whether a request has to wait; the others pass.
    """

    def __init__(self, service, held=lambda texts: True):
        self.real = next(iter(service.app.state.models)).variants[0].current.scheduler
        self.held = held
        self.inside = self.most_inside = 0
        self._came = threading.Semaphore(0)
        self._open = asyncio.Event()

    async def encode(self, texts, **options):
        self._loop = asyncio.get_running_loop()
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        self._came.release()
        try:
            if self.held(texts):
                await self._open.wait()
            return await self.real.encode(texts, **options)
        finally:
            self.inside -= 1

    def open(self):
        """Opens the gate."""
        self._loop.call_soon_threadsafe(self._open.set)

    def wait_for(self, requests):
        """Waits until so many more requests have come."""
        for _ in range(requests):
            assert self._came.acquire(timeout=60)
