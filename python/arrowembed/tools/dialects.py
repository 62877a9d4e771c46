"""What models ask of tools, and how they are answered, in the dialects of their interfaces."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arrowembed.tools.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Call:
    """One call that a model asks for."""

    id: str
    name: str
    arguments: Mapping[str, Any] | str | None
    source: Mapping[str, Any]
    """As the model wrote it."""


class Turn(ABC):
    """A model's turn: the calls that it asks for, in their order."""

    calls: list[Call]

    @abstractmethod
    def said(self) -> list[dict[str, Any]]:
        """The turn itself, as it is sent back."""

    @abstractmethod
    def answers(self, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        """What is sent back for the calls."""


class ChatTurn(Turn):
    """OpenAI's chat completions, and the many services that speak like them."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self._message = dict(message)
        self.calls = [self._call(call) for call in message.get("tool_calls") or ()]

    @staticmethod
    def _call(call: Mapping[str, Any]) -> Call:
        # A custom tool takes text instead of arguments; whether that is JSON, its tool will say.
        inner = call.get("function") or call["custom"]
        return Call(call["id"], inner["name"], inner.get("arguments", inner.get("input")), call)

    @override
    def said(self) -> list[dict[str, Any]]:
        return [self._message]

    @override
    def answers(self, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        return [
            {"role": "tool", "tool_call_id": call.id, "content": _text(outcome)}
            for call, outcome in zip(self.calls, outcomes, strict=True)
        ]


class ResponsesTurn(Turn):
    """OpenAI's responses."""

    _ANSWER: ClassVar = {
        "function_call": "function_call_output",
        "custom_tool_call": "custom_tool_call_output",
    }

    def __init__(self, output: Sequence[Mapping[str, Any]]) -> None:
        self._output = [dict(item) for item in output]
        self.calls = [
            Call(item["call_id"], item["name"], item.get("arguments", item.get("input")), item)
            for item in output
            if item["type"] in self._ANSWER
        ]

    @override
    def said(self) -> list[dict[str, Any]]:
        return self._output

    @override
    def answers(self, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        return [
            {
                "type": self._ANSWER[call.source["type"]],
                "call_id": call.id,
                "output": _text(outcome),
                **_kept(call.source, "caller"),
            }
            for call, outcome in zip(self.calls, outcomes, strict=True)
        ]


class AnthropicTurn(Turn):
    """Anthropic's messages."""

    def __init__(self, content: Sequence[Mapping[str, Any]]) -> None:
        self._content = [dict(block) for block in content]
        self.calls = [
            Call(block["id"], block["name"], block.get("input"), block)
            for block in content
            if block["type"] == "tool_use"
        ]

    @override
    def said(self) -> list[dict[str, Any]]:
        return [{"role": "assistant", "content": self._content}]

    @override
    def answers(self, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        results = [
            {
                "type": "tool_result",
                "tool_use_id": call.id,
                "content": _text(outcome),
                "is_error": not outcome["ok"],
                **_kept(call.source, "toolset_name"),
            }
            for call, outcome in zip(self.calls, outcomes, strict=True)
        ]
        return [{"role": "user", "content": results}]


def turn_of(response: Any) -> Turn:
    """The turn that a response holds; of several choices the first.

    Args:
        response: As an SDK or plain JSON has it: a response of one of the interfaces, or the
            message of a chat completion.

    Raises:
        InvalidArgumentError: It is something else.
    """
    plain = _plain(response)
    try:
        if "choices" in plain:
            return ChatTurn(plain["choices"][0]["message"])
        if plain.get("object") == "response":
            return ResponsesTurn(plain["output"])
        if plain.get("type") == "message":
            return AnthropicTurn(plain["content"])
        if plain.get("role") == "assistant" and not isinstance(plain.get("content"), list):
            return ChatTurn(plain)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InvalidArgumentError(f"response: is not complete: {error!r}") from error
    raise InvalidArgumentError(
        "response: expected a chat completion or a response of OpenAI's interface or a message of "
        f"Anthropic's, got {type(response).__name__} with {', '.join(map(str, plain)) or 'nothing'}"
    )


def _plain(response: Any) -> Mapping[str, Any]:
    if isinstance(response, Mapping):
        return response
    if hasattr(response, "model_dump"):
        # What the service did not send is not sent back to it.
        dumped: dict[str, Any] = response.model_dump(
            mode="json", by_alias=True, exclude_unset=True, warnings=False
        )
        return dumped
    raise InvalidArgumentError(
        f"response: expected an object of an SDK or a dictionary, got {type(response).__name__}"
    )


def _kept(source: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What an answer repeats of the call, where it is there."""
    return {} if source.get(key) is None else {key: source[key]}


def _text(outcome: Outcome) -> str:
    return json.dumps(outcome, ensure_ascii=False)
