"""Serves one client over standard input and output, and greets it at once."""

from __future__ import annotations

import json
import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

from arrowembed.tools.mcp.greeting import Greeter
from arrowembed.tools.mcp.pipes import Lines, Replies, claim

if TYPE_CHECKING:
    from arrowembed.tools.mcp.greeting import Greeting
    from arrowembed.tools.mcp.offer import Offer

logger = logging.getLogger("arrowembed.mcp")

_LAST_SECONDS = 1.0
"""For a client to read what was still answered before the end."""


def run(offer: Offer) -> None:
    """Serves until the client closes standard input, or the process is told to stop.

    Raises:
        MissingDependencyError: The package `mcp` is not installed.
    """
    greeter = Greeter(offer.identity)
    if sys.stdin.isatty():
        sys.stderr.write("speaking MCP on standard input and output; Ctrl-D ends it\n")
    # Until the event loop takes over.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    incoming, outgoing = claim()
    client = _Client(greeter, incoming, outgoing)
    # Only now what is slow to import; the client's greeting is answered meanwhile.
    import asyncio  # noqa: PLC0415

    from arrowembed.tools.mcp.server import make_server  # noqa: PLC0415

    with offer:
        server = make_server(offer)
        offer.warm_up()
        asyncio.run(client.serve(server))


class _Client:
    """The lines of a client and those to it; of its first request's two answers, one is sent."""

    def __init__(self, greeter: Greeter, incoming: int, outgoing: int) -> None:
        self._greeter = greeter
        self._greeting: Greeting | None = None
        self._lines = Lines(incoming, on_first=self._greet)
        self._replies = Replies(outgoing, on_broken=self._lines.end)
        self._lines.start()

    async def serve(self, server: Any) -> None:
        """Has a server of the package `mcp` answer the client."""
        import asyncio  # noqa: PLC0415

        from mcp.server.stdio import stdio_server  # noqa: PLC0415

        loop = asyncio.get_running_loop()
        if sys.platform != "win32":
            loop.add_signal_handler(signal.SIGTERM, self._lines.end)
        # What the package wants of files are the few things that these two can do.
        files: tuple[Any, Any] = (self._lines, self)
        async with stdio_server(*files) as (read, write):
            await server.run(read, write, server.create_initialization_options())
            # Leaving this waits until the last answer is written.
            loop.call_later(_LAST_SECONDS, self._replies.give_up)

    async def write(self, line: str) -> None:
        """Sends what the package has to say."""
        if self._greeting is not None and self._is_greeting_again(json.loads(line), self._greeting):
            self._greeting = None
            return
        await self._replies.write(line)

    async def flush(self) -> None:
        """Nothing is left to do."""

    def _greet(self, line: str) -> None:
        self._greeting = self._greeter.greet(line)
        if self._greeting is not None:
            self._replies.send(self._greeting.line())

    def _is_greeting_again(self, message: dict[str, Any], greeting: Greeting) -> bool:
        if message.get("id") != greeting.id or "method" in message:
            return False
        if message.get("result") != greeting.result:
            logger.warning("the client was greeted in other words than those of the package mcp")
        return True
