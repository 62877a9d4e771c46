"""How requests and errors appear in the OpenAPI document.

Bodies are read and checked by `bodies`, not by FastAPI, so that each error has a code and an answer
takes no detour; what FastAPI cannot see is said here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrowembed.server.arrow_stream import ARROW
from arrowembed.server.dialects import status_in
from arrowembed.server.schemas.native import ErrorResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from arrowembed.server.dialects import Dialect

_STREAM = {"schema": {"type": "string", "format": "binary"}}

_OF_CLIENTS = {
    401: "Credentials are missing or do not hold.",
    403: "The client may not do this.",
    503: "The server cannot check tokens now, is loading, shutting down or short of memory.",
}
_MEANINGS = _OF_CLIENTS | {
    400: "The body is no JSON.",
    404: "There is no such model, or it has no such prompt.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "A field is missing, unknown or wrong, or a text cannot be taken.",
    429: "Too many texts are waiting, or the client asks too often.",
    500: "The server failed; its log says why.",
    504: "It took too long.",
}


def errors_in(form: Any, dialect: Dialect = "native") -> dict[int | str, dict[str, Any]]:
    """What can go wrong with any request that has a body.

    Args:
        form: The form of an error, a model or a union of several.
        dialect: Whose statuses they have.
    """
    return _answers(form, dialect, _MEANINGS)


def refusals_in(form: Any, dialect: Dialect = "native") -> dict[int | str, dict[str, Any]]:
    """What can go wrong with any request for which credentials may be needed.

    Args:
        form: As for `errors_in`.
        dialect: As for `errors_in`.
    """
    return _answers(form, dialect, _OF_CLIENTS)


def _answers(
    form: Any, dialect: Dialect, meanings: Mapping[int, str]
) -> dict[int | str, dict[str, Any]]:
    described: dict[int, str] = {}
    for usual, meaning in meanings.items():
        status = status_in(dialect, usual)
        before = f"{described[status]} " if status in described else ""
        described[status] = before + meaning
    return {status: {"model": form, "description": text} for status, text in described.items()}


REFUSALS = refusals_in(ErrorResponse)
"""Refusals in the service's own form."""


def json_body(
    *forms: type[BaseModel], arrow: bool = False, query: type[BaseModel] | None = None
) -> dict[str, Any]:
    """The body of a route that takes JSON of any of some forms.

    Args:
        forms: The forms.
        arrow: Whether it takes an Arrow stream, too.
        query: A form whose fields may stand in the query.
    """
    schemas = [_schema(form) for form in forms]
    content = {"application/json": {"schema": schemas[0]}}
    if len(schemas) > 1:
        examples = [example for schema in schemas for example in schema.pop("examples", [])]
        content = {"application/json": {"schema": {"anyOf": schemas, "examples": examples}}}
    if arrow:
        content[ARROW] = _STREAM
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if query is not None:
        extra["parameters"] = _parameters(query)
    return extra


def arrow_too(description: str) -> dict[str, Any]:
    """An answer that may also be an Arrow stream."""
    return {"description": description, "content": {ARROW: _STREAM}}


def _schema(form: type[BaseModel]) -> dict[str, Any]:
    """The schema of a form; what it refers to is in it, because it stands inside of another one."""
    schema = form.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, list):
            return [resolved(each) for each in value]
        if not isinstance(value, dict):
            return value
        name = value.get("$ref", "").rpartition("/")[2]
        return {
            key: resolved(each)
            for key, each in {**definitions.get(name, {}), **value}.items()
            if key != "$ref"
        }

    whole: dict[str, Any] = resolved(schema)
    return whole


def _parameters(form: type[BaseModel]) -> list[dict[str, Any]]:
    fields = form.model_json_schema()["properties"]
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": field["description"],
            # There is no null in a query: a field is left out instead.
            "schema": next(
                (kind for kind in field.get("anyOf", []) if kind != {"type": "null"}),
                {key: field[key] for key in ("type", "enum") if key in field},
            ),
        }
        for name, field in fields.items()
    ]
