"""How requests and errors appear in the OpenAPI document.

Bodies are read and checked by `bodies`, not by FastAPI, so that each error has a code and an answer
takes no detour; what FastAPI cannot see is said here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from arrowembed.server.errors import TABLE
from arrowembed.server.schemas.native import ErrorResponse

if TYPE_CHECKING:
    from pydantic import BaseModel

_MEANINGS = {
    400: "The body is no JSON.",
    404: "There is no such model.",
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body is of another type.",
    422: "A field is missing, unknown or wrong, or a text cannot be taken.",
    429: "Too many texts are waiting, or the client asks too often.",
    500: "The server failed; its log says why.",
    503: "The server is loading, shutting down or short of memory.",
    504: "It took too long.",
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": meaning}
    for status, meaning in _MEANINGS.items()
    if any(kind.http == status for kind in TABLE.values())
}
"""What can go wrong with any request that has a body."""


def json_body(*forms: type[BaseModel]) -> dict[str, Any]:
    """The body of a route that takes JSON of any of some forms."""
    schemas = [form.model_json_schema() for form in forms]
    schema = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
