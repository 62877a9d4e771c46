"""The model of a store, opened when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrowembed.errors import StoreMismatchError

if TYPE_CHECKING:
    from pathlib import Path

    from arrowembed.embedder import Embedder
    from arrowembed.store.description import Description


class LazyEmbedder:
    """The model of a store: one that was given, or that is opened when it is first needed."""

    def __init__(self, description: Description, path: Path, given: Embedder | None) -> None:
        self._description, self._path, self._embedder = description, path, given
        if given is not None:
            description.check_model(path, given)

    def get(self) -> Embedder:
        """The model.

        Raises:
            StoreMismatchError: The store has none, or what is found under its name is another one.
            ModelNotFoundError: It is not to be found under its name.
        """
        if self._embedder is None:
            use = self._description.model
            if use is None:
                raise StoreMismatchError(
                    f"the store at {str(self._path)!r} was made for vectors, not for texts; "
                    "pass vectors, or make a store with a model"
                )
            embedder = use.open()
            self._description.check_model(self._path, embedder)
            self._embedder = embedder
        return self._embedder
