"""From the bytes of a body to a checked request, or an error that says what is wrong."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from arrowembed.server.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails
    from starlette.requests import Request

    from arrowembed.server.settings import ServerSettings

JSON = "application/json"

_WHOLE = 2**53
"""Up to here, numbers of double precision stand for all whole numbers."""

M = TypeVar("M", bound=BaseModel)


def media_type(request: Request) -> str:
    """The type of a request's body, without parameters; "" if it does not say."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, seconds: float) -> bytes:
    """The whole body.

    Raises:
        ServiceError: It did not come in time (`slow_request`), the client is gone
            (`client_closed_request`), or it is too large.
    """
    try:
        async with asyncio.timeout(seconds):
            return await request.body()
    except TimeoutError as error:
        raise ServiceError(
            "slow_request", f"the body was not there within {seconds:g} seconds"
        ) from error
    except ClientDisconnect as error:
        raise ServiceError("client_closed_request", "the client is gone") from error


async def read_json(request: Request, seconds: float) -> dict[str, Any]:
    """The object in a body of JSON.

    Raises:
        ServiceError: The body is of another type, not JSON, or no object.
    """
    if (given := media_type(request)) != JSON:
        raise ServiceError(
            "unsupported_media_type",
            f"content-type: {given or 'is missing'}; send {JSON}",
        )
    value = parse_json(await read_body(request, seconds))
    if not isinstance(value, dict):
        raise ServiceError("invalid_request", f"the body: expected an object, {JSON}")
    return value


def parse_json(body: bytes) -> Any:
    """The value of JSON text, without what JSON does not have or leaves open.

    Raises:
        ServiceError: It is not UTF-8 or not JSON, has a field twice, or is nested too deeply.
    """
    try:
        return _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _malformed(f"it is not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise _malformed(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _malformed("it is nested too deeply") from error
    except ValueError as error:
        raise _malformed("a number in it is too long") from error


def checked(form: type[M], value: dict[str, Any]) -> M:
    """A request of a form.

    Raises:
        ServiceError: A field is missing, unknown or wrong; the message names it.
    """
    try:
        return form.model_validate(value)
    except ValidationError as error:
        raise _invalid(form, error.errors(include_url=False, include_input=False)[0]) from None


def checked_query(form: type[M], request: Request) -> dict[str, Any]:
    """The fields of a form that stand in a request's query.

    Raises:
        ServiceError: As `checked`, or a field is there twice.
    """
    pairs = request.query_params.multi_items()
    fields = _distinct(pairs)
    try:
        return form.model_validate_strings(fields).model_dump(exclude_unset=True)
    except ValidationError as error:
        raise _invalid(form, error.errors(include_url=False, include_input=False)[0]) from None


def check_texts(texts: Sequence[str], settings: ServerSettings) -> None:
    """Refuses more or larger texts than the settings allow.

    Raises:
        ServiceError: `too_many_texts`, or `text_too_large` with the text's index.
    """
    check_count(len(texts), settings)
    for index, text in enumerate(texts):
        if len(text) > settings.max_text_chars:
            raise ServiceError(
                "text_too_large",
                f"text {index} has {len(text)} characters; at most {settings.max_text_chars} "
                "are taken, split it",
                index=index,
            )


def check_count(texts: int, settings: ServerSettings) -> None:
    """Refuses more texts than the settings allow.

    Raises:
        ServiceError: `too_many_texts`.
    """
    if texts > settings.max_texts:
        raise ServiceError(
            "too_many_texts", f"{texts} texts; send at most {settings.max_texts} in a request"
        )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ServiceError("invalid_request", f"{_shown(twice)}: is given more than once")
    return fields


def _number(written: str) -> float:
    """JSON has one kind of numbers: 2.0 is the whole number 2."""
    number = float(written)
    return int(number) if number.is_integer() and abs(number) <= _WHOLE else number


def _refused(constant: str) -> Any:
    raise _malformed(f"{constant} is no JSON; send null or a number")


def _malformed(why: str) -> ServiceError:
    return ServiceError("malformed_request", f"the body is no JSON: {why}")


def _invalid(form: type[BaseModel], error: ErrorDetails) -> ServiceError:
    """The first thing that is wrong with a request, in words for whoever wrote it."""
    location = error["loc"]
    field = str(location[0]) if location else None
    index = location[1] if len(location) > 1 and isinstance(location[1], int) else None
    where = _shown(field) if field is not None else "the body"
    where += "".join(f"[{part}]" for part in location[1:])
    match error["type"]:
        case "extra_forbidden":
            known = ", ".join(form.model_fields)
            return ServiceError("invalid_request", f"{where}: no such field; known are {known}")
        case "lone_surrogate":
            message = f"{where}: {error['msg']}"
            return ServiceError("invalid_text", message, index=index, field=field)
    message = error["msg"].removeprefix("Value error, ")
    message = re.sub("^(Input|Value|List) should", "should", message)
    return ServiceError("invalid_request", f"{where}: {message}", index=index, field=field)


def _shown(name: str) -> str:
    """A field's name as it may stand in a message; it comes from outside."""
    return ascii(name)[1:-1][:64]


_DECODER = json.JSONDecoder(
    object_pairs_hook=_distinct, parse_constant=_refused, parse_float=_number
)
