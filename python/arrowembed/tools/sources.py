"""`Sources`: the model and the store of an `EmbeddingTool`, opened when they are first needed."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from arrowembed.embedder import Embedder
from arrowembed.errors import StoreNotFoundError
from arrowembed.registry import shared
from arrowembed.store.base import Store
from arrowembed.store.description import Description
from arrowembed.store.factory import open_store
from arrowembed.tools.outcome import ToolError
from arrowembed.tools.running import in_forked_child

if TYPE_CHECKING:
    import os

    from arrowembed.store.description import ModelUse

DEFAULT_MODEL = "all-MiniLM-L6-v2"


class Sources:
    """A model and a store. Safe to share between threads.

    Args:
        model: An `Embedder`, or the name or path of a model; by default that of the store, else
            all-MiniLM-L6-v2.
        store: A `Store`, the folder of one, or None for none.
    """

    def __init__(
        self, model: Embedder | str | None, store: Store | str | os.PathLike[str] | None
    ) -> None:
        self._model, self._store = model, store
        self._owns_store = not isinstance(store, Store)
        self._renew()
        in_forked_child(self._renew)

    def model(self) -> Embedder:
        """The model."""
        if isinstance(self._model, Embedder):
            return self._model
        use = self._use_of_store() if self._model is None else None
        self._model = shared(self._model or DEFAULT_MODEL) if use is None else use.open()
        return self._model

    def store(self) -> Store:
        """The store, which is made if it is not there.

        Raises:
            ToolError: There is to be none.
        """
        with self._lock:
            if not isinstance(self._store, Store):
                if self._store is None:
                    raise ToolError("there is no store", code="no_store")
                self._store = self._opened(self._store)
            return self._store

    def open(self) -> None:
        """Opens both now."""
        self.model()
        if self._store is not None:
            self.store()

    def close(self) -> None:
        """Closes the store, if it was opened here."""
        with self._lock:
            if self._owns_store and isinstance(self._store, Store):
                self._store.close()

    def _opened(self, folder: str | os.PathLike[str]) -> Store:
        try:
            return open_store(folder, model=self._model)
        except StoreNotFoundError:
            return open_store(folder, model=DEFAULT_MODEL)

    def _use_of_store(self) -> ModelUse | None:
        """The store's model, if there is a store that has one; it is not opened for that."""
        if self._store is None:
            return None
        if isinstance(self._store, Store):
            return self._store.description.model
        with suppress(StoreNotFoundError):
            return Description.read(Path(self._store).expanduser().absolute()).model
        return None

    def _renew(self) -> None:
        self._lock = threading.RLock()
