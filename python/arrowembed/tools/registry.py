"""`ToolRegistry`: tools of this package and of others, called by name.

Each call has a limit in time, needs what its tool's scope says, and is counted. Whatever goes
wrong, the answer says so; none is an exception.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools.definition import SCOPES, Answer, Tool
from arrowembed.tools.discovery import Discovered, ToolProvider, entry_points, offered, package_of
from arrowembed.tools.outcome import did_you_mean, failure, shortened
from arrowembed.tools.running import Workers
from arrowembed.tools.usage import Meter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from importlib.metadata import EntryPoint

    from arrowembed.tools.definition import Scope
    from arrowembed.tools.forms import Form
    from arrowembed.tools.outcome import Failure, Outcome
    from arrowembed.tools.usage import ToolUsage

DEFAULT_TIMEOUT = 60.0
"""Seconds."""

_MAX_ERROR = 500
"""Characters told of an entry point that is broken."""


class _AsRegistered:
    """The type of `AS_REGISTERED`."""


AS_REGISTERED: Final = _AsRegistered()
"""The limit in time of the tool, or else of the registry."""


class ToolRegistry:
    """Tools by name. Safe to share between threads and event loops.

    Args:
        grants: What callers may do who are not told otherwise: "read", "write" or both.
        timeout: Seconds that a call may take unless its tool says otherwise; None sets no limit,
            and calls run on the caller's own thread.
        max_running: Most calls that may run at a time, counting those that were given up and are
            not done yet; more get the error `busy`.

    Raises:
        InvalidArgumentError: An argument is outside what is allowed.
    """

    def __init__(
        self,
        *,
        grants: Iterable[Scope] = SCOPES,
        timeout: float | None = DEFAULT_TIMEOUT,
        max_running: int = 64,
    ) -> None:
        if timeout is not None and not timeout > 0:
            raise InvalidArgumentError(f"timeout: {timeout}; expected above 0, or None")
        if max_running < 1:
            raise InvalidArgumentError(f"max_running: {max_running}; expected at least 1")
        self._grants = _checked_grants(grants)
        self._timeout = timeout
        self._workers = Workers(max_running)
        self._tools: dict[str, Tool] = {}
        self._meter = Meter()

    def register(
        self, *tools: Tool | ToolProvider | Callable[..., Any], prefix: str = ""
    ) -> list[str]:
        """Puts tools in, all or none.

        Args:
            tools: Each a `Tool`, an object with several such as an `EmbeddingTool`, or a typed
                function with a docstring.
            prefix: Put before the name of each.

        Returns:
            Their names.

        Raises:
            InvalidArgumentError: A name is taken, or a function cannot be a tool.
        """
        found: dict[str, Tool] = {}
        for value in tools:
            for tool in _tools_of(value):
                named = tool.prefixed(prefix) if prefix else tool
                if named.name in self._tools or named.name in found:
                    raise InvalidArgumentError(
                        f"there is a tool {named.name!r} already; pass prefix=... to have both"
                    )
                named.parameters, named.returns  # noqa: B018 - what is wrong with it comes out now
                found[named.name] = named
        self._tools.update(found)
        return list(found)

    def unregister(self, name: str) -> None:
        """Takes a tool out; calls that run go on. There need not be one of that name."""
        self._tools.pop(name, None)

    def discover(self) -> list[Discovered]:
        """Registers the tools of installed packages; see `arrowembed.tools.discovery`.

        Returns:
            For each entry point what came of it. A broken one hinders no other.
        """
        return [self._discovered(entry) for entry in entry_points()]

    def tools(self, grants: Collection[Scope] | None = None) -> list[Tool]:
        """The tools that a caller may use."""
        allowed = self._allowed(grants)
        return [tool for tool in list(self._tools.values()) if tool.traits.scope in allowed]

    def get(self, name: str) -> Tool | None:
        """The tool of that name, if there is one."""
        return self._tools.get(name)

    def get_schemas(
        self, form: Form = "json_schema", grants: Collection[Scope] | None = None
    ) -> list[dict[str, Any]]:
        """What a model is told of the tools that a caller may use; forms as for a `Tool`."""
        return [tool.get_schema(form) for tool in self.tools(grants)]

    def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | str | bytes | None = None,
        *,
        grants: Collection[Scope] | None = None,
        timeout: float | _AsRegistered | None = AS_REGISTERED,
    ) -> Outcome:
        """Calls a tool.

        When its time is over, the answer is the error `timeout`. The work is told to stop:
        embedding does so between two micro-batches, a tool that asks `is_cancelled` when it asks,
        an async tool where it awaits. All else goes on to its end, and a change may still be made.

        Args:
            name: Of the tool.
            arguments: An object, or JSON text of one.
            grants: What this caller may do; by default what the registry was made with.
            timeout: Seconds; None sets no limit.

        Returns:
            `{"ok": true, "result": ...}` or `{"ok": false, "error": {"code", "message", "hint"}}`.
        """
        found = self._checked(name, grants)
        if not isinstance(found, Tool):
            return found
        seconds = self._seconds(found, timeout)
        with self._meter.call(found.name) as answers:
            answers.append(self._answer(found, arguments, seconds))
        return answers[0].outcome

    async def acall(
        self,
        name: str,
        arguments: Mapping[str, Any] | str | bytes | None = None,
        *,
        grants: Collection[Scope] | None = None,
        timeout: float | _AsRegistered | None = AS_REGISTERED,
    ) -> Outcome:
        """`call` without holding up the event loop: async tools run in it, others on a thread.

        A task that is cancelled gives its call up, as one whose time is over does.
        """
        found = self._checked(name, grants)
        if not isinstance(found, Tool):
            return found
        seconds = self._seconds(found, timeout)
        with self._meter.call(found.name) as answers:
            answers.append(await self._aanswer(found, arguments, seconds))
        return answers[0].outcome

    def metrics(self) -> dict[str, ToolUsage]:
        """Counts, errors, seconds and sizes for each tool that was called."""
        return self._meter.report()

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __len__(self) -> int:
        return len(self._tools)

    def __repr__(self) -> str:
        return f"ToolRegistry({', '.join(self._tools)})"

    def _allowed(self, grants: Collection[Scope] | None) -> frozenset[Scope]:
        return self._grants if grants is None else _checked_grants(grants)

    def _seconds(self, tool: Tool, timeout: float | _AsRegistered | None) -> float | None:
        if isinstance(timeout, _AsRegistered):
            return tool.traits.timeout or self._timeout
        return timeout

    def _checked(self, name: str, grants: Collection[Scope] | None) -> Tool | Failure:
        """The tool, if the caller may use it."""
        named = str(name)  # a model's, which may be anything
        tool = self._tools.get(named)
        if tool is None:
            known = [tool.name for tool in self.tools(grants)]
            near = did_you_mean(named, known) or f"; there are {', '.join(known) or 'none'}"
            return failure("unknown_tool", f"no tool {named[:100]!r}{near}")
        if tool.traits.scope in self._allowed(grants):
            return tool
        message = f"{named}: needs the permission {tool.traits.scope!r}"
        denied = failure("permission_denied", message)
        with self._meter.call(tool.name) as answers:
            answers.append(Answer(denied))
        return denied

    def _answer(
        self,
        tool: Tool,
        arguments: Mapping[str, Any] | str | bytes | None,
        seconds: float | None,
    ) -> Answer:
        if seconds is None:
            return tool.answer(arguments)
        cancelled = threading.Event()
        work, patience = partial(tool.answer, arguments), seconds
        if tool.is_async:
            # Its loop ends it; the thread is waited for a little longer, for the answer.
            work, patience = partial(self._in_loop, tool, arguments, seconds), seconds + 1
        future = self._workers.start(work, cancelled)
        if future is None:
            return Answer(_busy(tool))
        try:
            return future.result(patience)
        except TimeoutError:
            return Answer(_timed_out(tool, seconds))
        finally:
            cancelled.set()

    async def _aanswer(
        self,
        tool: Tool,
        arguments: Mapping[str, Any] | str | bytes | None,
        seconds: float | None,
    ) -> Answer:
        import asyncio  # noqa: PLC0415 - slow to import

        try:
            async with asyncio.timeout(seconds):
                if tool.is_async:
                    return await tool.aanswer(arguments)
                cancelled = threading.Event()
                future = self._workers.start(partial(tool.answer, arguments), cancelled)
                if future is None:
                    return Answer(_busy(tool))
                try:
                    return await asyncio.wrap_future(future)
                finally:
                    cancelled.set()
        except TimeoutError:
            return Answer(_timed_out(tool, seconds))

    def _in_loop(
        self, tool: Tool, arguments: Mapping[str, Any] | str | bytes | None, seconds: float
    ) -> Answer:
        """The answer of an async tool, in an event loop of its own."""
        from asyncio import run  # noqa: PLC0415 - slow to import

        return run(self._aanswer(tool, arguments, seconds))

    def _discovered(self, entry: EntryPoint) -> Discovered:
        package = package_of(entry)
        try:
            names = self.register(*offered(entry.load()))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a package of somebody else
            message = shortened(f"{type(error).__name__}: {error}", _MAX_ERROR)
            return Discovered(entry.name, package, error=message)
        return Discovered(entry.name, package, tuple(names))


def _tools_of(value: Tool | ToolProvider | Callable[..., Any]) -> Iterable[Tool]:
    if isinstance(value, Tool):
        return [value]
    if isinstance(value, ToolProvider):
        return value.tools()
    if callable(value):
        return [Tool(value)]
    raise InvalidArgumentError(
        f"expected a function, a Tool or an object with tools, got {type(value).__name__}"
    )


def _checked_grants(grants: Iterable[Scope]) -> frozenset[Scope]:
    if isinstance(grants, str):
        raise InvalidArgumentError(f"grants: expected a list, got {grants!r}; pass [{grants!r}]")
    wanted = frozenset(grants)
    for scope in wanted - frozenset(SCOPES):
        raise InvalidArgumentError(f"grants: {scope!r}; known are {', '.join(SCOPES)}")
    return wanted


def _timed_out(tool: Tool, seconds: float | None) -> Failure:
    return failure("timeout", f"{tool.name}: took longer than {seconds:g} seconds")


def _busy(tool: Tool) -> Failure:
    return failure("busy", f"{tool.name}: too many calls are running")
