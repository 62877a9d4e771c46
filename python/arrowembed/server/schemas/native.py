"""The service's own dialect."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from arrowembed.options import Precision
from arrowembed.server.schemas.fields import Request, Text, Texts

Encoding = Literal["json", "base64"]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Usage(BaseModel):
    """What a request cost."""

    texts: int = Field(description="Texts.")
    tokens: int = Field(description="Tokens, special ones included.")
    truncated: int = Field(description="Texts that were too long and were cut.")
    cached: int = Field(description="Texts whose vectors were there already.")


class TextOptions(Request):
    """Which model is to read texts, and with what in front of them."""

    model: Text | None = Field(None, description="Name of the model; else the default one.")
    prompt_name: Text | None = Field(
        None, description="Name of the model's prompt to put before each text."
    )
    prompt: Text | None = Field(None, description="Text to put before each text.")


class EmbedOptions(TextOptions):
    """How texts are to be embedded; `POST /embed` also takes these in its query."""

    normalize: bool | None = Field(
        None, description="Whether vectors get length one; else what the model prescribes."
    )
    truncate: bool = Field(
        True, description="Whether texts that are too long are cut; else they are refused."
    )
    dimensions: int | None = Field(
        None, ge=1, description="Keep only so many leading dimensions, renormalised."
    )
    precision: Precision = Field("float32", description="Type of the numbers.")
    encoding: Encoding = Field(
        "json",
        description="Vectors as lists of numbers, or as base64 of their bytes, little-endian.",
    )


class EmbedRequest(EmbedOptions):
    """Texts to embed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["A first text.", "A second one."]}]}
    )

    texts: Texts = Field(description="One text or several.")
    ranges: Annotated[list[list[Finite]], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="For int8 and uint8: lowest and highest value of each dimension, so that "
        "vectors of all requests are scaled alike.",
    )


class SimilarityOptions(TextOptions):
    """How texts are to be compared."""

    truncate: bool = Field(
        True, description="Whether texts that are too long are cut; else they are refused."
    )


class TargetsRequest(SimilarityOptions):
    """One text to compare with several."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"source": "A cat sleeps.", "targets": ["The cat is asleep.", "It rains."]}
            ]
        }
    )

    source: Text = Field(description="A text that is compared with all targets.")
    targets: Texts = Field(description="What it is compared with.")


class PairsRequest(SimilarityOptions):
    """Pairs of texts to compare."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"pairs": [["A cat sleeps.", "The cat is asleep."]]}]}
    )

    pairs: Annotated[
        list[Annotated[list[Text], Field(min_length=2, max_length=2)]], Field(min_length=1)
    ] = Field(description="Pairs of texts, each compared with each other.")


class SimilarityResponse(BaseModel):
    """How similar texts are; more is more similar."""

    similarities: list[float] = Field(description="For each target, or for each pair.")
    function: str = Field(description="The model's own: cosine, dot, euclidean or manhattan.")
    model: str = Field(description="Name of the model.")
    usage: Usage


class TokenizeRequest(TextOptions):
    """Texts to take apart."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"texts": "A text."}]})

    texts: Texts = Field(description="One text or several.")


class TokenizeResponse(BaseModel):
    """Tokens as the model sees them: special ones added, cut to its longest input."""

    input_ids: list[list[int]] = Field(description="Token ids of each text.")
    model: str = Field(description="Name of the model.")
    max_seq_length: int = Field(description="Longest input in tokens.")


class EmbedResponse(BaseModel):
    """Vectors in the order of their texts."""

    embeddings: list[list[float]] | list[str] = Field(
        description='Vectors; with encoding "base64" a string for each.'
    )
    model: str = Field(description="Name of the model.")
    dimensions: int = Field(description="Length of a vector.")
    precision: Precision = Field(description="Type of the numbers.")
    usage: Usage


class VariantInfo(BaseModel):
    """One of the models that answer under a name; usually there is one."""

    name: str
    state: Literal["loaded", "loading", "failed", "unloaded"]
    share: float = Field(description="Part of the requests that it gets.")
    dimensions: int | None = Field(None, description="Length of its vectors, once it is loaded.")
    max_seq_length: int | None = Field(None, description="Longest input in tokens.")


class ModelInfo(BaseModel):
    """A model of the service."""

    name: str
    default: bool = Field(description="Whether it answers where none is asked for.")
    aliases: list[str] = Field(description="Other names for it.")
    variants: list[VariantInfo]
    stores: list[str] = Field(description="Names of the stores whose queries it embeds.")


class ModelList(BaseModel):
    """All models of the service."""

    models: list[ModelInfo]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str = Field(description="A stable name of the kind of error.")
    message: str = Field(description="What was wrong, where, and what to do.")
    index: int | None = Field(None, description="Position of the text that was wrong.")
    request_id: str = Field(description="The request's id, as in X-Request-ID.")


class ErrorResponse(BaseModel):
    """An error."""

    error: ErrorDetail
