"""The dialect of OpenAI."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from arrowembed.server.schemas.fields import Inputs, LenientRequest, Text, inputs_schema

MOST_INPUTS = 2048
"""OpenAI's limit on the inputs of a request."""


def _none_empty(inputs: list[str | list[int]]) -> list[str | list[int]]:
    if "" in inputs:
        place = inputs.index("")
        raise PydanticCustomError("empty_text", "text {place} is empty", {"place": place})
    return inputs


class EmbeddingsRequest(LenientRequest):
    """Texts to embed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2", "input": "A text."}]}
    )

    model: Text = Field(description="Name of the model.")
    input: Annotated[
        Inputs,
        Field(max_length=MOST_INPUTS),
        AfterValidator(_none_empty),
        inputs_schema({"type": "string", "minLength": 1}),
    ] = Field(
        description="One text or several, each as such or as the ids of its tokens; none is empty."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Keep only so many leading dimensions, renormalised."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        "float",
        description="Vectors as lists of numbers, or as base64 of their float32, little-endian.",
    )
    user: Text | None = Field(None, description="Taken, and not looked at.")
    truncate: bool = Field(
        False,
        description="Whether texts that are too long are cut; else they are refused. OpenAI always "
        "refuses them.",
    )


class Embedding(BaseModel):
    """A vector."""

    object: Literal["embedding"]
    index: int = Field(description="Position of the text.")
    embedding: list[float] | str = Field(description="The vector, of length one.")


class UsageInOpenAI(BaseModel):
    """What a request cost."""

    prompt_tokens: int = Field(description="Tokens, special ones included.")
    total_tokens: int = Field(description="The same.")


class EmbeddingsResponseInOpenAI(BaseModel):
    """Vectors in the order of their texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str = Field(description="Name of the model.")
    usage: UsageInOpenAI


class ModelInOpenAI(BaseModel):
    """A model of the service."""

    id: str = Field(description="Name or alias.")
    object: Literal["model"]
    created: int = Field(description="When the service was started, in seconds since 1970.")
    owned_by: str


class ModelsInOpenAI(BaseModel):
    """All models of the service, under all their names."""

    object: Literal["list"]
    data: list[ModelInOpenAI]


class ErrorDetailInOpenAI(BaseModel):
    """What went wrong."""

    message: str = Field(description="What was wrong, where, and what to do.")
    type: str = Field(description="Kind of the error, such as invalid_request_error.")
    param: str | None = Field(description="The field that was wrong.")
    code: str | None = Field(description="A stable name of the error.")


class ErrorInOpenAI(BaseModel):
    """An error."""

    error: ErrorDetailInOpenAI
