"""The calls that are being answered: who calls, and how they end when the service stops."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast
from urllib.parse import unquote, urlsplit

from arrowembed.server.requests import id_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import grpc

    from arrowembed.server.security.principal import Principal

    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_CLOCKS_APART: Final = 0.1
"""Seconds by which a call's deadline may pass at its client before it does here: the service is
told how much time was left when the call was sent, and counts from when it arrived."""


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of a call.

    Attributes:
        method: Full name of what is called.
        metadata: What HTTP has in headers.
        request_id: Its `x-request-id`, or a new one.
        peer: Address at the other end of the connection.
    """

    method: str
    metadata: Mapping[str, str]
    request_id: str
    peer: str | None

    @classmethod
    def of(cls, method: str, context: Context) -> Caller:
        """Reads a call's metadata; of binary ones none matters."""
        pairs = context.invocation_metadata() or ()
        metadata = {key: value for key, value in pairs if isinstance(value, str)}
        request_id = id_of(metadata.get("x-request-id", ""))
        return cls(method, metadata, request_id, _address(context.peer()))


@dataclass(frozen=True, slots=True)
class Client:
    """Who calls, once that is clear."""

    caller: Caller
    principal: Principal
    address: str | None
    """Behind trusted proxies that which they tell."""


_client: ContextVar[Client] = ContextVar("arrowembed_grpc_client")


def set_client(client: Client) -> None:
    """Says who has made the call that this task answers."""
    _client.set(client)


def client() -> Client:
    """Who has made the call that this task answers."""
    return _client.get()


class Calls:
    """All calls that are being answered."""

    def __init__(self) -> None:
        self.stopping = False
        """Whether the service takes no more."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._taking: set[asyncio.Timeout] = set()

    def begin(self) -> None:
        """Counts the call of this task until its answer has been sent."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def until_stopped(self) -> AsyncIterator[None]:
        """Gives up what is done inside when the service stops.

        Raises:
            TimeoutError: It stops.
        """
        async with asyncio.timeout(0 if self.stopping else None) as limit:
            self._taking.add(limit)
            try:
                yield
            finally:
                self._taking.discard(limit)

    def stop(self) -> None:
        """Has streams take no more requests."""
        self.stopping = True
        for limit in self._taking:
            limit.reschedule(0)

    async def ended(self) -> None:
        """Waits for all calls."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def why_cancelled(self, context: Context) -> str:
        """The error code of a call that was cancelled.

        Who cancels in the last tenth of a second before the deadline is taken for one whose
        deadline is over.
        """
        # None where there is no deadline, which gRPC's own types leave out.
        remaining = cast("float | None", context.time_remaining())
        if remaining is not None and remaining <= _CLOCKS_APART:
            return "timeout"
        return "closed" if self.stopping else "client_closed_request"


@lru_cache(maxsize=1024)
def _address(peer: str) -> str | None:
    """The address in what gRPC calls a peer, such as ipv4:127.0.0.1:80 or ipv6:%5B::1%5D:80."""
    kind, _, rest = peer.partition(":")
    return urlsplit(f"//{unquote(rest)}").hostname if kind in ("ipv4", "ipv6") else None
