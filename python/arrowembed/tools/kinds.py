"""What the actions of `EmbeddingTool` take and give, as models see it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from pydantic import Field
from typing_extensions import TypedDict

MAX_TEXTS = 256
"""Of one call."""

MAX_CHARACTERS = 100_000
"""Of one text."""

MAX_K = 50
"""Entries of one search."""

MAX_ID_CHARACTERS = 256

Text: TypeAlias = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Texts: TypeAlias = Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]
Ids: TypeAlias = Annotated[list[Id], Field(min_length=1, max_length=MAX_TEXTS)]
K: TypeAlias = Annotated[int, Field(ge=1, le=MAX_K)]
Metadata: TypeAlias = dict[str, Any]
Filter: TypeAlias = dict[str, Any]
Kind: TypeAlias = Literal["text", "query", "document"]
Returned: TypeAlias = Literal["reference", "values", "shared"]


Truncated: TypeAlias = Annotated[
    list[int],
    Field(description="Positions of texts whose end the model did not read; better divide them."),
]


class Handle(TypedDict):
    """Vectors that `embed` gave a handle for."""

    handle: Annotated[str, Field(description="As embed gave it.", max_length=64)]


class SharedVectors(TypedDict):
    """Vectors in shared memory, for `arrowembed.tools.sharing.open_shared`."""

    path: str
    bytes: int
    rows: int
    dimension: int
    dtype: str
    expires: int | None


class Embedded(TypedDict):
    """What `embed` gives: of handle, values and shared what was asked for."""

    count: int
    dimension: int
    dtype: Literal["float32"]
    truncated: NotRequired[Truncated]
    handle: NotRequired[
        Annotated[str, Field(description="Stands for the vectors in similarity and search.")]
    ]
    values: NotRequired[
        Annotated[list[list[float]], Field(description="The vectors, to 6 decimals.")]
    ]
    shared: NotRequired[SharedVectors]


class Similarities(TypedDict):
    """What `similarity` gives."""

    function: Annotated[str, Field(description="cosine, dot, euclidean or manhattan.")]
    scores: Annotated[
        list[list[float]],
        Field(description="scores[i][j] is of a[i] and b[j]; more is more similar."),
    ]
    best: Annotated[list[int], Field(description="For each of a, which of b is most similar.")]


class Entry(TypedDict):
    """An entry that was found."""

    id: str
    score: Annotated[float, Field(description="More is more similar.")]
    text: str | None
    metadata: dict[str, Any]
    shortened: NotRequired[
        Annotated[bool, Field(description="Whether text or metadata were too long to be shown.")]
    ]


class Found(TypedDict):
    """What `search` gives."""

    hits: Annotated[list[Entry], Field(description="The most similar first.")]
    omitted: Annotated[int, Field(description="Further hits, for which there was no room.")]


class Remembered(TypedDict):
    """What `remember` gives."""

    ids: Annotated[list[str], Field(description="Of the entries, in the order of the texts.")]
    truncated: NotRequired[Truncated]


class Forgotten(TypedDict):
    """What `forget` gives."""

    deleted: Annotated[int, Field(description="How many entries there were.")]
