"""What can go wrong, for whoever asks: one table from an error's code to HTTP and gRPC.

An error's code is stable. Its message reaches clients only where the table says so: those of the
engine's own failures may name files of the server, and are logged instead.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Match

from arrowembed.errors import ArrowEmbedError
from arrowembed.server.dialects import dialect_of, error_body, status_in
from arrowembed.server.observe.record import current

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Scope

logger = logging.getLogger("arrowembed.server")


@dataclass(frozen=True, slots=True)
class Kind:
    """How an error is answered."""

    http: int
    """HTTP status."""
    grpc: str
    """Name of the gRPC status."""
    message: str | None = None
    """What clients are told; None tells them the error's own message."""
    retry_after: int | None = None
    """Seconds after which it may be tried again."""


_BROKEN = "the server failed to answer; its log says why, under the request_id"
_FULL = "the server is short of memory; try again later"

TABLE: dict[str, Kind] = {
    # The request is wrong.
    "malformed_request": Kind(400, "INVALID_ARGUMENT"),
    "unauthorized": Kind(401, "UNAUTHENTICATED"),
    "forbidden": Kind(403, "PERMISSION_DENIED"),
    "not_found": Kind(404, "NOT_FOUND"),
    "unknown_model": Kind(404, "NOT_FOUND"),
    "unknown_prompt": Kind(404, "NOT_FOUND"),
    "unknown_store": Kind(404, "NOT_FOUND"),
    "handle_gone": Kind(404, "NOT_FOUND"),
    "method_not_allowed": Kind(405, "UNIMPLEMENTED"),
    "slow_request": Kind(408, "DEADLINE_EXCEEDED"),
    "conflict": Kind(409, "FAILED_PRECONDITION"),
    "duplicate_id": Kind(409, "FAILED_PRECONDITION"),
    "payload_too_large": Kind(413, "INVALID_ARGUMENT"),
    "unsupported_media_type": Kind(415, "INVALID_ARGUMENT"),
    "invalid_request": Kind(422, "INVALID_ARGUMENT"),
    "too_many_texts": Kind(422, "INVALID_ARGUMENT"),
    "text_too_large": Kind(422, "INVALID_ARGUMENT"),
    "text_too_long": Kind(422, "INVALID_ARGUMENT"),
    "invalid_text": Kind(422, "INVALID_ARGUMENT"),
    "text_type": Kind(422, "INVALID_ARGUMENT"),
    "invalid_argument": Kind(422, "INVALID_ARGUMENT"),
    "invalid_handle": Kind(422, "INVALID_ARGUMENT"),
    # It comes at a bad time.
    "rate_limited": Kind(429, "RESOURCE_EXHAUSTED", retry_after=1),
    "queue_full": Kind(
        429,
        "RESOURCE_EXHAUSTED",
        "too much is waiting to be computed; try again later",
        retry_after=1,
    ),
    "client_closed_request": Kind(499, "CANCELLED"),
    "authentication_unavailable": Kind(503, "UNAVAILABLE", retry_after=10),
    "rate_limit_unavailable": Kind(503, "UNAVAILABLE", retry_after=1),
    "closed": Kind(503, "UNAVAILABLE", "the server is shutting down", retry_after=1),
    "loading": Kind(503, "UNAVAILABLE", retry_after=1),
    "model_unavailable": Kind(503, "UNAVAILABLE", retry_after=10),
    "out_of_memory": Kind(503, "RESOURCE_EXHAUSTED", _FULL, retry_after=10),
    "memory_budget": Kind(503, "RESOURCE_EXHAUSTED", _FULL, retry_after=10),
    "shared_memory": Kind(503, "RESOURCE_EXHAUSTED", _FULL, retry_after=10),
    "store_locked": Kind(
        503, "UNAVAILABLE", "another process writes to the store; try again later", retry_after=1
    ),
    "timeout": Kind(504, "DEADLINE_EXCEEDED"),
    # The server is wrong.
    "model_not_found": Kind(500, "INTERNAL", _BROKEN),
    "io": Kind(500, "INTERNAL", _BROKEN),
    "invalid_file": Kind(500, "INTERNAL", _BROKEN),
    "unsupported_model": Kind(500, "INTERNAL", _BROKEN),
    "tokenizer": Kind(500, "INTERNAL", _BROKEN),
    "non_finite": Kind(500, "INTERNAL", _BROKEN),
    "device": Kind(500, "INTERNAL", _BROKEN),
    "store_not_found": Kind(500, "INTERNAL", _BROKEN),
    "invalid_store": Kind(500, "INTERNAL", _BROKEN),
    "store_mismatch": Kind(500, "INTERNAL", _BROKEN),
    "store_io": Kind(500, "INTERNAL", _BROKEN),
    "internal": Kind(500, "INTERNAL", _BROKEN),
    "error": Kind(500, "INTERNAL", _BROKEN),
    "missing_dependency": Kind(501, "UNIMPLEMENTED"),
    "no_store": Kind(501, "UNIMPLEMENTED"),
}

