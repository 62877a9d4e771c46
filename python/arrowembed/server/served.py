"""The models of the service, by name.

All of it runs on one event loop; only the opening of files is done on a thread. What is asked of a
model while it is replaced is answered by the old one or by the new one, and never refused.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from arrowembed.embedder import Embedder
from arrowembed.errors import ClosedError
from arrowembed.scheduler import Scheduler
from arrowembed.server.errors import ServiceError
from arrowembed.server.model_settings import VariantSettings
from arrowembed.server.watch import files_of

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from arrowembed.scheduler import Encoded
    from arrowembed.server.model_settings import ModelSettings
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.watch import Files

logger = logging.getLogger("arrowembed.server")

MAIN = "main"
"""Name of the variant of a model that has only one."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in memory, with the queue in front of it."""

    name: str
    variant: str
    embedder: Embedder
    scheduler: Scheduler
    load_seconds: float
    files: Files
    """What it was loaded from."""


class Variant:
    """A place for a model: empty, or with the one that answers at present."""

    def __init__(
        self, name: str, variant: str, source: str, opening: dict[str, Any], limits: ServerSettings
    ) -> None:
        self.name, self.variant = name, variant
        self.current: ServedModel | None = None
        self.failed = False
        """Whether the last attempt to load it failed."""
        self._source, self._opening, self._limits = source, opening, limits
        self._changing = asyncio.Lock()
        self._loading: asyncio.Task[ServedModel] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def state(self) -> str:
        """How it stands: loaded, loading, failed or unloaded."""
        if self.current is not None:
            return "loaded"
        if self._loading is not None:
            return "loading"
        return "failed" if self.failed else "unloaded"

    async def get(self) -> ServedModel:
        """The model, loaded if it was not."""
        return self.current or await self.load()

    async def load(self) -> ServedModel:
        """Loads the model once, however many ask. Raises `ServiceError` if that fails."""
        if self._loading is None:
            self._loading = self._start(self._load())
        # Whoever gives up waiting does not stop it for the others.
        return await asyncio.shield(self._loading)

    async def reload(self) -> None:
        """Puts the model, opened anew, in the place of the old one, which stays if that fails."""
        await asyncio.shield(self._start(self._replace()))

    async def unload(self) -> bool:
        """Lets go of the model, once it has answered what it was asked; False if there is none."""
        async with self._changing:
            old, self.current = self.current, None
        if old is not None:
            self._start(old.scheduler.drain())
        return old is not None

    async def close(self) -> None:
        """Takes nothing more, and waits for what was taken."""
        self._closed = True
        async with self._changing:
            if self.current is not None:
                await self.current.scheduler.drain()
        await asyncio.gather(*self._background, return_exceptions=True)

    async def _load(self) -> ServedModel:
        try:
            async with self._changing:
                if self.current is None:
                    self.current = await self._open()
                return self.current
        finally:
            self._loading = None

    async def _replace(self) -> None:
        async with self._changing:
            new = await self._open()
            old, self.current = self.current, new
        if old is not None:
            self._start(old.scheduler.drain())

    async def _open(self) -> ServedModel:
        if self._closed:
            raise ClosedError("closed")
        start = time.perf_counter()
        try:
            embedder, files = await asyncio.to_thread(_open, self._source, self._opening)
        except Exception as error:
            self.failed = True
            logger.exception("model %s (%s) could not be loaded", self.name, self.variant)
            raise ServiceError(
                "model_unavailable",
                f"model {self.name!r} could not be loaded; the server's log says why",
            ) from error
        self.failed = False
        seconds = time.perf_counter() - start
        logger.info("model %s (%s) loaded in %.3f s", self.name, self.variant, seconds)
        scheduler = Scheduler(
            embedder,
            max_queued_texts=self._limits.max_queued_texts,
            max_queued_tokens=self._limits.max_queued_tokens,
        )
        return ServedModel(self.name, self.variant, embedder, scheduler, seconds, files)

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs something that must not be given up when those who wait for it are gone."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            # What failed was logged; asyncio wants it to be looked at.
            task.exception()


@dataclass(frozen=True, slots=True)
class Model:
    """What a name stands for: one variant, or several that share its requests."""

    name: str
    variants: Sequence[Variant]
    cumulative_weights: Sequence[float]

    def choose(self) -> Variant:
        """A variant by chance, in proportion to its weight."""
        if len(self.variants) == 1:
            return self.variants[0]
        chosen = random.choices(self.variants, cum_weights=self.cumulative_weights)  # noqa: S311
        return chosen[0]


