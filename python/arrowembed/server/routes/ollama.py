"""The dialect of Ollama: what its clients need for embeddings."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from arrowembed import __version__
from arrowembed.options import ModelInfo
from arrowembed.server.bodies import checked, read_json
from arrowembed.server.requests import within
from arrowembed.server.routes.answering import (
    encode,
    json_response,
    models_of,
    settings_of,
    variant_header,
)
from arrowembed.server.routes.direct import DirectRoute
from arrowembed.server.routes.documented import errors_in, json_body, refusals_in
from arrowembed.server.schemas import ollama
from arrowembed.server.security.dependency import require
from arrowembed.server.served import Model
from arrowembed.server.variant import ServedModel

router = APIRouter(
    prefix="/api",
    tags=["Ollama"],
    route_class=DirectRoute,
    dependencies=[Depends(require("embed"))],
)

_ERRORS = errors_in(ollama.ErrorInOllama, "ollama")
_REFUSALS = refusals_in(ollama.ErrorInOllama, "ollama")
_LATEST = ":latest"
"""The tag that names have which have none."""


@router.post(
    "/embed",
    summary="Embed texts, as Ollama does",
    response_model=ollama.EmbedResponseInOllama,
    responses=_ERRORS,
    openapi_extra=json_body(ollama.EmbedRequest),
)
async def embed(request: Request) -> Response:
    """The vectors of texts, in their order."""
    start = time.perf_counter_ns()
    fields = await read_json(request, settings_of(request).request_seconds)
    wanted = checked(ollama.EmbedRequest, fields)
    served = await _loaded(request, wanted.model)
    loaded = time.perf_counter_ns()
    answer = {
        "model": wanted.model,
        "embeddings": [],
        "total_duration": 0,
        "load_duration": loaded - start,
        "prompt_eval_count": 0,
    }
    if wanted.input:
        # 0, or more than there are, keeps all.
        wish = wanted.dimensions or 0
        served, encoded = await encode(
            request,
            served.label,
            wanted.input,
            normalize="l2",
            truncate=wanted.truncate is not False,
            truncate_dim=wish if 0 < wish < served.embedder.dimension else None,
        )
        answer |= {"embeddings": encoded.vectors, "prompt_eval_count": encoded.tokens}
    answer["total_duration"] = time.perf_counter_ns() - start
    return json_response(answer, variant_header(request, served))


@router.post(
    "/embeddings",
    summary="Embed a text, as older clients of Ollama do",
    response_model=ollama.EmbeddingsResponseInOllama,
    responses=_ERRORS,
    openapi_extra=json_body(ollama.EmbeddingsRequest),
)
async def embeddings(request: Request) -> Response:
    """The vector of a text, which is cut if it is too long."""
    fields = await read_json(request, settings_of(request).request_seconds)
    wanted = checked(ollama.EmbeddingsRequest, fields)
    served = await _loaded(request, wanted.model)
    if not wanted.prompt:
        return json_response({"embedding": []}, variant_header(request, served))
    served, encoded = await encode(request, served.label, [wanted.prompt])
    return json_response({"embedding": encoded.vectors[0]}, variant_header(request, served))


@router.post(
    "/show",
    summary="A model, as Ollama shows it",
    response_model=ollama.ShownModel,
    responses=_ERRORS,
    openapi_extra=json_body(ollama.ShowRequest),
)
async def show(request: Request) -> Response:
    """A model of the service, which is loaded for it."""
    fields = await read_json(request, settings_of(request).request_seconds)
    served = await _loaded(request, checked(ollama.ShowRequest, fields).model)
    info = served.embedder.info()
    family = info["architecture"]
    facts = {
        "general.architecture": family,
        "general.name": info["name"],
        "general.parameter_count": info["num_parameters"],
        f"{family}.block_count": info["num_hidden_layers"],
        f"{family}.context_length": info["max_seq_length"],
        f"{family}.embedding_length": info["dimension"],
        f"{family}.vocab_size": info["vocab_size"],
    }
    return json_response(
        {
            "details": _details(info),
            "model_info": facts,
            "capabilities": ["embedding"],
            "modified_at": _modified_at(served),
        }
    )


@router.get(
    "/tags",
    summary="The models, as Ollama lists them",
    response_model=ollama.ModelsInOllama,
    responses=_REFUSALS,
)
async def tags(request: Request) -> Response:
    """All models of the service, loaded or not."""
    return json_response({"models": [_listed(model) for model in models_of(request)]})


@router.get(
    "/ps",
    summary="The models in memory, as Ollama lists them",
    response_model=ollama.LoadedModelList,
    responses=_REFUSALS,
)
async def ps(request: Request) -> Response:
    """The models of the service that are loaded."""
    return json_response(
        {
            "models": [
                {
                    **_listed(model),
                    "size_vram": 0 if info["device"] == "cpu" else info["weights_bytes"],
                    "context_length": info["max_seq_length"],
                }
                for model in models_of(request)
                if (current := model.variants[0].current)
                for info in [current.embedder.info()]
            ]
        }
    )


@router.get(
    "/version",
    summary="Which version answers",
    response_model=ollama.Version,
    responses=_REFUSALS,
)
async def version() -> Response:
    """The version of arrowembed."""
    return json_response({"version": __version__})


async def _loaded(request: Request, name: str) -> ServedModel:
    """A variant of a model by any of its names, also with the tag that Ollama gives them."""
    models = models_of(request)
    if not models.has(name):
        name = name.removesuffix(_LATEST)
    async with within(settings_of(request).request_seconds, request):
        return await models.get(name)


def _listed(model: Model) -> dict[str, Any]:
    listed: dict[str, Any] = {"name": model.name, "model": model.name}
    current = model.variants[0].current
    if current is None:
        return listed
    info = current.embedder.info()
    if info["source"] and "sha256" in info["source"]:
        listed["digest"] = info["source"]["sha256"]
    return {
        **listed,
        "modified_at": _modified_at(current),
        "size": info["weights_bytes"],
        "details": _details(info),
    }


def _details(info: ModelInfo) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": Path(info["path"]).suffix.removeprefix("."),
        "family": info["architecture"],
        "families": [info["architecture"]],
        "parameter_size": _shortened(info["num_parameters"]),
        "quantization_level": info["dtype"],
    }


def _shortened(number: int) -> str:
    """A number in thousands, millions or billions, whichever it has."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def _modified_at(served: ServedModel) -> str:
    newest = max(changed for _, _, _, changed in served.files)
    return datetime.fromtimestamp(newest / 1e9, UTC).isoformat()
