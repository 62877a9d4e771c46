"""The dialect of text-embeddings-inference."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from arrowembed.server.schemas.fields import (
    IDS_SCHEMA,
    Ids,
    Inputs,
    LenientRequest,
    Text,
    Texts,
    ids_as_list,
    inputs_schema,
)

Vectors: TypeAlias = list[list[float]]
"""A bare list of vectors."""

TokenVectors: TypeAlias = list[Vectors]
"""For each text the vectors of its tokens."""


class TextOptions(LenientRequest):
    """How texts are to be read."""

    truncate: bool | None = Field(
        False, description="Whether texts that are too long are cut; else they are refused."
    )
    truncation_direction: Literal["right", "Right"] = Field(
        "right", description="Texts are cut at their end; nothing else is offered."
    )
    prompt_name: Text | None = Field(
        None, description="Name of the model's prompt to put before each text."
    )


class EmbedAllRequest(TextOptions):
    """Texts to embed; the answer is a bare list with the vectors of each text's tokens."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "A text."}]})

    inputs: Annotated[Inputs, inputs_schema({"type": "string"})] = Field(
        description="One text or several, each as such or as the ids of its tokens."
    )


class EmbedRequest(EmbedAllRequest):
    """Texts to embed; the answer is a bare list of vectors."""

    normalize: bool = Field(True, description="Whether vectors get length one.")
    dimensions: int | None = Field(
        None, ge=1, description="Keep only so many leading dimensions, renormalised."
    )


class Comparison(LenientRequest):
    """A text, and those that it is compared with."""

    source_sentence: Text = Field(description="A text that is compared with all others.")
    sentences: Annotated[list[Text], Field(min_length=1)] = Field(description="The others.")


class SimilarityRequest(LenientRequest):
    """Texts to compare; the answer is a bare list of cosines."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": {
                        "source_sentence": "A cat sleeps.",
                        "sentences": ["The cat is asleep.", "It rains."],
                    }
                }
            ]
        }
    )

    inputs: Comparison
    parameters: TextOptions | None = Field(None, description="How the texts are to be read.")


class TokenizeRequest(LenientRequest):
    """Texts to take apart; the answer is a bare list with a list of tokens for each."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "A text."}]})

    inputs: Texts = Field(description="One text or several.")
    add_special_tokens: bool = Field(True, description="Whether special tokens are listed, too.")
    prompt_name: Text | None = Field(
        None, description="Name of the model's prompt to put before each text."
    )


class Token(BaseModel):
    """A token of a text."""

    id: int
    text: str = Field(
        description="The part of the text that it stands for; of a special one its name."
    )
    special: bool = Field(description="Whether it stands for no part of the text.")
    start: int | None = Field(
        description="Where that part starts in the text in UTF-8, in bytes; a prompt counts."
    )
    stop: int | None = Field(description="Where it ends.")


class DecodeRequest(LenientRequest):
    """Tokens to put together; the answer is a bare list of texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": [[1, 2, 3]]}]})

    ids: Annotated[
        list[Ids],
        BeforeValidator(ids_as_list),
        Field(min_length=1),
        WithJsonSchema(
            {
                "anyOf": [
                    IDS_SCHEMA,
                    {"type": "array", "items": IDS_SCHEMA, "minItems": 1},
                ]
            }
        ),
    ] = Field(description="The ids of a text's tokens, or a list of them for each of several.")
    skip_special_tokens: bool = Field(True, description="Whether special tokens are left out.")


class ErrorInTei(BaseModel):
    """An error."""

    error: str = Field(description="What was wrong, where, and what to do.")
    error_type: str = Field(description="validation, overloaded, unhealthy or backend.")
