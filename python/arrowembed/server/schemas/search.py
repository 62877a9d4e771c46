"""Searches of stores, in the service's own dialect."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from arrowembed.server.schemas.fields import Request, Text, check_whole
from arrowembed.server.schemas.native import Finite, Usage
from arrowembed.store.records import DEFAULT_FIELDS
from arrowembed.store.records import Field as HitField

Filter = Annotated[dict[str, Any], AfterValidator(check_whole)]


class SearchOptions(Request):
    """Where to look, and what is wanted."""

    store: Text | None = Field(None, description="Name of the store; else the first one.")
    k: int = Field(10, ge=1, description="Most hits.")
    filter: Filter | None = Field(
        None, description="Only entries whose metadata fulfil this condition."
    )
    offset: int = Field(0, ge=0, description="So many of the most similar are passed over.")
    include: list[HitField] = Field(
        list(DEFAULT_FIELDS), description="What hits have beside ids and scores."
    )


class QueryRequest(SearchOptions):
    """A text to search for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "A question.", "k": 3, "filter": {"year": {"$gte": 2020}}},
                {"query": "A question.", "include": []},
            ]
        }
    )

    query: Text = Field(description="The text, which the store's model embeds.")


class VectorRequest(SearchOptions):
    """A vector to search for."""

    vector: Annotated[list[Finite], Field(min_length=1)] = Field(
        description="The vector, as long as those of the store."
    )


SearchRequest: TypeAlias = QueryRequest | VectorRequest


class Hit(BaseModel):
    """An entry that was found; it has what was asked for."""

    id: str
    score: float = Field(
        description="More is more similar: cosine, dot product, or negative Euclidean distance."
    )
    text: str | None = Field(None, description="Null if it has none.")
    metadata: dict[str, Any] | None = None
    vector: list[float] | None = None


class SearchResponse(BaseModel):
    """What was found, the most similar first."""

    hits: list[Hit]
    store: str = Field(description="Name of the store.")
    metric: Literal["cosine", "dot", "euclidean"] = Field(description="The store's own.")
    usage: Usage | None = Field(description="Of the query; null if that was a vector.")


class StoreInfo(BaseModel):
    """A store that can be searched."""

    name: str
    default: bool = Field(description="Whether it is searched where none is named.")
    backend: str = Field(description="lightweight or lancedb.")
    entries: int = Field(description="Entries in it.")
    dimensions: int = Field(description="Length of its vectors.")
    metric: Literal["cosine", "dot", "euclidean"]
    model: str | None = Field(
        description="Name of the model that embeds queries; null if it takes vectors only."
    )


class StoreList(BaseModel):
    """All stores of the service."""

    stores: list[StoreInfo]
