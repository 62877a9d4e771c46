"""The dialect of Ollama."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from arrowembed.server.schemas.fields import LenientRequest, Text

ModelName = Annotated[
    Text, Field(description='Name of the model; a tag ":latest" makes no difference.')
]


def _as_list(value: Any) -> Any:
    """One text as a list; as Ollama does, an empty one as none."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else value


class Request(LenientRequest):
    """What requests for vectors share."""

    model: ModelName
    options: dict[str, Any] | None = Field(None, description="Taken, and not looked at.")
    keep_alive: float | str | None = Field(
        None, description="Taken, and not looked at: models stay loaded."
    )


class EmbedRequest(Request):
    """Texts to embed."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2", "input": "A text."}]}
    )

    input: Annotated[
        list[Text],
        BeforeValidator(_as_list),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "string"}},
                    {"type": "null"},
                ]
            }
        ),
    ] = Field(default_factory=list, description="One text or several; none loads the model.")
    truncate: bool | None = Field(
        True, description="Whether texts that are too long are cut; else they are refused."
    )
    dimensions: int | None = Field(
        None,
        description="Keep only so many leading dimensions, renormalised; 0, or more than there "
        "are, keeps all.",
    )


class EmbedResponseInOllama(BaseModel):
    """Vectors in the order of their texts."""

    model: str = Field(description="The model as it was asked for.")
    embeddings: list[list[float]] = Field(description="Vectors, of length one.")
    total_duration: int = Field(description="Nanoseconds that it took.")
    load_duration: int = Field(description="Nanoseconds of them until the model was loaded.")
    prompt_eval_count: int = Field(description="Tokens, special ones included.")


class EmbeddingsRequest(Request):
    """A text to embed, in the older way."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2", "prompt": "A text."}]}
    )

    prompt: Text = Field("", description="The text; none loads the model.")


class EmbeddingsResponseInOllama(BaseModel):
    """A vector."""

    embedding: list[float] = Field(description="As the model makes it, of any length.")


class ShowRequest(LenientRequest):
    """A model to be described."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "all-MiniLM-L6-v2"}]})

    model: ModelName


class Details(BaseModel):
    """What kind of model it is."""

    parent_model: str
    format: str = Field(description="Of its file: arrow, parquet, safetensors or gguf.")
    family: str = Field(description="Architecture.")
    families: list[str]
    parameter_size: str = Field(description="Such as 23M.")
    quantization_level: str = Field(description="What its weights are stored in.")


class ShownModel(BaseModel):
    """A model."""

    details: Details
    model_info: dict[str, Any] = Field(description="Facts, under the names that GGUF files have.")
    capabilities: list[str]
    modified_at: str = Field(description="When its files were last changed.")


class ListedModel(BaseModel):
    """A model of the service; what is only known of one in memory is missing until it is loaded."""

    name: str
    model: str = Field(description="The same.")
    modified_at: str | None = Field(None, description="When its files were last changed.")
    size: int | None = Field(None, description="Bytes of its weights.")
    digest: str | None = Field(None, description="SHA-256 of what it was converted from.")
    details: Details | None = None


class LoadedModel(ListedModel):
    """A model in memory."""

    size_vram: int = Field(description="Bytes of its weights in the memory of a device.")
    context_length: int = Field(description="Longest input in tokens.")


class LoadedModelList(BaseModel):
    """The models in memory."""

    models: list[LoadedModel]


class ModelsInOllama(BaseModel):
    """All models of the service."""

    models: list[ListedModel]


class Version(BaseModel):
    """Which version answers."""

    version: str = Field(description="Of arrowembed.")


class ErrorInOllama(BaseModel):
    """An error."""

    error: str = Field(description="What was wrong, where, and what to do.")
