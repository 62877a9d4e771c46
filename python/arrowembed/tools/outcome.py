"""How a call ends: with a result, or with an error that says what to do about it.

Errors are for whoever called, most often a language model: the message says what was wrong and
where, the hint what to do next. Codes are stable, messages and hints are not.
"""

from __future__ import annotations

import logging
import traceback
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from typing_extensions import TypedDict

from arrowembed.errors import ArrowEmbedError

if TYPE_CHECKING:
    from collections.abc import Iterable

_logger = logging.getLogger("arrowembed.tools")

_MAX_CHARACTERS = 2000
"""Of a message or a hint."""


class ErrorInfo(TypedDict):
    """What went wrong."""

    code: str
    message: str
    hint: str


class Success(TypedDict):
    """A call that was carried out."""

    ok: Literal[True]
    result: Any
    """Plain JSON, of the form that the tool's output schema gives."""


class Failure(TypedDict):
    """A call that was not."""

    ok: Literal[False]
    error: ErrorInfo


Outcome: TypeAlias = Success | Failure

_REPORT = "Tell the user; calling again with the same arguments will not help."
_AGAIN = "Call again in a few seconds."

HINTS: dict[str, str] = {
    # The call is wrong.
    "invalid_json": "Write the arguments as one JSON object and call again.",
    "invalid_arguments": "Correct what the message names and call again.",
    "invalid_argument": "Correct what the message names and call again.",
    "invalid_text": "Leave out what is no Unicode text and call again.",
    "text_type": "Give texts as JSON strings and call again.",
    "text_too_long": "Shorten the text or divide it, and call again.",
    "unknown_tool": "Call one of the tools that there are.",
    "unknown_action": "Choose one of the actions that there are.",
    "unknown_handle": "Handles are forgotten in time; embed the texts again for a new one.",
    "permission_denied": "This caller may not use the tool. Go on without it, or ask the user.",
    "result_too_large": "Ask for less at a time.",
    "duplicate_id": "Choose another id.",
    # It comes at a bad time.
    "timeout": "Ask for less at a time, or call again later.",
    "cancelled": "Call again if the result is still wanted.",
    "busy": _AGAIN,
    "queue_full": _AGAIN,
    "store_locked": _AGAIN,
    "out_of_memory": "Ask for less at a time, or call again later.",
    "memory_budget": "Call again later.",
    # It cannot be done here.
    "no_store": "This tool was set up without a store. Go on without it, or tell the user.",
    "internal": "A fault of the tool and not of the call. " + _REPORT,
    "invalid_result": "A fault of the tool and not of the call. " + _REPORT,
}
"""What to do, by code; of all other codes `_REPORT`."""


class ToolError(ArrowEmbedError):
    """An error of a tool that its caller is told of in full.

    Args:
        message: What was wrong and where.
        code: A stable name.
        hint: What to do next; by default what fits the code.
    """

    def __init__(
        self, message: str, *, code: str = "invalid_arguments", hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.hint = hint


def success(result: Any) -> Success:
    """A call that was carried out."""
    return {"ok": True, "result": result}


def failure(code: str, message: str, hint: str | None = None) -> Failure:
    """A call that was not; the hint is by default what fits the code."""
    return {
        "ok": False,
        "error": {
            "code": code,
            "message": _presentable(message),
            "hint": _presentable(hint or HINTS.get(code, _REPORT)),
        },
    }


def told(error: BaseException, tool: str) -> Failure:
    """What the caller of a tool is told of an exception.

    Errors of this package and `ToolError`s are told in full. Of others only their kind is: what
    they say may be of no concern to the caller, or quote a secret. Neither is it logged.
    """
    if isinstance(error, ToolError):
        return failure(error.code, str(error), error.hint)
    if isinstance(error, ArrowEmbedError):
        return failure(error.code, str(error))
    if not isinstance(error, Exception):
        return failure("cancelled", f"{tool}: was cancelled")
    where = "".join(traceback.format_tb(error.__traceback__))
    _logger.error("tool %s failed with %s\n%s", tool, type(error).__name__, where)
    return failure("internal", f"{tool}: failed with {type(error).__name__}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean "x"?' if a known name is near, else nothing."""
    lowered = {word.lower(): word for word in known}
    near = get_close_matches(name[:100].lower(), lowered, n=1, cutoff=0.6)
    return f'; did you mean "{lowered[near[0]]}"?' if near else ""


def shortened(text: str, characters: int) -> str:
    """A text, cut where it is longer than so many characters."""
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


def _presentable(text: str) -> str:
    """A text that can be written as UTF-8, of bounded length."""
    return shortened(text, _MAX_CHARACTERS).encode("utf-8", "backslashreplace").decode()
