"""Tools for language models and for whatever runs them.

>>> from arrowembed.tools import EmbeddingTool, ToolRegistry
>>> registry = ToolRegistry()
>>> registry.register(EmbeddingTool("all-MiniLM-L6-v2"))
['embed', 'similarity']
>>> registry.call("similarity", {"a": ["a warm day"], "b": ["sunny weather"]})["ok"]
True

A tool is a typed function with a docstring (`tool`); its schemas are made of both. `EmbeddingTool`
has those of this package, `ToolRegistry` calls them and those of others, `run_tool_calls` answers
what a model's response asks for, and `arrowembed.tools.mcp` serves them.

Nothing is imported until it is used: pydantic takes longer to import than all else here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrowembed.errors import MissingDependencyError

if TYPE_CHECKING:
    from arrowembed.tools.definition import Tool, tool
    from arrowembed.tools.embedding import EmbeddingTool
    from arrowembed.tools.llm import arun_tool_calls, run_tool_calls
    from arrowembed.tools.outcome import Failure, Outcome, Success, ToolError
    from arrowembed.tools.registry import ToolRegistry
    from arrowembed.tools.running import is_cancelled

__all__ = [
    "EmbeddingTool",
    "Failure",
    "Outcome",
    "Success",
    "Tool",
    "ToolError",
    "ToolRegistry",
    "arun_tool_calls",
    "is_cancelled",
    "run_tool_calls",
    "tool",
]

_MODULES = {
    "EmbeddingTool": "embedding",
    "Failure": "outcome",
    "Outcome": "outcome",
    "Success": "outcome",
    "Tool": "definition",
    "ToolError": "outcome",
    "ToolRegistry": "registry",
    "arun_tool_calls": "llm",
    "is_cancelled": "running",
    "run_tool_calls": "llm",
    "tool": "definition",
}
"""Where each name is defined."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - as all here, when it is used

    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in ("pydantic", "typing_extensions"):
            raise
        raise MissingDependencyError.of(
            error.name, purpose=f"arrowembed.tools.{name}", install='"arrowembed[tools]"'
        ) from error
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return __all__
