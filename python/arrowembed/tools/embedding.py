"""`EmbeddingTool`: what this package does, for language models.

`embed` and `similarity` always; with a store also `search`, `remember` and `forget`. What is given
back is bounded, so that it does not flood a model's context: vectors are kept here and stood for by
a handle unless they are asked for, texts are shortened, and hits that do not fit are only counted.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from pydantic import Field

from arrowembed.embedder import Embedder
from arrowembed.errors import InvalidArgumentError, TextTooLongError
from arrowembed.store.base import Store
from arrowembed.tools.combined import combined
from arrowembed.tools.definition import Tool, tool
from arrowembed.tools.handles import HandleTable
from arrowembed.tools.kinds import (
    Embedded,
    Filter,
    Forgotten,
    Found,
    Handle,
    Ids,
    K,
    Kind,
    Metadata,
    Remembered,
    Returned,
    Similarities,
    Text,
    Texts,
)
from arrowembed.tools.outcome import ToolError, did_you_mean, failure
from arrowembed.tools.room import MAX_TEXT, MIN_BYTES, fitted
from arrowembed.tools.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from arrowembed.tools.forms import Form
    from arrowembed.tools.outcome import Outcome

MODEL_VARIABLE, STORE_VARIABLE = "ARROWEMBED_MODEL", "ARROWEMBED_STORE"

_VALUE_BYTES = 11
"""Of one number of a vector in JSON: sign, point, leading zero, six decimals, comma, and one."""


_SPECIAL_TOKENS = 8
"""At most, around a text."""


class EmbeddingTool:
    """Embeddings and a store of texts, called with JSON.

    Model and store are opened when they are first needed. Safe to share between threads.

    >>> with EmbeddingTool("all-MiniLM-L6-v2", "memory") as embedding:
    ...     embedding.execute("remember", {"texts": ["the cat sleeps"]})["ok"]
    True

    Args:
        model: An `Embedder`, or the name or path of a model. By default that of the store, else
            all-MiniLM-L6-v2.
        store: A `Store`, or the folder of one, which is made if it is not there. Without one there
            are only `embed` and `similarity`.
        name: Of the combined tool.
        max_output_bytes: Of a result as JSON, 32 KiB or more.
        max_handles: How many results of `embed` are kept.
        max_handle_bytes: How many bytes these may have.
        shared_seconds: How long results in shared memory stay.

    Raises:
        InvalidArgumentError: An argument is outside what is allowed.
    """

    def __init__(
        self,
        model: Embedder | str | None = None,
        store: Store | str | os.PathLike[str] | None = None,
        *,
        name: str = "embedding",
        max_output_bytes: int = MIN_BYTES,
        max_handles: int = 64,
        max_handle_bytes: int = 64 << 20,
        shared_seconds: float = 3600,
    ) -> None:
        if max_output_bytes < MIN_BYTES:
            raise InvalidArgumentError(
                f"max_output_bytes: {max_output_bytes}; expected at least {MIN_BYTES}"
            )
        self._sources = Sources(model, store)
        self._max_output_bytes, self._shared_seconds = max_output_bytes, shared_seconds
        self._handles = HandleTable(max_handles, max_handle_bytes)
        actions: list[Callable[..., Any]] = [self.embed, self.similarity]
        if store is not None:
            actions += [self.search, self.remember, self.forget]
        made = [Tool(action, max_output_bytes=max_output_bytes) for action in actions]
        self._tools = {tool.name: tool for tool in made}
        self._name = name

    @classmethod
    def from_env(cls) -> Self:
        """One with what the environment says: `ARROWEMBED_MODEL` and `ARROWEMBED_STORE`."""
        return cls(os.environ.get(MODEL_VARIABLE), os.environ.get(STORE_VARIABLE))

    def execute(
        self, action: str, params: Mapping[str, Any] | str | bytes | None = None
    ) -> Outcome:
        """Carries out one action. Whatever it is given, it gives an answer and raises nothing.

        Args:
            action: "embed", "similarity", "search", "remember" or "forget".
            params: Its arguments: an object, or JSON text of one.

        Returns:
            `{"ok": true, "result": ...}` or `{"ok": false, "error": {"code", "message", "hint"}}`,
            of plain JSON.
        """
        named = str(action)  # which comes from JSON, and may be anything
        found = self._tools.get(named)
        if found is not None:
            return found.call(params)
        if named in ("search", "remember", "forget"):
            return failure("no_store", f"{named}: there is no store")
        known = ", ".join(self._tools)
        near = did_you_mean(named, self._tools)
        return failure("unknown_action", f"no action {named[:100]!r}{near}; known: {known}")

    def tools(self) -> list[Tool]:
        """A tool for each action: what models handle best."""
        return list(self._tools.values())

    def combined(self) -> Tool:
        """One tool for all actions, with `action` and `params`; where tools must be few."""
        return combined(self._name, self.tools(), self.execute)

    def get_schema(
        self, form: Form = "json_schema", *, combined: bool = False
    ) -> list[dict[str, Any]]:
        """What a model is told: of a tool for each action, or of one for all.

        Args:
            form: As for `Tool.get_schema`.
            combined: Whether it is one.
        """
        offered = [self.combined()] if combined else self.tools()
        return [tool.get_schema(form) for tool in offered]

    @property
    def store(self) -> Store:
        """The store, opened or made if it is not yet.

        Raises:
            ToolError: There is none.
        """
        return self._sources.store()

    def open(self) -> Self:
        """Opens model and store now, for example on another thread while nothing is asked yet."""
        self._sources.open()
        return self

    def close(self) -> None:
        """Closes the store, if it was opened here."""
        self._sources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @tool(
        title="Embed texts",
        scope="read",
        open_world=False,
        example={"texts": ["a warm day", "sunny weather"]},
    )
    def embed(
        self,
        texts: Texts,
        kind: Kind = "text",
        return_: Returned = "reference",
        ids: Ids | None = None,
    ) -> Embedded:
        """Turns texts into vectors that stand for their meaning.

        Gives a handle for the vectors, which similarity and search take in place of texts. To
        compare or search texts, give them to these directly instead.

        Args:
            texts: The texts. Of long ones the model may not read the end; the result says so.
            kind: What they are for: a search query, a document to be found, or just text.
            return_: A handle, the numbers themselves (few texts only), or shared memory for another
                program on this machine.
            ids: Names of the vectors in shared memory.
        """
        if ids is not None and len(ids) != len(texts):
            raise InvalidArgumentError(f"ids: {len(ids)} for {len(texts)} texts")
        embedder = self._sources.model()
        self._check_room(len(texts), embedder.dimension, return_)
        encode = {
            "text": embedder.encode,
            "query": embedder.encode_query,
            "document": embedder.encode_document,
        }[kind]
        vectors = encode(texts)
        embedded = Embedded(count=len(texts), dimension=vectors.shape[1], dtype="float32")
        if truncated := _truncated(embedder, texts):
            embedded["truncated"] = truncated
        match return_:
            case "values":
                embedded["values"] = _rounded(vectors)
            case "shared":
                from arrowembed.tools.sharing import share  # noqa: PLC0415 - needs pyarrow

                embedded["shared"] = {**share(vectors, ids, ttl=self._shared_seconds)}
            case "reference":
                embedded["handle"] = self._handles.put(vectors)
        return embedded

    @tool(
        title="Compare texts",
        scope="read",
        open_world=False,
        example={"a": ["a warm day"], "b": ["sunny weather", "tax return"]},
    )
    def similarity(self, a: Texts | Handle, b: Texts | Handle) -> Similarities:
        """Tells how similar texts are in meaning: each of a to each of b.

        Args:
            a: Texts, or the handle of vectors.
            b: Texts, or the handle of vectors, to compare them with.
        """
        embedder = self._sources.model()
        left, right = (self._vectors(embedder, side) for side in (a, b))
        most = self._max_output_bytes // (2 * _VALUE_BYTES)
        if len(left) * len(right) > most:
            raise ToolError(
                f"{len(left)} times {len(right)} are more than {most} similarities",
                code="result_too_large",
            )
        scores = embedder.similarity(left, right)
        return {
            "function": embedder.similarity_function,
            "scores": _rounded(scores),
            "best": scores.argmax(axis=1).tolist(),
        }

    @tool(
        title="Search what was remembered",
        scope="read",
        open_world=False,
        example={"query": "pets", "k": 3},
    )
    def search(
        self,
        query: Text | Handle,
        k: K = 5,
        filter: Filter | None = None,
        max_characters: Annotated[int, Field(ge=1, le=MAX_TEXT)] = 1000,
    ) -> Found:
        """Finds the remembered texts that are nearest in meaning to a query.

        Args:
            query: What to look for, in words, or the handle of one vector.
            k: How many to find.
            filter: Only texts with such metadata, for example {"topic": "home"} or
                {"year": {"$gte": 2020}}. Conditions are $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin,
                $exists, joined by $and, $or, $not.
            max_characters: Of each text; longer ones are shortened.
        """
        looked_for: Any = query if isinstance(query, str) else self._one_vector(query)
        hits = self.store.search(looked_for, k, filter=filter)
        return fitted(hits, self._max_output_bytes, max_characters)

    @tool(
        title="Remember texts",
        scope="write",
        idempotent=True,
        open_world=False,
        example={"texts": ["The user's cat is called Miez."], "metadata": {"topic": "home"}},
    )
    def remember(
        self, texts: Texts, metadata: Metadata | None = None, ids: Ids | None = None
    ) -> Remembered:
        """Keeps texts, so that search finds them, also in later conversations.

        Write each text so that it can be understood alone. To remember the same text again changes
        nothing but its metadata.

        Args:
            texts: The texts, one for each fact.
            metadata: Names and values to filter by, for all of these texts.
            ids: Names for the texts, to replace or forget them by; an entry that has one of them is
                replaced. By default they are made from the texts.
        """
        if ids is None:
            # Of a text that comes twice, one.
            texts = list(dict.fromkeys(texts))
        names = [_id_of(text) for text in texts] if ids is None else ids
        if len(names) != len(texts):
            raise InvalidArgumentError(f"ids: {len(names)} for {len(texts)} texts")
        self.store.upsert(names, texts, metadata=[metadata] * len(texts))
        remembered = Remembered(ids=names)
        if truncated := _truncated(self._sources.model(), texts):
            remembered["truncated"] = truncated
        return remembered

    @tool(
        title="Forget texts",
        scope="write",
        idempotent=True,
        open_world=False,
        example={"ids": ["m-1f0c9a52e67b4d38"]},
    )
    def forget(self, ids: Ids | None = None, filter: Filter | None = None) -> Forgotten:
        """Deletes remembered texts for good: those with these ids that fulfil the filter.

        Args:
            ids: As remember or search gave them.
            filter: Only texts with such metadata; see search. Give ids, a filter or both.
        """
        return {"deleted": self.store.delete(ids, filter=filter)}

    def _vectors(self, embedder: Embedder, side: list[str] | Handle) -> NDArray[np.float32]:
        if isinstance(side, list):
            vectors: NDArray[np.float32] = embedder.encode(side)
            return vectors
        return self._handles.get(side["handle"])

    def _one_vector(self, query: Handle) -> NDArray[np.float32]:
        vectors = self._handles.get(query["handle"])
        if len(vectors) != 1:
            raise ToolError(
                f"query: the handle has {len(vectors)} vectors",
                code="invalid_argument",
                hint="Search with one at a time: embed the one text, or give it as the query.",
            )
        return vectors.reshape(-1)

    def _check_room(self, count: int, dimension: int, wanted: Returned) -> None:
        if wanted != "values":
            return
        most = self._max_output_bytes // (dimension * _VALUE_BYTES)
        if count > most:
            raise ToolError(
                f"texts: {count}; of vectors with {dimension} numbers only {most} fit a result",
                code="result_too_large",
                hint='Ask for return "reference" or "shared", or for fewer texts at a time.',
            )


def _id_of(text: str) -> str:
    """An id that is the same for the same text."""
    return f"m-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _truncated(embedder: Embedder, texts: list[str]) -> list[int]:
    """Positions of the texts that are longer than the model's limit, prompts aside."""
    found = []
    for position, text in enumerate(texts):
        # No token is less than a byte.
        if len(text.encode()) >= embedder.max_seq_length - _SPECIAL_TOKENS:
            try:
                embedder.tokenize(text, prompt="", truncate=False)
            except TextTooLongError:
                found.append(position)
    return found


def _rounded(numbers: NDArray[np.float32]) -> list[list[float]]:
    """float32 has no more than 7 digits; all 17 of a float64 would only take room."""
    rounded: list[list[float]] = np.round(numbers.astype(np.float64), 6).tolist()
    return rounded
