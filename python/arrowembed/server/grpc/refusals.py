"""How errors are told: in a call's status and metadata, or in an answer of a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Never

import grpc
from google.protobuf.any_pb2 import Any as Detail
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from arrowembed.server.errors import Told, told
from arrowembed.server.grpc import api
from arrowembed.server.observe.record import current

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from arrowembed.server.grpc.calls import Context

_DOMAIN = "arrowembed"
_LONGEST_MESSAGE = 1000
"""In bytes. Clients refuse metadata of more than 8 KiB; the message is there twice, and takes the
triple where it is not ASCII."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error, for a client of gRPC."""

    error: Told
    headers: dict[str, str]
    """What HTTP would have in headers."""

    @classmethod
    def of(cls, error: Exception) -> Refusal:
        """What a client is told of any error. Notes it for metrics and logs."""
        known = told(error)
        current().code = known.code
        after = known.kind.retry_after
        headers = {} if after is None else {"retry-after": str(after)}
        return cls(known, {**headers, **getattr(error, "headers", {})})

    @property
    def retry_after(self) -> int | None:
        """Seconds after which it may be tried again."""
        after = self.headers.get("retry-after")
        return None if after is None else int(after)

    async def end(self, context: Context) -> Never:
        """Ends a call.

        Raises:
            AbortError: Always; it belongs to gRPC.
        """
        code = grpc.StatusCode[self.error.kind.grpc]
        message = _cut(self.error.message)
        status = Status(code=code.value[0], message=message, details=self._details())
        metadata = {**current().headers, **self.headers, "error-code": self.error.code}
        await context.abort(
            code,
            message,
            (
                *metadata.items(),
                ("x-request-id", current().request_id),
                ("grpc-status-details-bin", status.SerializeToString()),
            ),
        )

    def answer(self, number: int) -> api.EmbedStreamResponse:
        """The answer to a request of a stream.

        Args:
            number: The request's id.
        """
        error = api.Error(
            code=self.error.code,
            message=self.error.message,
            index=self.error.index,
            request_id=current().request_id,
            retry_after_seconds=self.retry_after,
        )
        return api.EmbedStreamResponse(id=number, error=error)

    def _details(self) -> list[Detail]:
        """The error in google.rpc's words, which many clients know how to read."""
        index = {} if self.error.index is None else {"index": str(self.error.index)}
        details: list[Message] = [
            ErrorInfo(reason=self.error.code.upper(), domain=_DOMAIN, metadata=index),
            RequestInfo(request_id=current().request_id),
        ]
        if self.retry_after is not None:
            details.append(RetryInfo(retry_delay=Duration(seconds=self.retry_after)))
        return [_boxed(detail) for detail in details]


def _boxed(message: Message) -> Detail:
    box = Detail()
    box.Pack(message)
    return box


def _cut(message: str) -> str:
    return message.encode()[:_LONGEST_MESSAGE].decode(errors="ignore")