_CODE_OF_STATUS = {
    400: "malformed_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "rate_limited",
}
"""For errors that the web framework raises by their status."""


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class ServiceError(ArrowEmbedError):
    """An error of the service itself.

    Args:
        code: A key of `TABLE`.
        message: What was wrong, where, and what to do; clients see it.
        index: Position of the text that was wrong.
        field: Name of the request's field that was wrong.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        index: int | None = None,
        field: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.index = index
        self.field = field
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a client is told of it."""

    code: str
    message: str
    index: int | None = None
    """Position of the text that was wrong."""
    field: str | None = None
    """Name of the request's field that was wrong."""

    @property
    def kind(self) -> Kind:
        """How it is answered."""
        return TABLE[self.code]


def told(error: BaseException) -> Told:
    """What a client is told of any error. Logs what it is not told."""
    code = code_of(error)
    hidden = TABLE[code].message
    index, field = getattr(error, "index", None), getattr(error, "field", None)
    if hidden is None:
        return Told(code, str(error), index, field)
    if TABLE[code].http == 500:
        # What an exception says may quote a text; `observe.logs` decides what is shown of it.
        logger.error("%s", code, exc_info=error)
    return Told(code, hidden, index, field)


def code_of(error: BaseException) -> str:
    """An error's code, or the nearest one of its class that the table has."""
    codes = (getattr(error, "code", None), *(vars(c).get("code") for c in type(error).__mro__))
    return next((code for code in codes if isinstance(code, str) and code in TABLE), "internal")


def error_response(
    scope: Scope, error: Told, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed, in the dialect of the request."""
    current().code = error.code
    after = error.kind.retry_after
    headers = {**({"retry-after": str(after)} if after is not None else {}), **(headers or {})}
    dialect = dialect_of(scope)
    body = error_body(dialect, error, request_id_of(scope))
    return JSONResponse(body, status_in(dialect, error.kind.http), headers)


def request_id_of(scope: Scope) -> str:
    """The id of a request, which `requests.RequestId` gave it."""
    return str(scope["state"]["request_id"])


async def answer_error(request: Request, error: Exception) -> Response:
    """The exception handler for `ArrowEmbedError`."""
    return error_response(request.scope, told(error), getattr(error, "headers", None))


async def answer_http_error(request: Request, error: HTTPException) -> Response:
    """The exception handler for what the web framework raises: no such path, method and so on."""
    code = _CODE_OF_STATUS.get(error.status_code, "internal")
    message = TABLE[code].message or f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = _allowed(request)
    return error_response(request.scope, Told(code, message), headers)


def _allowed(request: Request) -> str:
    """The methods of a path; where it has several routes, the framework names those of one."""
    asked = ({**request.scope, "method": method} for method in _METHODS)
    return ", ".join(
        scope["method"]
        for scope in asked
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)
    )
