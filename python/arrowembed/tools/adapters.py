"""The tools of a registry as those of agent frameworks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from arrowembed.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from langchain_core.tools import StructuredTool
    from llama_index.core.tools import FunctionTool

    from arrowembed.tools.definition import Scope, Tool
    from arrowembed.tools.registry import ToolRegistry


def langchain_tools(
    registry: ToolRegistry, grants: Collection[Scope] | None = None
) -> list[StructuredTool]:
    """The tools that a caller may use, for LangChain. They give the outcome as JSON text.

    Raises:
        MissingDependencyError: langchain-core is not installed.
    """
    try:
        from langchain_core.tools import StructuredTool  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise _missing("langchain-core") from error
    made = []
    for tool in registry.tools(grants):
        call, acall = _functions(registry, tool, grants)
        made.append(
            StructuredTool.from_function(
                func=call,
                coroutine=acall,
                name=tool.name,
                description=tool.description,
                args_schema=tool.parameters.schema(),
                infer_schema=False,
            )
        )
    return made


def llama_index_tools(
    registry: ToolRegistry, grants: Collection[Scope] | None = None
) -> list[FunctionTool]:
    """The tools that a caller may use, for LlamaIndex. They give the outcome as JSON text.

    Raises:
        MissingDependencyError: llama-index-core is not installed.
    """
    try:
        from llama_index.core.tools import FunctionTool  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise _missing("llama-index-core") from error
    made = []
    for tool in registry.tools(grants):
        call, acall = _functions(registry, tool, grants)
        made.append(
            FunctionTool.from_defaults(
                fn=call,
                async_fn=acall,
                name=tool.name,
                description=tool.description,
                fn_schema=tool.parameters.model,
            )
        )
    return made


def _functions(
    registry: ToolRegistry, tool: Tool, grants: Collection[Scope] | None
) -> tuple[Callable[..., str], Callable[..., Awaitable[str]]]:
    """A tool as a function and as an async one, which take what a model gives by name."""

    def call(**arguments: Any) -> str:
        return json.dumps(registry.call(tool.name, arguments, grants=grants), ensure_ascii=False)

    async def acall(**arguments: Any) -> str:
        outcome = await registry.acall(tool.name, arguments, grants=grants)
        return json.dumps(outcome, ensure_ascii=False)

    return call, acall


def _missing(package: str) -> MissingDependencyError:
    return MissingDependencyError.of(package, purpose="its tools", install=package)
