"""What is said of a store: its name, where it is, and which model embeds its queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arrowembed.server.model_settings import Name  # noqa: TC001 - pydantic reads it


class StoreSettings(BaseModel):
    """A store that can be searched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    path: Path = Field(description="Its folder.")
    model: str | None = Field(
        None, description="Name of the served model that embeds queries; else the store's own."
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        """A path without a name is called by its last part."""
        if isinstance(value, dict) and "path" in value and "name" not in value:
            return {**value, "name": Path(value["path"]).expanduser().absolute().name}
        return value


def parted(store: str) -> dict[str, str]:
    """A store that is written as PATH or NAME=PATH."""
    name, separator, path = store.partition("=")
    if not separator or Path(store).exists():
        return {"path": store}
    return {"name": name, "path": path}
