"""The parameters of a typed function: their schema, and a call's arguments checked against it.

pydantic does both, from the annotations; descriptions come from the docstring.
"""

from __future__ import annotations

import inspect
from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_type_hints

from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticSerializationError, from_json, to_json

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools.mistakes import explained, repair
from arrowembed.tools.outcome import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic.fields import FieldInfo

_PREFIX = "argument_"
"""Of the model's fields, so that no name of a parameter clashes with one of pydantic's."""

_MAX_REPAIRS = 3
"""JSON text within JSON text within JSON text is enough."""

_NO_NAMES = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
_NO_PARAMETERS = (*_NO_NAMES, inspect.Parameter.VAR_KEYWORD)


class PlainSchema(GenerateJsonSchema):
    """JSON Schema 2020-12 without the titles that only repeat names."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Never: a property's name says it."""
        return False


class Parameters:
    """What a function takes.

    Args:
        function: With annotations on all its parameters. A trailing underscore, as in `return_`,
            is no part of a parameter's name.
        name: Of the tool, for messages.
        example: Arguments of a right call.

    Raises:
        InvalidArgumentError: A parameter has no type, or no name to pass it by.
    """

    def __init__(
        self, function: Callable[..., Any], name: str, example: Mapping[str, Any] | None
    ) -> None:
        self._tool, self._example = name, example
        documentation = parse_docstring(inspect.getdoc(function) or "", DocstringStyle.GOOGLE)
        described = {entry.arg_name: entry.description or "" for entry in documentation.params}
        self.description = _unwrapped(documentation.description or "")
        hints = type_hints(function, name)
        fields: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        for parameter in inspect.signature(function).parameters.values():
            own = parameter.name
            if parameter.kind in _NO_PARAMETERS:
                raise InvalidArgumentError(
                    f"tool {name!r}: {own} cannot be passed by its name; name each parameter"
                )
            if own not in hints:
                raise InvalidArgumentError(f"tool {name!r}: parameter {own} has no type")
            self._names[_PREFIX + own] = own
            fields[_PREFIX + own] = (
                hints[own],
                _field(parameter, described.get(own) or described.get(own.rstrip("_"))),
            )
        config = ConfigDict(
            extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=False
        )
        try:
            self.model: type[BaseModel] = create_model(
                f"{name}_arguments", __config__=config, **fields
            )
        except (PydanticUserError, TypeError) as error:
            raise InvalidArgumentError(f"tool {name!r}: {error}") from error

    @property
    def names(self) -> list[str]:
        """The names of all parameters."""
        return [name.rstrip("_") for name in self._names.values()]

    def schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of an object with the arguments."""
        return deepcopy(self._schema)

    @cached_property
    def _schema(self) -> dict[str, Any]:
        schema = self.model.model_json_schema(schema_generator=PlainSchema)
        del schema["title"]
        return {**schema, "properties": schema.get("properties", {})}

    def read(self, arguments: Mapping[str, Any] | str | bytes | None) -> tuple[dict[str, Any], int]:
        """The function's arguments, checked, and how many bytes of JSON they are.

        What models often get wrong, and what can only be meant in one way, is put right: whole
        numbers as 5.0, JSON within a string, null for what has a default.

        Args:
            arguments: An object, or JSON text of one; nothing stands for {}.

        Raises:
            ToolError: They are no JSON, or not what the function takes.
        """
        data = as_json(self._tool, arguments)
        try:
            checked = self.model.model_validate_json(data)
        except ValidationError as error:
            checked = self._read_again(data, error)
        values = checked.__dict__
        return {name: values[field] for field, name in self._names.items()}, len(data)

    def _read_again(self, data: bytes, error: ValidationError) -> BaseModel:
        """What `data` must mean; else an error that says how to put it right."""
        try:
            given, meant = from_json(data), from_json(data)
        except ValueError as malformed:
            raise ToolError(
                f"{self._tool}: the arguments are no JSON: {malformed}", code="invalid_json"
            ) from error
        errors = error.errors(include_url=False, include_context=False)
        for _ in range(_MAX_REPAIRS):
            if not repair(meant, errors):
                break
            try:
                return self.model.model_validate_json(to_json(meant))
            except ValidationError as another:
                errors = another.errors(include_url=False, include_context=False)
        problems = explained(given, meant, errors, self.names)
        example = "" if self._example is None else to_json(dict(self._example)).decode()
        raise ToolError(
            f"{self._tool}: {problems}",
            hint=f"Correct that and call again, for example with {example}" if example else None,
        ) from None


def as_json(tool: str, arguments: Mapping[str, Any] | str | bytes | None) -> bytes:
    """Arguments as JSON text.

    Raises:
        ToolError: They hold what JSON does not have.
    """
    if isinstance(arguments, (bytes, bytearray)):
        return bytes(arguments) if arguments.strip() else b"{}"
    try:
        if isinstance(arguments, str):
            return arguments.encode() if arguments.strip() else b"{}"
        return b"{}" if arguments is None else to_json(arguments)
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise ToolError(
            f"{tool}: the arguments cannot be written as JSON: {error}", code="invalid_json"
        ) from error


def type_hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """The annotations of a function, evaluated.

    Raises:
        InvalidArgumentError: They cannot be.
    """
    called = function if inspect.isroutine(function) else type(function).__call__
    try:
        return get_type_hints(called, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise InvalidArgumentError(
            f"tool {name!r}: its annotations cannot be read: {error}; names must be there when the "
            "program runs, not under TYPE_CHECKING alone"
        ) from error


def _field(parameter: inspect.Parameter, description: str | None) -> FieldInfo:
    required = parameter.default is inspect.Parameter.empty
    field: FieldInfo = Field(
        default=... if required else parameter.default,
        alias=parameter.name.rstrip("_"),
        description=_unwrapped(description) if description else None,
    )
    return field


def _unwrapped(text: str) -> str:
    """A docstring's text, a line for each paragraph."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
