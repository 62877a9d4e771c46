"""Logs: a line of JSON for each event, or a readable line on a terminal.

Everything is logged with the standard library; structlog gives all of it one form, that of uvicorn
and other libraries, too. What clients send must not get there. So only named fields are written,
libraries are heard from warnings on, and of an exception its type and place, because its message
may quote a text.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson
import structlog

from arrowembed.errors import ArrowEmbedError
from arrowembed.server.observe.record import current

if TYPE_CHECKING:
    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LogForm: TypeAlias = Literal["auto", "json", "console"]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]

FIELDS: Final = (
    "method",
    "route",
    "status",
    "duration_ms",
    "model",
    "texts",
    "tokens",
    "truncated",
    "cache_hits",
    "queue_ms",
    "compute_ms",
    "store",
    "hits",
    "search_ms",
    "client",
    "code",
    "trace_id",
)
"""What may be given as `extra`; all else is left out."""

_TIME = structlog.processors.TimeStamper(fmt="iso", utc=True)
_OWN_LOGGERS = ("arrowembed", "uvicorn")
_REQUESTS = "arrowembed.server.request"

_request_log: FilteringBoundLogger = structlog.wrap_logger(
    logging.getLogger(_REQUESTS),
    processors=[structlog.stdlib.render_to_log_kwargs],
    wrapper_class=structlog.stdlib.BoundLogger,
)


def configure_logging(level: LogLevel, form: LogForm) -> None:
    """Sends all logs of this process to standard error.

    Args:
        level: Of this service and of uvicorn.
        form: "auto" is "console" on a terminal and "json" elsewhere.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(console=console))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OWN_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(level.upper())
    # Its lines hold addresses as they were asked for, and in them whatever clients put there.
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    global _request_log  # noqa: PLW0603 - logging is the process's, as everywhere
    _request_log = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[
            _TIME,
            structlog.stdlib.add_log_level,
            _add_request_id,
            _renderer(console=console),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    ).bind(logger=_REQUESTS)


def request_log() -> FilteringBoundLogger:
    """What writes a line for each request.

    There are thousands a second. So once logging is configured they do not pass through the
    standard library, which takes four times as long. Elsewhere they go where all else goes.
    """
    return _request_log


def formatter(*, console: bool) -> logging.Formatter:
    """What makes a line of a record of the standard library."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            _TIME,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(allow=FIELDS),
            _add_request_id,
            _describe_exception,
            _keep_first_line,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _renderer(console=console),
        ],
    )


def _renderer(*, console: bool) -> Processor:
    if console:
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.processors.JSONRenderer(serializer=_to_json)


def _to_json(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event).decode()


def _add_request_id(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    del logger, name
    if request_id := current().request_id:
        event["request_id"] = request_id
    return event


def _describe_exception(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    del logger, name
    exc_info = event.pop("exc_info", None)
    if exc_info and exc_info[1] is not None:
        event["exception"] = "\n".join(_described(exc_info[1]))
    return event


def _described(error: BaseException) -> list[str]:
    """An exception and what caused it: where it passed, what it was."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    lines.append(f"{type(error).__module__}.{type(error).__qualname__}{_safe_message(error)}")
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return lines if cause is None else [*_described(cause), "then", *lines]


def _safe_message(error: BaseException) -> str:
    """What an exception says, if it cannot quote what a client sent."""
    if isinstance(error, ArrowEmbedError):
        return f": {error}"
    if isinstance(error, OSError) and error.strerror:
        return f": {error.strerror}"
    return ""


def _keep_first_line(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Drops what asyncio shows on further lines: objects, and in them an exception's message."""
    del logger, name
    event["event"] = event["event"].partition("\n")[0]
    return event
