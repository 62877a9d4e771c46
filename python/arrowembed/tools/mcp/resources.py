"""The store as resources: how much there is, and each entry by its id."""

from __future__ import annotations

import asyncio
import json
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp.shared.uri_template import UriTemplate

from arrowembed.errors import ArrowEmbedError, InvalidArgumentError
from arrowembed.tools.mcp.access import may
from arrowembed.tools.running import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.context import ServerRequestContext

    from arrowembed.store.records import Record
    from arrowembed.tools.mcp.offer import Offer

STORE: Final = "arrowembed://store"
RECORD: Final = "arrowembed://store/records/{id}"

_MAX_READS: Final = 16
"""At a time."""

_JSON: Final = "application/json"
_TEMPLATE: Final = UriTemplate.parse(RECORD)


class Resources:
    """Answers what clients ask of resources."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._workers = Workers(_MAX_READS)

    async def list(
        self, context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        """The one that is always there."""
        del context, params
        store = types.Resource(
            uri=STORE,
            name="store",
            title="Store",
            description="How many entries the store has, how large it is, and its model.",
            mime_type=_JSON,
        )
        return types.ListResourcesResult(resources=[store])

    async def list_templates(
        self, context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        """Where entries are."""
        del context, params
        record = types.ResourceTemplate(
            uri_template=RECORD,
            name="record",
            title="Entry of the store",
            description="Text and metadata of one entry, by the id under which it was remembered.",
            mime_type=_JSON,
        )
        return types.ListResourceTemplatesResult(resource_templates=[record])

    async def read(
        self, context: ServerRequestContext[Any], params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """What a resource holds.

        Raises:
            MCPError: There is none of that name, or it cannot be read.
        """
        if not may(context, "search"):
            raise MCPError(
                types.INVALID_REQUEST, f"{params.uri}: needs a key with the scope 'search'"
            )
        try:
            value = await self._on_a_thread(partial(self._value, params.uri))
        except ArrowEmbedError as error:
            raise MCPError(types.INTERNAL_ERROR, str(error), {"code": error.code}) from error
        text = json.dumps(value, ensure_ascii=False, indent=1)
        content = types.TextResourceContents(uri=params.uri, mime_type=_JSON, text=text)
        return types.ReadResourceResult(contents=[content])

    async def _on_a_thread(self, work: Callable[[], Any]) -> Any:
        future = self._workers.start(work, threading.Event())
        if future is None:
            raise MCPError(types.INTERNAL_ERROR, "too many resources are being read; try again")
        return await asyncio.wrap_future(future)

    def _value(self, uri: str) -> Any:
        if uri == STORE:
            # Where it lies on this machine is nothing that clients need.
            return {k: v for k, v in self._offer.store.info().items() if k != "path"}
        record = self._record(uri)
        if record is None:
            raise MCPError(
                types.INVALID_PARAMS,
                f"no resource {uri}; there are {STORE} and {RECORD}",
                {"uri": uri},
            )
        return {"id": record.id, "text": record.text, "metadata": record.metadata}

    def _record(self, uri: str) -> Record | None:
        found = _TEMPLATE.match(uri)
        if found is None:
            return None
        try:
            return next(iter(self._offer.store.get([str(found["id"])])), None)
        except InvalidArgumentError:
            return None  # what is there can be no id, such as nothing
