"""The answer to a client's first request, given before the package `mcp` is imported.

Its import takes about a second, four fifths of that for the types of all protocol versions. Hosts
start many servers at once and give up on slow ones, so what every client asks first, `initialize`
or `server/discover`, is answered here, from what is known without the package. The package gets the
request all the same, because it keeps the state of the connection; only its answer is not sent
again. A test compares both answers for each version of the protocol.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arrowembed.errors import MissingDependencyError
from arrowembed.tools.mcp.identity import NAME, TITLE

if TYPE_CHECKING:
    from types import ModuleType

    from arrowembed.tools.mcp.identity import Identity

_META = "io.modelcontextprotocol/"


@dataclass(frozen=True, slots=True)
class Greeting:
    """An answer to a first request."""

    id: str | int
    """Of the request."""
    result: dict[str, Any]

    def line(self) -> str:
        """The message, with its end of line."""
        message = {"jsonrpc": "2.0", "id": self.id, "result": self.result}
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")) + "\n"


class Greeter:
    """Knows how to answer first requests.

    Args:
        identity: Of the server.

    Raises:
        MissingDependencyError: The package `mcp` is not installed.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._versions = _protocol_versions()

    def greet(self, line: str) -> Greeting | None:
        """The answer to a line, or None if it is for the package to judge."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not _is_request(request):
            return None
        params = request["params"]
        if request["method"] == "initialize" and _is_of_strings_and_objects(params):
            return Greeting(request["id"], self._initialized(params))
        if request["method"] == "server/discover" and self._is_modern(params):
            return Greeting(request["id"], self._discovered())
        return None

    def _initialized(self, params: dict[str, Any]) -> dict[str, Any]:
        wanted = params["protocolVersion"]
        known = wanted in self._versions.HANDSHAKE_PROTOCOL_VERSIONS
        return {
            "protocolVersion": wanted if known else self._versions.LATEST_HANDSHAKE_VERSION,
            "capabilities": self._capabilities(),
            "serverInfo": self._server_info(),
            "instructions": self._identity.instructions,
        }

    def _discovered(self) -> dict[str, Any]:
        return {
            "_meta": {f"{_META}serverInfo": self._server_info()},
            "resultType": "complete",
            "ttlMs": 0,
            "cacheScope": "private",
            "supportedVersions": list(self._versions.MODERN_PROTOCOL_VERSIONS),
            "capabilities": self._capabilities(),
            "instructions": self._identity.instructions,
        }

    def _capabilities(self) -> dict[str, Any]:
        capabilities: dict[str, Any] = {"tools": {"listChanged": False}}
        if self._identity.has_store:
            capabilities["resources"] = {"subscribe": False, "listChanged": False}
        return capabilities

    def _server_info(self) -> dict[str, str]:
        return {"name": NAME, "title": TITLE, "version": self._identity.version}

    def _is_modern(self, params: dict[str, Any]) -> bool:
        meta = params.get("_meta")
        return (
            isinstance(meta, dict)
            and meta.get(f"{_META}protocolVersion") in self._versions.MODERN_PROTOCOL_VERSIONS
            and isinstance(meta.get(f"{_META}clientCapabilities"), dict)
            and _is_client(meta.get(f"{_META}clientInfo"))
        )


def _is_request(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.get("jsonrpc") == "2.0"
        and isinstance(message.get("id"), (str, int))
        and not isinstance(message["id"], bool)
        and isinstance(message.get("method"), str)
        and isinstance(message.get("params"), dict)
    )


def _is_of_strings_and_objects(params: dict[str, Any]) -> bool:
    return (
        isinstance(params.get("protocolVersion"), str)
        and isinstance(params.get("capabilities"), dict)
        and _is_client(params.get("clientInfo"))
    )


def _is_client(info: Any) -> bool:
    return (
        isinstance(info, dict)
        and isinstance(info.get("name"), str)
        and isinstance(info.get("version"), str)
    )


def _protocol_versions() -> ModuleType:
    """The package's own list of versions, which imports nothing, without the rest of it."""
    found = importlib.util.find_spec("mcp_types")
    if found is None or found.origin is None:
        raise MissingDependencyError.of(
            "mcp", purpose="arrowembed mcp", install='"arrowembed[mcp]"'
        )
    path = Path(found.origin).with_name("version.py")
    spec = importlib.util.spec_from_file_location("_mcp_protocol_versions", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
