"""The server itself, whatever it is reached by: tools of the registry, resources of the store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import mcp_types as types
from mcp.server.lowlevel.server import Server

from arrowembed.tools.forms import structured
from arrowembed.tools.mcp.access import may, scope_of
from arrowembed.tools.mcp.identity import NAME, TITLE
from arrowembed.tools.mcp.resources import Resources
from arrowembed.tools.outcome import failure

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

    from arrowembed.tools.mcp.offer import Offer
    from arrowembed.tools.outcome import Outcome


def make_server(offer: Offer) -> Server[Any]:
    """A server of the package `mcp` with what is offered."""
    tools = _Tools(offer)
    handlers: dict[str, Any] = {
        "on_list_tools": tools.list,
        "on_call_tool": tools.call,
    }
    if offer.identity.has_store:
        resources = Resources(offer)
        handlers |= {
            "on_list_resources": resources.list,
            "on_list_resource_templates": resources.list_templates,
            "on_read_resource": resources.read,
        }
    return Server(
        NAME,
        title=TITLE,
        version=offer.identity.version,
        instructions=offer.identity.instructions,
        **handlers,
    )


class _Tools:
    """Answers `tools/list` and `tools/call`."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer

    async def list(
        self, context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """Those that the client may use."""
        del params
        tools = [
            types.Tool.model_validate(tool.get_schema("mcp"))
            for tool in self._offer.registry.tools()
            if may(context, scope_of(tool))
        ]
        return types.ListToolsResult(tools=tools)

    async def call(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        """Calls a tool. Whatever goes wrong is for the model to read, and no error of the protocol.

        When the client cancels, the task that runs this is cancelled, and with it the call.
        """
        registry = self._offer.registry
        tool = registry.get(params.name)
        if tool is not None and not may(context, scope_of(tool)):
            outcome: Outcome = failure(
                "permission_denied", f"{tool.name}: needs a key with the scope {scope_of(tool)!r}"
            )
        else:
            outcome = await registry.acall(params.name, params.arguments or {})
        if not outcome["ok"] or tool is None:
            told = outcome.get("error")
            return types.CallToolResult(content=[_text(told)], is_error=True)
        result = structured(tool, outcome["result"])
        return types.CallToolResult(content=[_text(result)], structured_content=result)


def _text(value: Any) -> types.TextContent:
    """JSON, for clients that know no structured content."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return types.TextContent(type="text", text=text)
