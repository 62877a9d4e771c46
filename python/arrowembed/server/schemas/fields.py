"""Kinds of fields that several dialects share."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
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


def check_whole(value: Any) -> Any:
    """JSON whose texts are all Unicode, however deep they are."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise PydanticCustomError(
            "lone_surrogate", "holds half of a surrogate pair, which is no character"
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


Id = Annotated[int, Field(ge=0)]
"""Of a token."""

Ids = Annotated[list[Id], Field(min_length=1)]
"""Those of a text's tokens."""

IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
"""Schema of `Ids`."""


def _text_or_ids(value: Any) -> str | list[int]:
    if isinstance(value, str):
        return _whole(value)
    if isinstance(value, list) and value and all(map(_is_id, value)):
        return value
    raise PydanticCustomError("input_type", "should be a text, or a list of token ids")


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def ids_as_list(value: Any) -> Any:
    """The ids of one text's tokens as those of a list of one."""
    return [value] if isinstance(value, list) and value and _is_id(value[0]) else value


def _as_inputs(value: Any) -> Any:
    return [value] if isinstance(value, str) else ids_as_list(value)


def _of_one_kind(inputs: list[str | list[int]]) -> list[str | list[int]]:
    if len({type(each) for each in inputs}) > 1:
        raise PydanticCustomError("mixed_inputs", "holds texts and token ids; send either of them")
    return inputs


Inputs = Annotated[
    list[Annotated[str | list[int], PlainValidator(_text_or_ids)]],
    BeforeValidator(_as_inputs),
    Field(min_length=1),
    AfterValidator(_of_one_kind),
]
"""One text or several, each as such or as the ids of its tokens; `inputs_schema` is its schema."""


def inputs_schema(text: dict[str, Any]) -> WithJsonSchema:
    """The schema of `Inputs` whose texts have a schema."""
    return WithJsonSchema(
        {
            "anyOf": [
                text,
                {"type": "array", "items": text, "minItems": 1},
                IDS_SCHEMA,
                {"type": "array", "items": IDS_SCHEMA, "minItems": 1},
            ]
        }
    )
