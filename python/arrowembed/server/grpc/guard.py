"""What stands in front of every call: who is it, may they, and how errors are told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf.message import DecodeError
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from arrowembed.server.errors import ServiceError
from arrowembed.server.grpc import api
from arrowembed.server.grpc.calls import Caller, Client, set_client
from arrowembed.server.grpc.refusals import Refusal
from arrowembed.server.observe.record import begin, current
from arrowembed.server.security.access import Credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Collection

    from arrowembed.server.grpc.calls import Calls, Context
    from arrowembed.server.grpc.observing import Observer
    from arrowembed.server.security.access import Access
    from arrowembed.server.security.principal import Scope

    Handler = grpc.RpcMethodHandler[Any, Any]

_SCOPES: Final[dict[str, Scope]] = {
    f"/{api.SERVICE}/Embed": "embed",
    f"/{api.SERVICE}/EmbedStream": "embed",
    f"/{api.SERVICE}/Similarity": "embed",
    f"/{api.SERVICE}/Search": "search",
    f"/{api.SERVICE}/Info": "embed",
}
"""What is needed to call each method; all else (health, reflection) is for everybody."""

_FORWARDING: Final = frozenset(("forwarded", "x-forwarded-for", "x-real-ip"))
"""What proxies add."""


class Guard(grpc.aio.ServerInterceptor):
    """Lets calls in, gives them a request id, and tells their errors.

    Args:
        access: Decides who a client is.
        calls: All calls.
        observer: What counts, logs and traces them.
        seconds: Time in which a call's message must be there.
        trusted_proxies: Addresses or networks whose `x-forwarded-for` is believed.
    """

    def __init__(
        self,
        access: Access,
        calls: Calls,
        observer: Observer,
        *,
        seconds: float,
        trusted_proxies: Collection[str],
    ) -> None:
        self._access = access
        self._calls = calls
        self._observer = observer
        self._seconds = seconds
        self._wrapped: dict[str, Handler] = {}
        # The rule is that of HTTP, and so is what applies it.
        self._forwarded = ProxyHeadersMiddleware(_nothing, list(trusted_proxies))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps what answers a call."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None or method not in _SCOPES:
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        self._calls.begin()
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        parse = _tolerant(handler.request_deserializer)
        if handler.response_streaming:
            stream = self._stream(method, handler)
            return grpc.stream_stream_rpc_method_handler(stream, parse, handler.response_serializer)
        unary = self._unary(method, handler)
        # On the wire that is the same. Here it lets strangers be refused before they are read.
        return grpc.stream_unary_rpc_method_handler(unary, parse, handler.response_serializer)

    def _unary(self, method: str, handler: Handler) -> Callable[..., Awaitable[Any]]:
        respond = cast("Callable[..., Awaitable[Any]]", handler.unary_unary)

        async def answer(_: AsyncIterable[Any], context: Context) -> Any:
            caller = Caller.of(method, context)
            with self._observer.request(caller) as record:
                try:
                    await self._admit(caller)
                    response = await respond(await self._message(context), context)
                except asyncio.CancelledError:
                    record.code = self._calls.why_cancelled(context)
                    raise
                except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
                    await Refusal.of(error).end(context)
            _set_metadata(context)
            return response

        return answer

    def _stream(self, method: str, handler: Handler) -> Callable[..., Awaitable[None]]:
        """Of a stream each request is observed, by what answers it; and the call, if it fails."""
        respond = cast("Callable[..., Awaitable[None]]", handler.stream_stream)

        async def answer(requests: AsyncIterable[Any], context: Context) -> None:
            caller = Caller.of(method, context)
            begin(caller.request_id)
            try:
                await self._admit(caller)
                await respond(requests, context)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
                with self._observer.request(caller):
                    await Refusal.of(error).end(context)
            _set_metadata(context)

        return answer

    async def _admit(self, caller: Caller) -> None:
        metadata = caller.metadata
        address = await self._address(caller)
        principal = await self._access.authenticate(
            Credentials(
                authorization=metadata.get("authorization"),
                api_key=metadata.get("x-api-key"),
                address=address,
                forwarded=not _FORWARDING.isdisjoint(metadata),
            )
        )
        current().client = principal.kind
        principal.demand(_SCOPES[caller.method])
        set_client(Client(caller, principal, address))

    async def _message(self, context: Context) -> Any:
        """The message of a call that has one."""
        try:
            async with asyncio.timeout(self._seconds):
                message = await context.read()
        except TimeoutError:
            raise ServiceError(
                "slow_request", f"the message was not there within {self._seconds:g} seconds"
            ) from None
        if message is None or message is grpc.aio.EOF:
            raise malformed()
        return message

    async def _address(self, caller: Caller) -> str | None:
        if caller.peer is None or "x-forwarded-for" not in caller.metadata:
            return caller.peer
        header = (b"x-forwarded-for", caller.metadata["x-forwarded-for"].encode())
        scope: dict[str, Any] = {"type": "http", "client": (caller.peer, 0), "headers": [header]}
        await self._forwarded(cast("Any", scope), _nothing, _nothing)
        address: str = scope["client"][0]
        return address


def malformed() -> ServiceError:
    """The error for bytes that are no message."""
    return ServiceError(
        "malformed_request", "the message cannot be read: it is damaged or no UTF-8"
    )


def _tolerant(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Gives None for bytes that are no message; gRPC would tell clients of the exception."""

    def parse_or_none(body: bytes) -> Any:
        try:
            return cast("Callable[[bytes], Any]", parse)(body)
        except DecodeError:
            return None

    return parse_or_none


def _set_metadata(context: Context) -> None:
    record = current()
    context.set_trailing_metadata((*record.headers.items(), ("x-request-id", record.request_id)))


async def _nothing(*_: Any) -> Any:
    """An ASGI application, and its channels, for a middleware that only looks at headers."""
