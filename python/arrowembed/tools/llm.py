"""`run_tool_calls`: from a model's response to what is sent back to it.

    messages = [{"role": "user", "content": "What did I tell you of my cat?"}]
    while True:
        response = client.chat.completions.create(
            model=..., messages=messages, tools=registry.get_schemas("openai")
        )
        answers = run_tool_calls(response, registry)
        if not answers:
            break
        messages += answers

The same works with Anthropic's messages, and with OpenAI's responses and their `input`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrowembed.tools.dialects import turn_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from arrowembed.tools.definition import Scope
    from arrowembed.tools.registry import ToolRegistry


def run_tool_calls(
    response: Any,
    registry: ToolRegistry,
    *,
    grants: Collection[Scope] | None = None,
    include_response: bool = True,
) -> list[dict[str, Any]]:
    """Carries out the tool calls of a response, one after the other, in their order.

    Each call has an answer: one that fails, names no tool, or has arguments that are no JSON gets
    the error, from which the model can correct itself.

    Args:
        response: Of OpenAI's chat completions or responses, or Anthropic's messages; as their SDKs
            have it, or as plain JSON.
        registry: The tools.
        grants: What the model may do; by default what the registry was made with.
        include_response: Whether the model's own turn comes first, as messages need it. With
            responses and `previous_response_id` it is not sent again.

    Returns:
        Messages to add, in the dialect of the response; none if it has no calls.

    Raises:
        InvalidArgumentError: It is no response of these interfaces.
    """
    turn = turn_of(response)
    outcomes = [registry.call(call.name, call.arguments, grants=grants) for call in turn.calls]
    if not outcomes:
        return []
    return [*(turn.said() if include_response else ()), *turn.answers(outcomes)]


async def arun_tool_calls(
    response: Any,
    registry: ToolRegistry,
    *,
    grants: Collection[Scope] | None = None,
    include_response: bool = True,
) -> list[dict[str, Any]]:
    """`run_tool_calls` without holding up the event loop; all calls at once, in the same order."""
    from asyncio import gather  # noqa: PLC0415 - slow to import

    turn = turn_of(response)
    outcomes = await gather(
        *(registry.acall(call.name, call.arguments, grants=grants) for call in turn.calls)
    )
    if not outcomes:
        return []
    return [*(turn.said() if include_response else ()), *turn.answers(outcomes)]
