"""What a server offers: the tools of this package, with a store and others if that is wished.

Nothing is imported or opened before it is needed, so that the first answer is quick.
"""

from __future__ import annotations

import logging
import threading
from functools import cached_property
from typing import TYPE_CHECKING, Self

from arrowembed._core import __version__
from arrowembed.errors import ArrowEmbedError
from arrowembed.tools.mcp.identity import Identity

if TYPE_CHECKING:
    from pathlib import Path

    from arrowembed.store.base import Store
    from arrowembed.tools.embedding import EmbeddingTool
    from arrowembed.tools.registry import ToolRegistry

logger = logging.getLogger("arrowembed.mcp")


class Offer:
    """Tools, a model and perhaps a store.

    Args:
        model: Name or path; by default that of the store, else all-MiniLM-L6-v2.
        store: Folder of a store, made if it is not there; None offers none.
        read_only: Whether tools that change something are left out.
        plugins: Whether tools of installed packages are offered, too.
        timeout: Seconds that a call may take.
    """

    def __init__(
        self,
        model: str | None = None,
        store: Path | None = None,
        *,
        read_only: bool = False,
        plugins: bool = False,
        timeout: float = 60.0,
    ) -> None:
        # Hosts start this without a shell, which would say what ~ is.
        self._model, self._store = model, None if store is None else store.expanduser()
        self._read_only, self._plugins, self._timeout = read_only, plugins, timeout

    @property
    def identity(self) -> Identity:
        """What the server says of itself."""
        return Identity(__version__, self._store is not None, self._read_only)

    @cached_property
    def embedding(self) -> EmbeddingTool:
        """The tools of this package."""
        from arrowembed.tools import EmbeddingTool  # noqa: PLC0415 - after the first answer

        return EmbeddingTool(self._model, self._store)

    @cached_property
    def registry(self) -> ToolRegistry:
        """All tools that are offered."""
        from arrowembed.tools import ToolRegistry  # noqa: PLC0415 - after the first answer

        grants = ("read",) if self._read_only else ("read", "write")
        registry = ToolRegistry(grants=grants, timeout=self._timeout)  # type: ignore[arg-type] # mypy widens the tuple
        registry.register(self.embedding)
        if self._plugins:
            for found in registry.discover():
                if found.error is not None:
                    logger.warning(
                        "the tools %r of %s are left out: %s",
                        found.entry_point,
                        found.package,
                        found.error,
                    )
        return registry

    @property
    def store(self) -> Store:
        """The store, opened when it is first asked for."""
        return self.embedding.store

    def warm_up(self) -> None:
        """Opens model and store on another thread, so that the first call need not wait.

        What cannot be opened is told in the log here, and to whoever calls a tool.
        """

        def open_all() -> None:
            try:
                self.embedding.open()
            except (ArrowEmbedError, OSError) as error:
                logger.warning("tools will fail until this is mended: %s", error)

        threading.Thread(target=open_all, name="arrowembed-mcp-open", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if "embedding" in self.__dict__:
            self.embedding.close()
