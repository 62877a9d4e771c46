"""The methods of the service."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc

from arrowembed.errors import ClosedError
from arrowembed.server.bodies import check_texts
from arrowembed.server.grpc import api
from arrowembed.server.grpc.calls import client
from arrowembed.server.grpc.guard import malformed
from arrowembed.server.grpc.messages import (
    embed_request,
    embed_response,
    search_request,
    search_response,
    similarity_request,
)
from arrowembed.server.grpc.refusals import Refusal
from arrowembed.server.native import (
    compare_options,
    embed_options,
    quantized,
    similarities,
    texts_to_compare,
)
from arrowembed.server.rate_limit import charge_client
from arrowembed.server.requests import in_time
from arrowembed.server.routes.answering import usage_of
from arrowembed.server.routes.described import service_info
from arrowembed.server.stores import text_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Sequence

    from arrowembed.scheduler import Encoded
    from arrowembed.server.grpc.calls import Calls, Context
    from arrowembed.server.grpc.observing import Observer
    from arrowembed.server.rate_limit import RateLimiter
    from arrowembed.server.served import ServedModels
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.stores import ServedStores
    from arrowembed.server.variant import ServedModel

_AT_ONCE = 64
"""Requests of one stream that are being answered; more are not read until one is done."""


class EmbeddingService(api.EmbeddingServiceServicer):
    """Answers calls that the guard has let in.

    Args:
        settings: The limits.
        models: The models.
        rate_limiter: Limits what clients send; None does not.
        calls: All calls.
        observer: What counts the requests of streams.
        stores: The stores.
        started: When the service was started, by `time.monotonic`.
    """

    def __init__(
        self,
        settings: ServerSettings,
        models: ServedModels,
        rate_limiter: RateLimiter | None,
        calls: Calls,
        observer: Observer,
        *,
        stores: ServedStores,
        started: float,
    ) -> None:
        self._settings = settings
        self._models = models
        self._stores = stores
        self._rate_limiter = rate_limiter
        self._calls = calls
        self._observer = observer
        self._started = started

    async def Embed(self, request: api.EmbedRequest, context: Context) -> api.EmbedResponse:
        """The vectors of texts."""
        del context
        return await self._embed(request)

    async def EmbedStream(
        self, requests: AsyncIterable[api.EmbedStreamRequest | None], context: Context
    ) -> None:
        """The vectors of the texts of many requests, each as soon as they are there."""
        slots, writing = asyncio.Semaphore(_AT_ONCE), asyncio.Lock()

        async def answer(request: api.EmbedStreamRequest) -> None:
            try:
                response = await self._answer(request, context)
                # Whoever is gone needs no answer.
                with suppress(grpc.aio.BaseError):
                    async with writing:
                        await context.write(response)
            finally:
                slots.release()

        problem: Exception | None = None
        async with asyncio.TaskGroup() as answers:
            try:
                async with self._calls.until_stopped():
                    async for request in requests:
                        if request is None:
                            problem = malformed()
                            break
                        await slots.acquire()
                        answers.create_task(answer(request))
            except TimeoutError:
                problem = ClosedError("the server is shutting down")
        if problem is not None:
            raise problem

    async def Similarity(
        self, request: api.SimilarityRequest, context: Context
    ) -> api.SimilarityResponse:
        """How similar texts are."""
        del context
        wanted = similarity_request(request)
        served, encoded = await self._encode(
            wanted.model, texts_to_compare(wanted), **compare_options(wanted)
        )
        function = served.embedder.similarity_function
        return api.SimilarityResponse(
            similarities=similarities(wanted, function, encoded.vectors).tolist(),
            function=function,
            model=served.name,
            variant=self._models.variant_of(served),
            usage=usage_of(encoded),
        )

    async def Search(self, request: api.SearchRequest, context: Context) -> api.SearchResponse:
        """What is nearest in a store."""
        del context
        self._stores.find(None)
        wanted = search_request(request)
        check_texts(text_of(wanted), self._settings)
        await self._charge(1)
        async with in_time(self._settings.request_seconds):
            found = await self._stores.search(self._models, wanted)
        return search_response(found, wanted.include)

    async def Info(self, request: api.InfoRequest, context: Context) -> api.InfoResponse:
        """Version, models, stores and limits."""
        del request, context
        info = await service_info(self._settings, self._models, self._stores, started=self._started)
        return api.InfoResponse(**info)

    async def _answer(
        self, request: api.EmbedStreamRequest, context: Context
    ) -> api.EmbedStreamResponse:
        """The answer to one request of a stream, also if that is an error."""
        who = client()
        with self._observer.request(who.caller, f"/{request.id}") as record:
            record.client = who.principal.kind
            try:
                response = await self._embed(request.request)
            except asyncio.CancelledError:
                record.code = self._calls.why_cancelled(context)
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, the client is told
                return Refusal.of(error).answer(request.id)
        return api.EmbedStreamResponse(id=request.id, response=response)

    async def _embed(self, request: api.EmbedRequest) -> api.EmbedResponse:
        wanted = embed_request(request)
        served, encoded = await self._encode(wanted.model, wanted.texts, **embed_options(wanted))
        return embed_response(
            quantized(wanted, encoded.vectors),
            request.format,
            wanted.precision,
            encoded,
            model=served.name,
            variant=self._models.variant_of(served),
        )

    async def _encode(
        self, model: str | None, texts: Sequence[str], **options: Any
    ) -> tuple[ServedModel, Encoded]:
        """Embeds texts within the limits of the service."""
        check_texts(texts, self._settings)
        await self._charge(len(texts))
        async with in_time(self._settings.request_seconds):
            return await self._models.encode(model, texts, **options)

    async def _charge(self, texts: int) -> None:
        """Counts texts against what the client may send."""
        who = client()
        await charge_client(self._rate_limiter, who.principal, who.address, texts)
