"""The stores of the service, by name.

A query that is a text waits in the queue of the served model that the store was made with, as all
other texts do. To look through a store is done on a thread.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from arrowembed import get_num_threads
from arrowembed.errors import StoreMismatchError
from arrowembed.models import short_name
from arrowembed.server.bodies import checked
from arrowembed.server.errors import ServiceError
from arrowembed.server.observe.record import current
from arrowembed.server.schemas.search import QueryRequest, SearchRequest, VectorRequest
from arrowembed.server.workers import Workers
from arrowembed.store import open_store
from arrowembed.store.description import ModelUse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from arrowembed.scheduler import Encoded
    from arrowembed.server.served import ServedModels
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.variant import ServedModel
    from arrowembed.store import Hit, Store

_LEAST_THREADS = 2
"""So that a small search need not wait for a large one."""


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a search."""

    store: ServedStore
    hits: list[Hit]
    encoded: Encoded | None
    """What the query took, if it was a text."""


class ServedStore:
    """A store that can be searched.

    Args:
        name: Its name.
        store: The store.
        model: Name of the served model that embeds queries; None takes vectors only.
    """

    def __init__(self, name: str, store: Store, model: str | None) -> None:
        self.name, self.store, self.model = name, store, model
        self._checked: ServedModel | None = None

    async def embed(self, models: ServedModels, text: str) -> Encoded:
        """The vector of a query.

        Raises:
            ServiceError: The store takes vectors only.
            StoreMismatchError: The served model is not that of the store.
        """
        use = self.store.description.model
        if use is None or self.model is None:
            raise ServiceError(
                "invalid_request",
                f"query: store {self.name!r} was made for vectors, not for texts; send vector",
                field="query",
            )
        self.check(await models.get(self.model))
        served, encoded = await models.encode(
            self.model, [text], prompt=use.query_prompt, truncate_dim=use.truncate_dim
        )
        # It may have been replaced meanwhile.
        self.check(served)
        return encoded

    def check(self, served: ServedModel) -> None:
        """Refuses a model whose vectors are others than those of the store.

        Raises:
            StoreMismatchError: They are.
        """
        use = self.store.description.model
        if use is None or served is self._checked:
            return
        found = ModelUse.of(served.embedder)
        # Prompts are asked for with each query, and so are dimensions, unless there are fewer.
        cut = found.truncate_dim
        if cut is None or (use.truncate_dim is not None and use.truncate_dim <= cut):
            cut = use.truncate_dim
        asked = replace(
            found,
            query_prompt=use.query_prompt,
            document_prompt=use.document_prompt,
            truncate_dim=cut,
        )
        if not use.is_of(asked):
            raise StoreMismatchError(
                f"stores: {self.name} was made with {use.name}, and {served.name} gives other "
                "vectors; serve that model, and name it in the store's setting `model`"
            )
        self._checked = served


class ServedStores:
    """All stores of the service.

    Args:
        settings: Which they are.

    Raises:
        StoreNotFoundError: There is no store at a path.
        StoreFileError: Its files are damaged.
        MissingDependencyError: Its backend's package is not installed.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._stores: dict[str, ServedStore] = {}
        for each in settings.stores:
            store = open_store(each.path)
            model = each.model or _model_of(store, settings)
            self._stores[each.name] = ServedStore(each.name, store, model)
        threads = max(_LEAST_THREADS, get_num_threads())
        self.workers = Workers("arrowembed-search", threads, settings.max_queued_searches)

    def __iter__(self) -> Iterator[ServedStore]:
        return iter(self._stores.values())

    def __len__(self) -> int:
        return len(self._stores)

    def find(self, name: str | None) -> ServedStore:
        """A store by its name; None is the first.

        Raises:
            ServiceError: There is none (`no_store`), or none of that name (`unknown_store`).
        """
        if not self._stores:
            raise ServiceError("no_store", "search: no store is attached to this service")
        if name is None:
            return next(iter(self))
        if name not in self._stores:
            known = ", ".join(self._stores)
            raise ServiceError(
                "unknown_store",
                f"store: there is no {name!r} here; known are {known}",
                field="store",
            )
        return self._stores[name]

    def of_model(self, name: str) -> list[str]:
        """The stores whose queries a model embeds."""
        return [store.name for store in self if store.model == name]

    def check(self, models: ServedModels) -> None:
        """Compares stores with their models, where those are loaded.

        Raises:
            StoreMismatchError: A model is not that of a store.
        """
        for store in self:
            if store.model is not None:
                for variant in models.find(store.model).variants:
                    if variant.current is not None:
                        store.check(variant.current)

    async def search(self, models: ServedModels, wanted: SearchRequest) -> Found:
        """What is most similar to a query.

        Raises:
            ServiceError: There is no such store, it takes no texts, too many hits are asked for, or
                too many searches wait (`queue_full`).
            InvalidArgumentError: The filter is none, or the vector of another length.
        """
        store = self.find(wanted.store)
        if wanted.k > self._settings.max_hits:
            raise ServiceError(
                "invalid_request",
                f"{wanted.k} hits; ask for at most {self._settings.max_hits} at a time",
            )
        encoded = None
        if isinstance(wanted, QueryRequest):
            encoded = await store.embed(models, wanted.query)
            query: NDArray[Any] = encoded.vectors[0]
        else:
            query = np.array(wanted.vector)
        started = time.perf_counter()
        work = partial(
            store.store.search,
            query,
            wanted.k,
            filter=wanted.filter,
            offset=wanted.offset,
            include=wanted.include,
        )
        hits = await self.workers.run(work)
        record = current()
        record.store, record.hits = store.name, len(hits)
        record.search_seconds = time.perf_counter() - started
        return Found(store, hits, encoded)

    async def described(self) -> list[dict[str, Any]]:
        """The stores, as `schemas.search.StoreInfo` has them."""
        return [
            {
                "name": store.name,
                "default": store is self.find(None),
                "backend": store.store.description.backend,
                "entries": await asyncio.to_thread(store.store.count),
                "dimensions": store.store.description.dimension,
                "metric": store.store.description.metric,
                "model": store.model,
            }
            for store in self
        ]

    async def close(self) -> None:
        """Takes nothing more, waits for what was taken, and lets go of the files."""
        await self.workers.close()
        for store in self:
            store.store.close()


def _model_of(store: Store, settings: ServerSettings) -> str | None:
    """The served model that a store was made with, by its names and where it is; else the default.

    Whether it is the same is found out when it is loaded.
    """
    use = store.description.model
    if use is None:
        return None
    names = {use.name, short_name(use.name), Path(use.name).name}
    for model in settings.models:
        source = str(Path(model.source).expanduser().absolute())
        if names & {model.name, *model.aliases, model.source, source}:
            return model.name
    return settings.default_model or settings.models[0].name


def search_request(fields: dict[str, Any]) -> SearchRequest:
    """What is looked for, in either form.

    Raises:
        ServiceError: As `checked`.
    """
    if "vector" in fields:
        return checked(VectorRequest, fields)
    return checked(QueryRequest, fields)


def text_of(wanted: SearchRequest) -> list[str]:
    """The text that is looked for, if it is one."""
    return [wanted.query] if isinstance(wanted, QueryRequest) else []


def fields_of(hit: Hit, include: Iterable[str]) -> dict[str, Any]:
    """A hit as `schemas.search.Hit` has it, with what was asked for."""
    return {"id": hit.id, "score": hit.score, **{name: getattr(hit, name) for name in include}}
