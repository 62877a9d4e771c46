"""Kinds of fields that several dialects share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError


class Request(BaseModel):
    """A request: every field has to be known, and of its very type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LenientRequest(BaseModel):
    """A request in a dialect whose own servers pass over fields that they do not know."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


def _whole(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise PydanticCustomError(
                "lone_surrogate",
                "holds half of a surrogate pair at character {place}, which is no character",
                {"place": error.start},
            ) from None
    return value


Text = Annotated[str, AfterValidator(_whole)]
"""A text in Unicode: JSON also has ways to write what is none."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[
    list[Text],
    BeforeValidator(_as_list),
    Field(min_length=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
"""One text or several."""
