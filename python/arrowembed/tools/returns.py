"""What a typed function gives: its schema, and its values as plain JSON."""

from __future__ import annotations

from copy import deepcopy
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools.outcome import ToolError
from arrowembed.tools.parameters import PlainSchema, type_hints
from arrowembed.tools.room import json_bytes

if TYPE_CHECKING:
    from collections.abc import Callable


class Returns:
    """What a function gives.

    Args:
        function: One without a return annotation may give any JSON.
        name: Of the tool, for messages.

    Raises:
        InvalidArgumentError: The annotation is of no use.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._tool = name
        kind = type_hints(function, name).get("return", Any)
        try:
            self._adapter = _adapter(kind)
        except (PydanticUserError, TypeError) as error:
            raise InvalidArgumentError(f"tool {name!r}: its result: {error}") from error

    def schema(self) -> dict[str, Any]:
        """JSON Schema 2020-12 of the result."""
        return deepcopy(self._schema)

    @cached_property
    def are_objects(self) -> bool:
        """Whether all values are JSON objects, as the schema says; unions are not taken for it."""
        name = self._schema.get("$ref", "").removeprefix("#/$defs/")
        found = self._schema.get("$defs", {}).get(name, self._schema)
        return bool(found.get("type") == "object")

    @cached_property
    def _schema(self) -> dict[str, Any]:
        return self._adapter.json_schema(mode="serialization", schema_generator=PlainSchema)

    def plain(self, value: Any) -> tuple[Any, int]:
        """A value as plain JSON, that is strings, numbers, lists and dictionaries, and its bytes.

        Raises:
            ToolError: It is not of the kind that was promised.
        """
        try:
            plain = self._adapter.dump_python(value, mode="json", warnings="error")
            return plain, json_bytes(plain)
        except (PydanticSerializationError, ValueError, TypeError) as error:
            # What the error says would quote the value.
            raise ToolError(
                f"{self._tool}: gave a {type(value).__name__} that is not of its result's type",
                code="invalid_result",
            ) from error


def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        # NaN is to be an error, not null.
        return TypeAdapter(kind, config=ConfigDict(ser_json_inf_nan="constants"))
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(kind)  # a model, which has a configuration of its own
