"""Who is asking, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from arrowembed.server.security.errors import missing_scope

if TYPE_CHECKING:
    from collections.abc import Iterable

Scope: TypeAlias = Literal["embed", "search", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""embed: vectors, similarities, tokens; search: the attached store; admin: models."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A client.

    Attributes:
        name: Of the API key, the subject of the token, or "" of somebody unknown.
        kind: How it is known.
        scopes: What it may do.
    """

    name: str
    kind: Literal["key", "token", "anonymous"]
    scopes: frozenset[Scope]

    def demand(self, scope: Scope) -> None:
        """Passes if the client may do what needs this scope.

        Raises:
            ServiceError: It may not (`forbidden`); the message names the scope.
        """
        if scope not in self.scopes:
            raise missing_scope(scope)


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Those of the names that are scopes of this service."""
    wanted = set(names)
    return frozenset(scope for scope in SCOPES if scope in wanted)
