"""`tool` and `Tool`: a typed function with a docstring, as language models call it."""

from __future__ import annotations

import inspect
import re
from contextvars import copy_context
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar, get_args, overload

from arrowembed.errors import InvalidArgumentError, MissingDependencyError
from arrowembed.tools.forms import Form, in_form
from arrowembed.tools.outcome import Outcome, failure, success, told

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from arrowembed.tools.parameters import Parameters
    from arrowembed.tools.returns import Returns

Scope: TypeAlias = Literal["read", "write"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

MAX_OUTPUT_BYTES = 256 << 10
"""Of a tool that sets no limit of its own."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What all language models allow."""

_MARK = "__arrowembed_tool__"

F = TypeVar("F", bound="Callable[..., Any]")


@dataclass(frozen=True, slots=True)
class Traits:
    """What there is to say about a tool besides its types and its docstring.

    What is not said is taken for the worst.
    """

    name: str | None = None
    """The function's own by default."""
    title: str | None = None
    """For people."""
    scope: Scope = "write"
    """What a caller has to be allowed: "read" for a tool that changes nothing."""
    destructive: bool = True
    """Whether it may overwrite or take away what is there; "read" never does."""
    idempotent: bool = False
    """Whether a second call with the same arguments changes nothing more."""
    open_world: bool = True
    """Whether it deals with more than this process and its files, such as the internet."""
    example: Mapping[str, Any] | None = None
    """Arguments of a right call, shown to whoever made a wrong one."""
    timeout: float | None = None
    """Seconds it may take where the registry's limit does not fit it."""
    max_output_bytes: int = MAX_OUTPUT_BYTES
    """Of its result as JSON; more is an error."""


_TRAITS = tuple(field.name for field in fields(Traits))


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended, and how large it was."""

    outcome: Outcome
    input_bytes: int = 0
    output_bytes: int = 0
    """Of the result as JSON; 0 if there is none."""


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(
    *,
    name: str | None = ...,
    title: str | None = ...,
    scope: Scope = ...,
    destructive: bool = ...,
    idempotent: bool = ...,
    open_world: bool = ...,
    example: Mapping[str, Any] | None = ...,
    timeout: float | None = ...,
    max_output_bytes: int = ...,
) -> Callable[[F], F]: ...
def tool(function: F | None = None, /, **traits: Any) -> F | Callable[[F], F]:
    """Marks a function or method as a tool and says what it is like; it stays what it is.

    Types are those of its annotations, descriptions those of its docstring (Google style).

    >>> @tool(scope="read", example={"a": 1, "b": 2})
    ... def plus(a: int, b: int = 1) -> int:
    ...     '''Adds two numbers.
    ...
    ...     Args:
    ...         a: The first.
    ...         b: The second.
    ...     '''
    ...     return a + b
    >>> Tool(plus).call({"a": 40, "b": 2})
    {'ok': True, 'result': 42}

    Args:
        function: The function, where there is nothing more to say.
        traits: See `Traits`.
    """

    def mark(marked: F) -> F:
        setattr(marked, _MARK, Traits(**traits))
        return marked

    return mark if function is None else mark(function)


def is_tool(value: object) -> bool:
    """Whether a function was marked by `tool`."""
    return isinstance(getattr(value, _MARK, None), Traits)


class Tool:
    """A function as language models call it: with JSON, and never raising an exception.

    Args:
        function: Typed, with a docstring, possibly async; marked by `tool` or not.
        traits: What is not as it was marked; see `Traits`.

    Raises:
        InvalidArgumentError: It has no docstring, a parameter has no type or one that JSON cannot
            have, or a trait is outside what is allowed.
    """

    def __init__(self, function: Callable[..., Any], **traits: Any) -> None:
        marked = getattr(function, _MARK, None) or Traits()
        self.function = function
        self.traits = replace(marked, **traits)
        own: str = getattr(function, "__name__", type(function).__name__)
        self.name = self.traits.name or own
        _check(self.name, self.traits)
        if not inspect.getdoc(function):
            raise InvalidArgumentError(
                f"tool {self.name!r}: has no docstring; models choose a tool by what it says"
            )

    @property
    def is_async(self) -> bool:
        """Whether its function is."""
        called = getattr(self.function, "__call__", None)  # noqa: B004 - of an object
        return inspect.iscoroutinefunction(self.function) or inspect.iscoroutinefunction(called)

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.traits.title or self.name.replace("_", " ").capitalize()

    @property
    def description(self) -> str:
        """What it does, from the docstring."""
        return self.parameters.description

    @cached_property
    def parameters(self) -> Parameters:
        """What it takes.

        Raises:
            InvalidArgumentError: A parameter has no type, or one that JSON cannot have.
        """
        try:
            from arrowembed.tools.parameters import Parameters  # noqa: PLC0415 - when it is used
        except ModuleNotFoundError as error:
            raise MissingDependencyError.of(
                str(error.name), purpose="a tool", install='"arrowembed[tools]"'
            ) from error
        return Parameters(self.function, self.name, self.traits.example)

    @cached_property
    def returns(self) -> Returns:
        """What it gives."""
        from arrowembed.tools.returns import Returns  # noqa: PLC0415 - when it is used

        return Returns(self.function, self.name)

    def prefixed(self, prefix: str) -> Self:
        """The same tool under a longer name."""
        traits = replace(self.traits, name=prefix + self.name)
        return type(self)(self.function, **{name: getattr(traits, name) for name in _TRAITS})

    def get_schema(self, form: Form = "json_schema") -> dict[str, Any]:
        """What a model is told of it.

        Args:
            form: "json_schema" (2020-12, of the arguments), "openai" for chat completions,
                "openai_responses", "anthropic" or "mcp".
        """
        return in_form(self, form)

    def call(self, arguments: Mapping[str, Any] | str | bytes | None = None) -> Outcome:
        """Calls it, on this thread.

        Args:
            arguments: An object, or JSON text of one.

        Returns:
            `{"ok": true, "result": ...}` or `{"ok": false, "error": {"code", "message", "hint"}}`.
        """
        return self.answer(arguments).outcome

    async def acall(self, arguments: Mapping[str, Any] | str | bytes | None = None) -> Outcome:
        """`call` of an async function, in this event loop; of another one, on this thread."""
        return (await self.aanswer(arguments)).outcome

    def answer(self, arguments: Mapping[str, Any] | str | bytes | None) -> Answer:
        """`call`, with sizes."""
        if self.is_async:
            return self._in_loop(arguments)
        size = 0
        try:
            values, size = self.parameters.read(arguments)
            return self._given(self.function(**values), size)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller is told
            return Answer(told(error, self.name), size)

    async def aanswer(self, arguments: Mapping[str, Any] | str | bytes | None) -> Answer:
        """`acall`, with sizes."""
        if not self.is_async:
            return self.answer(arguments)
        size = 0
        try:
            values, size = self.parameters.read(arguments)
            return self._given(await self.function(**values), size)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller is told
            return Answer(told(error, self.name), size)

    def _in_loop(self, arguments: Mapping[str, Any] | str | bytes | None) -> Answer:
        """The answer of an async function, on a thread: this one may have an event loop."""
        from asyncio import run  # noqa: PLC0415 - slow to import
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - slow to import

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(copy_context().run, run, self.aanswer(arguments)).result()

    def _given(self, value: Any, input_bytes: int) -> Answer:
        """The answer with what the function gave."""
        result, size = self.returns.plain(value)
        if size > self.traits.max_output_bytes:
            message = f"{self.name}: the result has {size} bytes, more than the "
            message += f"{self.traits.max_output_bytes} that are allowed"
            return Answer(failure("result_too_large", message), input_bytes)
        return Answer(success(result), input_bytes, size)

    def __repr__(self) -> str:
        return f"Tool({self.name!r}, scope={self.traits.scope!r})"


def _check(name: str, traits: Traits) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidArgumentError(
            f"tool {name!r}: a name has 1 to 64 letters, digits, '_' and '-'; pass name=..."
        )
    if traits.scope not in SCOPES:
        raise InvalidArgumentError(
            f"tool {name!r}: scope {traits.scope!r}; known are {', '.join(SCOPES)}"
        )
    if traits.timeout is not None and not traits.timeout > 0:
        raise InvalidArgumentError(f"tool {name!r}: timeout {traits.timeout}; expected above 0")
