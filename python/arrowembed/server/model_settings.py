"""What is said of a model: its name, where it comes from, and how it is opened."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from arrowembed.models import short_name
from arrowembed.options import Compute

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_MODEL = "all-MiniLM-L6-v2"

Name = Annotated[str, StringConstraints(pattern=r"^[^\s,=@?#]+$", max_length=200)]
"""Of a model; "@" stands between it and the name of a variant."""


class EngineOptions(BaseModel):
    """How models are opened."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    device: str | None = Field(None, description='"cpu", or a candle device such as "cuda:0".')
    compute: Compute | None = Field(
        None, description=f"Numbers to compute in: {', '.join(get_args(Compute))}."
    )
    max_seq_length: int | None = Field(None, ge=1, description="Longest input in tokens.")
    truncate_dim: int | None = Field(
        None, ge=1, description="Keep only so many leading dimensions."
    )
    cache_entries: int | None = Field(
        None, ge=0, description="Vectors kept for texts that come again; 0 keeps none."
    )
    cache_bytes: int | None = Field(None, ge=0, description="Most bytes of kept vectors.")
    default_prompt_name: str | None = Field(
        None, description="Prompt put before texts where none is asked for."
    )
    local_files_only: bool | None = Field(None, description="Never ask the hub.")
    revision: str | None = Field(None, description="Branch, tag or commit on the hub.")
    verify: bool | None = Field(None, description="Check every tensor against its checksum.")
    preload: bool | None = Field(None, description="Read all weights when a model is loaded.")
    lock_memory: bool | None = Field(None, description="Lock weights in memory.")

    def opening(self) -> dict[str, Any]:
        """What is set, as keyword arguments of `Embedder`."""
        names = EngineOptions.model_fields
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if "cache_entries" in given:
            given["cache_size"] = given.pop("cache_entries")
        return given


class VariantSettings(EngineOptions):
    """One of several models that answer under the same name; what it leaves out is the model's."""

    name: Name
    source: str | None = Field(None, description="Name or path; None is that of the model.")
    weight: float = Field(1.0, gt=0, allow_inf_nan=False, description="Its share of requests.")
    prompts: dict[str, str] = Field(default_factory=dict, description="Named prompts of its own.")


class ModelSettings(EngineOptions):
    """A model that is served."""

    name: Name
    source: str = Field(description="Name or path of the model, as for `Embedder`.")
    aliases: list[Name] = Field(default_factory=list, description="Other names for it.")
    lazy: bool | None = Field(None, description="Load it when it is first asked for.")
    prompts: dict[str, str] = Field(default_factory=dict, description="Named prompts of its own.")
    variants: list[VariantSettings] = Field(
        default_factory=list, description="Models that share the requests, by weight."
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, value: Any) -> Any:
        """A source without a name is called by its last part, a name is its own source."""
        if not isinstance(value, dict):
            return value
        if "source" in value and "name" not in value:
            return {**value, "name": name_of(str(value["source"]))}
        if "name" in value and "source" not in value:
            return {**value, "source": value["name"]}
        return value

    @model_validator(mode="after")
    def _check_variants(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError(f"two variants of {self.name!r} have the same name")
        return self


def parted(model: str) -> dict[str, str]:
    """A model that is written as NAME, SOURCE or NAME=SOURCE."""
    name, separator, source = model.partition("=")
    if not separator or Path(model).exists():
        return {"source": model}
    return {"name": name, "source": source}


def written(value: Any, parted: Callable[[str], dict[str, str]] = parted) -> Any:
    """Models as they are written in a variable or on the command line, for pydantic to check.

    Args:
        value: JSON text, a text with commas, or a list in which some are texts; all else is left as
            it is.
        parted: What makes fields of a text.
    """
    if isinstance(value, str):
        if value.lstrip().startswith("["):
            return json.loads(value)
        value = [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, (list, tuple)):
        return [parted(each) if isinstance(each, str) else each for each in value]
    return value


def name_of(source: str) -> str:
    """What a model is called that was given by its source alone."""
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve().name
    if path.is_file():
        return path.stem
    return short_name(source)


def model_of_environment() -> ModelSettings:
    """The model that is served when none is named: `ARROWEMBED_MODEL`, or the default one."""
    source = os.environ.get("ARROWEMBED_MODEL") or DEFAULT_MODEL
    return ModelSettings(name=name_of(source), source=source)
