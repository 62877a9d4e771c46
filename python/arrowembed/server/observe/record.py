"""What is known of a request when it has been answered: for metrics, logs and traces alike."""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arrowembed.scheduler import Encoded


@dataclass(slots=True)
class RequestRecord:
    """Numbers and names of one request; nothing of what the client sent.

    Attributes:
        request_id: See `requests.RequestId`.
        model: Name under which the model is served, "" if none was asked.
        client: How the client is known: "key", "token", "anonymous"; "" before that is clear.
        code: Code of the error that the client was told.
        trace_id: Of the trace that the request is part of, if there are traces.
        encoded: Whether texts were embedded for it. All below are 0 otherwise.
        texts: How many.
        tokens: In all of them.
        truncated: Texts that were cut.
        cache_hits: Texts whose vector was in the cache.
        queue_seconds: Time until the first of them was taken.
        compute_seconds: Time that the engine computed.
        encoded_at: When it was done, in nanoseconds since 1970.
        store: Name of the store that was searched; "" if none was, and the next two are 0.
        hits: Entries that were found.
        search_seconds: Time until they were.
        headers: For the answer, whichever it is.
    """

    request_id: str = ""
    model: str = ""
    client: str = ""
    code: str | None = None
    trace_id: str = ""
    encoded: bool = False
    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    cache_hits: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0
    encoded_at: int = 0
    store: str = ""
    hits: int = 0
    search_seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)

    def add(self, encoded: Encoded) -> None:
        """Adds texts that were embedded for the request."""
        self.cache_hits += encoded.cache_hits
        self.count(
            len(encoded.vectors),
            encoded.tokens,
            encoded.truncated,
            encoded.queue_seconds,
            encoded.compute_seconds,
        )

    def count(
        self,
        texts: int,
        tokens: int,
        truncated: int,
        queue_seconds: float,
        compute_seconds: float,
    ) -> None:
        """Adds what texts that were embedded for the request took."""
        self.encoded = True
        self.texts += texts
        self.tokens += tokens
        self.truncated += truncated
        self.queue_seconds += queue_seconds
        self.compute_seconds += compute_seconds
        self.encoded_at = time.time_ns()


_current: ContextVar[RequestRecord] = ContextVar("arrowembed_request")


def begin(request_id: str) -> RequestRecord:
    """A record for the request that this task is about to answer."""
    record = RequestRecord(request_id)
    _current.set(record)
    return record


def current() -> RequestRecord:
    """The record of the request that this task answers; outside of one, a record for nobody."""
    return _current.get(None) or RequestRecord()
