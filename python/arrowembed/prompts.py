"""The named texts that a model wants before its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arrowembed.errors import InvalidArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping

_QUERY_NAMES = ("query",)
_DOCUMENT_NAMES = ("document", "passage", "corpus")


class Prompts:
    """Prompts by their names.

    Args:
        named: All there are.
        default_name: The one for requests that name none.

    Raises:
        InvalidArgumentError: There is none of the name `default_name`.
    """

    def __init__(self, named: Mapping[str, str], default_name: str | None) -> None:
        self.named = dict(named)
        self.default_name = default_name
        if default_name is not None:
            self._find(default_name)

    @property
    def query_name(self) -> str | None:
        """Name of the prompt for queries, if there is one."""
        return self._first_of(_QUERY_NAMES)

    @property
    def document_name(self) -> str | None:
        """Name of the prompt for documents, if there is one."""
        return self._first_of(_DOCUMENT_NAMES)

    def text(self, name: str | None, prompt: str | None = None) -> str:
        """The text to put before each input.

        Args:
            name: Of a prompt; None is the default's.
            prompt: The text itself; goes before `name`.

        Raises:
            InvalidArgumentError: There is no prompt of this name.
        """
        if prompt is not None:
            return prompt
        name = name if name is not None else self.default_name
        return self._find(name) if name is not None else ""

    def _find(self, name: str) -> str:
        if name not in self.named:
            known = ", ".join(map(repr, self.named)) or "none"
            raise InvalidArgumentError(
                f"prompt_name: {name!r}; this model has {known}; "
                "use prompt=... or Embedder(prompts={...})"
            )
        return self.named[name]

    def _first_of(self, names: tuple[str, ...]) -> str | None:
        return next((name for name in names if name in self.named), None)
