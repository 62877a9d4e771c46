"""Metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from arrowembed.server.observe.metrics import Metrics
from arrowembed.server.observe.sampling import sample
from arrowembed.server.routes.answering import models_of
from arrowembed.server.routes.management import management_only
from arrowembed.server.schemas.native import ErrorResponse

router = APIRouter(tags=["service"], dependencies=[Depends(management_only)])


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "All metrics.", "content": {"text/plain": {}}},
        404: {"model": ErrorResponse, "description": "They are on another port."},
    },
)
async def metrics(request: Request) -> Response:
    """What is counted and measured, by all worker processes."""
    counted: Metrics = request.app.state.metrics
    sample(models_of(request), counted)
    accept = request.headers.get("accept", "")
    # Of several workers, files are read and added up, which takes milliseconds.
    text, content_type = await asyncio.to_thread(counted.exposition, accept)
    return Response(text, headers={"content-type": content_type})
