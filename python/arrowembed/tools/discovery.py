"""Tools of installed packages, found by their entry points.

A package offers tools in its `pyproject.toml`:

    [project.entry-points."arrowembed.tools"]
    weather = "weather_package.tools:forecast"

What stands there is a function marked by `tool`, a `Tool`, an object with a method `tools` that
gives some, a list of these, or a function or class that gives one of them when it is called without
arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools.definition import Tool, is_tool

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "arrowembed.tools"


@runtime_checkable
class ToolProvider(Protocol):
    """Whatever has several tools, such as an `EmbeddingTool`."""

    def tools(self) -> Iterable[Tool]:
        """Its tools."""
        ...


@dataclass(frozen=True, slots=True)
class Discovered:
    """What came of one entry point."""

    entry_point: str
    """Its name."""
    package: str | None
    """Of whose distribution it is, if that is known."""
    tools: tuple[str, ...] = ()
    """Names under which its tools were registered."""
    error: str | None = None
    """Why it has none."""


def entry_points() -> list[EntryPoint]:
    """Those of all installed packages, in the order of their names."""
    from importlib.metadata import entry_points as installed  # noqa: PLC0415 - slow to import

    return sorted(installed(group=GROUP), key=lambda entry: (entry.name, entry.value))


def package_of(entry: EntryPoint) -> str | None:
    """The name of the package that has an entry point."""
    return None if entry.dist is None else entry.dist.name


def offered(value: Any) -> list[Tool]:
    """The tools that an entry point stands for.

    Raises:
        InvalidArgumentError: There are none.
    """
    found = _tools(value)
    if found is None and callable(value):
        found = _tools(value())
    if not found:
        raise InvalidArgumentError(
            f"{GROUP}: expected a function marked by arrowembed.tools.tool, a Tool, an object with "
            f"a method tools(), or what gives one of them; found {type(value).__name__}"
        )
    return found


def _tools(value: Any) -> list[Tool] | None:
    if isinstance(value, Tool):
        return [value]
    if is_tool(value):
        return [Tool(value)]
    if isinstance(value, (type, str)):
        return None
    if isinstance(value, ToolProvider):
        return list(value.tools())
    if isinstance(value, Iterable):
        return [tool for inner in value for tool in _tools(inner) or []]
    return None
