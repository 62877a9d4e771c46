"""Searches of the stores that are attached."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from arrowembed.server.bodies import check_texts, read_json
from arrowembed.server.requests import within
from arrowembed.server.routes.answering import (
    charge,
    json_response,
    models_of,
    settings_of,
    stores_of,
    usage_of,
)
from arrowembed.server.routes.direct import DirectRoute
from arrowembed.server.routes.documented import REFUSALS, errors_in, json_body
from arrowembed.server.schemas.native import ErrorResponse
from arrowembed.server.schemas.search import QueryRequest, SearchResponse, StoreList, VectorRequest
from arrowembed.server.security.dependency import require
from arrowembed.server.stores import fields_of, search_request, text_of

router = APIRouter(
    tags=["search"], route_class=DirectRoute, dependencies=[Depends(require("search"))]
)

_ERRORS = {
    **errors_in(ErrorResponse),
    404: {"model": ErrorResponse, "description": "There is no such store."},
    501: {"model": ErrorResponse, "description": "No store is attached."},
}


@router.post(
    "/search",
    summary="Search a store",
    response_model=SearchResponse,
    responses=_ERRORS,
    openapi_extra=json_body(QueryRequest, VectorRequest),
)
async def search(request: Request) -> Response:
    """The entries of a store that are most similar to a text or a vector.

    A hit has its id, its score and what `include` names.
    """
    settings = settings_of(request)
    wanted = search_request(await read_json(request, settings.request_seconds))
    check_texts(text_of(wanted), settings)
    await charge(request, 1)
    async with within(settings.request_seconds, request):
        found = await stores_of(request).search(models_of(request), wanted)
    return json_response(
        {
            "hits": [fields_of(hit, wanted.include) for hit in found.hits],
            "store": found.store.name,
            "metric": found.store.store.description.metric,
            "usage": None if found.encoded is None else usage_of(found.encoded),
        }
    )


@router.get("/stores", summary="The stores", response_model=StoreList, responses=REFUSALS)
async def stores(request: Request) -> Response:
    """All stores that can be searched, the default one first."""
    return json_response({"stores": await stores_of(request).described()})
