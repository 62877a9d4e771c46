"""What a client may do, by the scopes of its key; over standard input there are no keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

    from arrowembed.tools.definition import Tool

Scope: TypeAlias = Literal["embed", "search", "admin"]
"""Of API keys, as `arrowembed keys new` makes them: `search` also reads the store, `admin` also
changes what is there."""


def scope_of(tool: Tool) -> Scope:
    """The scope that a key must have for a tool."""
    if tool.traits.scope == "write":
        return "admin"
    return "search" if tool.name == "search" else "embed"


def may(context: ServerRequestContext[Any], scope: Scope) -> bool:
    """Whether the client of a request may do what needs a scope."""
    user = None if context.request is None else context.request.scope.get("user")
    return not isinstance(user, AuthenticatedUser) or scope in user.scopes
