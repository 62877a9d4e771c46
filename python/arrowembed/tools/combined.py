"""Several tools as the actions of one, for programs that can offer a model only few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import SkipValidation

from arrowembed.tools.definition import Tool
from arrowembed.tools.outcome import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arrowembed.tools.outcome import Outcome


def combined(name: str, tools: Sequence[Tool], execute: Callable[[str, Any], Outcome]) -> Tool:
    """One tool that takes `action` and `params`.

    Args:
        name: Of the tool.
        tools: Its actions, two or more.
        execute: Carries out an action. It checks the arguments, so that an error is told of the
            action that was meant.
    """

    def call(action: str, params: Any) -> Any:
        outcome = execute(action, params)
        if outcome["ok"]:
            return outcome["result"]
        error = outcome["error"]
        raise ToolError(error["message"], code=error["code"], hint=error["hint"])

    names = tuple(tool.name for tool in tools)
    models = tuple(tool.parameters.model for tool in tools)
    call.__doc__ = "\n\n".join(
        ["Carries out one action.", *(f'"{tool.name}": {tool.description}' for tool in tools)]
    )
    call.__annotations__ = {
        "action": Literal[names],
        "params": Annotated[Union[models], SkipValidation],  # noqa: UP007 - made when it runs
        "return": Any,
    }
    first = tools[0]
    return Tool(
        call,
        name=name,
        scope="read" if all(tool.traits.scope == "read" for tool in tools) else "write",
        open_world=any(tool.traits.open_world for tool in tools),
        max_output_bytes=max(tool.traits.max_output_bytes for tool in tools),
        example={"action": first.name, "params": first.traits.example},
    )
