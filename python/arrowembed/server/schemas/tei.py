"""The dialect of text-embeddings-inference."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from arrowembed.server.schemas.fields import LenientRequest, Text, Texts

Vectors: TypeAlias = list[list[float]]
"""A bare list of vectors."""


class EmbedRequest(LenientRequest):
    """Texts to embed; the answer is a bare list of vectors."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "A text."}]})

    inputs: Texts = Field(description="One text or several.")
    normalize: bool = Field(True, description="Whether vectors get length one.")
    truncate: bool | None = Field(
        False, description="Whether texts that are too long are cut; else they are refused."
    )
    truncation_direction: Literal["right", "Right"] = Field(
        "right", description="Texts are cut at their end; nothing else is offered."
    )
    prompt_name: Text | None = Field(
        None, description="Name of the model's prompt to put before each text."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Keep only so many leading dimensions, renormalised."
    )


class ErrorInTei(BaseModel):
    """An error."""

    error: str = Field(description="What was wrong, where, and what to do.")
    error_type: str = Field(description="validation, overloaded, unhealthy or backend.")