class ServedModels:
    """All models of the service.

    Args:
        settings: Which they are.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._models: dict[str, Model] = {}
        self._by_name: dict[str, Model] = {}
        """Under every name: its own, aliases, NAME@VARIANT."""
        for model in settings.models:
            self._add(model)
        self._default = self._by_name[settings.default_model or settings.models[0].name]
        self._closed = False
        self.ready = False
        """Whether all that is to be loaded at the start is."""

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    @property
    def default(self) -> Model:
        """The one that answers where none is asked for."""
        return self._default

    @property
    def closed(self) -> bool:
        """Whether nothing is taken any more."""
        return self._closed

    def find(self, name: str | None) -> Model:
        """What a name stands for, without loading it.

        Args:
            name: Name, alias or NAME@VARIANT; None is the default model.

        Raises:
            ServiceError: There is no such model (`unknown_model`).
        """
        if name is None:
            return self._default
        try:
            return self._by_name[name]
        except KeyError:
            raise ServiceError(
                "unknown_model", f"model: there is no {name!r} here; GET /models lists them"
            ) from None

    def aliases(self, model: Model) -> list[str]:
        """The other names of a model."""
        return next(m.aliases for m in self._settings.models if m.name == model.name)

    async def get(self, name: str | None = None) -> ServedModel:
        """A model by any of its names, loaded if it was not.

        Raises:
            ServiceError: There is none (`unknown_model`), or it cannot be loaded
                (`model_unavailable`).
        """
        return await self.find(name).choose().get()

    async def encode(
        self, name: str | None, texts: Sequence[str], **options: Any
    ) -> tuple[ServedModel, Encoded]:
        """Embeds texts with a model, and says which variant it was.

        Args:
            name: As for `get`.
            texts: The texts.
            options: As for `Scheduler.encode`.

        Raises:
            ServiceError: As `get`; others come from `Scheduler.encode`.
        """
        variant = self.find(name).choose()
        while True:
            served = await variant.get()
            _check_options(served, options)
            try:
                return served, await served.scheduler.encode(texts, **options)
            except ClosedError:
                # It was replaced between the two lines above, unless all is over.
                if self._closed or variant.current is served:
                    raise

    async def load_eager(self) -> None:
        """Loads all models that are not to wait for the first request.

        Raises:
            ServiceError: One cannot be loaded.
        """
        eager = [
            variant
            for settings in self._settings.models
            for variant in self._models[settings.name].variants
            if not (self._settings.lazy if settings.lazy is None else settings.lazy)
        ]
        await asyncio.gather(*(variant.load() for variant in eager))
        self.ready = True

    async def reload(self, name: str | None = None) -> None:
        """Opens a model's files anew, or those of all models that are loaded.

        Raises:
            ServiceError: One cannot be loaded; it goes on with its old files.
        """
        models = [self.find(name)] if name is not None else list(self)
        loaded = [v for model in models for v in model.variants if v.current is not None]
        await asyncio.gather(*(variant.reload() for variant in loaded))

    async def close(self) -> None:
        """Takes nothing more, and waits for what was taken."""
        self._closed = True
        await asyncio.gather(*(v.close() for model in self for v in model.variants))

    def _add(self, model: ModelSettings) -> None:
        defaults = self._settings.opening()
        of_model = {**defaults, **model.opening()}
        given = model.variants or [VariantSettings(name=MAIN)]
        variants = [
            Variant(
                model.name,
                variant.name,
                variant.source or model.source,
                {**of_model, **variant.opening(), "prompts": {**model.prompts, **variant.prompts}},
                self._settings,
            )
            for variant in given
        ]
        served = Model(model.name, variants, list(accumulate(v.weight for v in given)))
        self._models[model.name] = served
        for name in (model.name, *model.aliases):
            self._by_name[name] = served
        for variant in variants:
            self._by_name[f"{model.name}@{variant.variant}"] = Model(model.name, [variant], [1.0])


def _check_options(served: ServedModel, options: dict[str, Any]) -> None:
    """Refuses what this model has not, in the words of requests."""
    dimensions, has = options.get("truncate_dim"), served.embedder.dimension
    if dimensions is not None and dimensions > has:
        raise ServiceError("invalid_request", f"dimensions: {dimensions}; {served.name} has {has}")
    prompt_name = options.get("prompt_name")
    if prompt_name is not None and prompt_name not in (prompts := served.embedder.prompts):
        known = ", ".join(prompts) or "none"
        raise ServiceError(
            "invalid_request", f"prompt_name: {served.name} has no such prompt; known are {known}"
        )


def _open(source: str, opening: dict[str, Any]) -> tuple[Embedder, Files]:
    embedder = Embedder(source, **opening)
    return embedder, files_of(embedder.path)
