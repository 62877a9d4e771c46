"""Texts that come as such or as the ids of their tokens, as some dialects have them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from arrowembed.server.bodies import check_count
from arrowembed.server.errors import ServiceError
from arrowembed.server.requests import within
from arrowembed.server.routes.answering import encode, models_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from arrowembed.scheduler import Encoded
    from arrowembed.server.variant import ServedModel


async def encode_inputs(
    request: Request, model: str | None, inputs: Sequence[str | list[int]], **options: Any
) -> tuple[ServedModel, Encoded]:
    """`encode` for texts, or for the texts that token ids stand for.

    Args:
        request: As for `encode`.
        model: As for `encode`.
        inputs: Texts or lists of token ids, not both.
        options: As for `encode`.

    Raises:
        ServiceError: The model has no such token; and as `encode`.
        ArrowEmbedError: As `encode`.
    """
    model, texts = await texts_of(request, model, inputs)
    return await encode(request, model, texts, **options)


async def texts_of(
    request: Request, model: str | None, inputs: Sequence[str | list[int]]
) -> tuple[str | None, list[str]]:
    """Texts, or those that token ids stand for, and the model whose they are.

    Args:
        request: As for `encode`.
        model: As for `encode`.
        inputs: Texts or lists of token ids, not both.

    Raises:
        ServiceError: There is no such model, or it has no such token.
    """
    texts = [each for each in inputs if isinstance(each, str)]
    if len(texts) == len(inputs):
        return model, texts
    return await _decoded(request, model, [each for each in inputs if not isinstance(each, str)])


async def _decoded(
    request: Request, model: str | None, ids: Sequence[list[int]]
) -> tuple[str, list[str]]:
    """The variant of a model that was chosen, whose tokens they are, and what they stand for."""
    settings = settings_of(request)
    check_count(len(ids), settings)
    async with within(settings.request_seconds, request):
        served = await models_of(request).get(model)
        return served.label, await asyncio.to_thread(decode, served, ids)


def decode(
    served: ServedModel, ids: Sequence[list[int]], *, skip_special_tokens: bool = True
) -> list[str]:
    """The texts that token ids stand for.

    Raises:
        ServiceError: The model has no such token.
    """
    size = served.embedder.info()["vocab_size"]
    for index, each in enumerate(ids):
        if (largest := max(each)) >= size:
            raise ServiceError(
                "invalid_request",
                f"tokens {index}: there is no token {largest}; {served.name} has tokens below "
                f"{size}",
                index=index,
            )
    return [served.embedder.decode(each, skip_special_tokens=skip_special_tokens) for each in ids]
