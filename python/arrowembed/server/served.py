"""The models of the service, by name."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from arrowembed.errors import ClosedError
from arrowembed.server.errors import ServiceError
from arrowembed.server.model_settings import VariantSettings
from arrowembed.server.observe.record import current
from arrowembed.server.variant import MAIN, Variant, check_options
from arrowembed.server.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from arrowembed._core import EncodeStats
    from arrowembed.scheduler import Encoded
    from arrowembed.server.model_settings import ModelSettings
    from arrowembed.server.observe.metrics import Metrics
    from arrowembed.server.settings import ServerSettings
    from arrowembed.server.variant import ServedModel

_MOST_WAITING = 64
"""Requests for the vectors of tokens that may wait."""


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
        metrics: What counts what they do.
    """

    def __init__(self, settings: ServerSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._models: dict[str, Model] = {}
        self._by_name: dict[str, Model] = {}
        """Under every name: its own, aliases, NAME@VARIANT."""
        for model in settings.models:
            self._add(model)
        self._default = self._by_name[settings.default_model or settings.models[0].name]
        self._closed = False
        self._aside = Workers("arrowembed-tokens", 1, _MOST_WAITING)
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

    def has(self, name: str) -> bool:
        """Whether a model is served under this name."""
        return name in self._by_name

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
            known = ", ".join(model.name for model in self)
            raise ServiceError(
                "unknown_model",
                f"model: there is no {name!r} here; known are {known}",
                field="model",
            ) from None

    def variant_of(self, served: ServedModel) -> str | None:
        """Which variant a model is, where several share its requests."""
        return served.variant if len(self.find(served.name).variants) > 1 else None

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
        record = current()
        record.model = variant.label
        while True:
            served = await variant.get()
            check_options(served, options)
            try:
                encoded = await served.scheduler.encode(texts, **options)
            except ClosedError:
                # It was replaced between the two lines above, unless all is over.
                if self._closed or variant.current is served:
                    raise
            else:
                record.add(encoded)
                return served, encoded

    async def encode_tokens(
        self, name: str | None, texts: Sequence[str], **options: Any
    ) -> tuple[ServedModel, list[NDArray[np.float32]]]:
        """The vectors of all tokens of texts, which the cache does not keep.

        Requests take turns, because one of them may hold a lot of memory; each is computed by all
        threads.

        Args:
            name: As for `get`.
            texts: The texts.
            options: `prompt_name` and `truncate`, as for `Embedder.encode`.

        Returns:
            The model, and for each text an array of shape (tokens, dim).

        Raises:
            ServiceError: As `get`, or too many requests wait (`queue_full`).
            ArrowEmbedError: As `Embedder.encode`.
        """
        variant = self.find(name).choose()
        record = current()
        record.model = variant.label
        served = await variant.get()
        check_options(served, options)
        asked = time.perf_counter()

        def work() -> tuple[list[NDArray[np.float32]], EncodeStats, float, float]:
            started = time.perf_counter()
            vectors, stats = served.embedder.encode_tokens(texts, **options)
            return vectors, stats, started - asked, time.perf_counter() - started

        vectors, stats, queued, computed = await self._aside.run(work)
        record.count(len(texts), stats["tokens"], stats["truncated"], queued, computed)
        return served, vectors

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

    async def load(self, name: str) -> None:
        """Loads all variants of a model. Raises what `get` raises."""
        await asyncio.gather(*(variant.load() for variant in self.find(name).variants))

    async def unload(self, name: str) -> None:
        """Lets go of all variants of a model, until they are asked for again.

        Raises:
            ServiceError: There is none (`unknown_model`).
        """
        for variant in self.find(name).variants:
            await variant.unload()

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
        await asyncio.gather(
            self._aside.close(), *(v.close() for model in self for v in model.variants)
        )

    def _add(self, model: ModelSettings) -> None:
        defaults = self._settings.opening()
        of_model = {**defaults, **model.opening()}
        given = model.variants or [VariantSettings(name=MAIN)]
        variants = [
            Variant(
                model.name,
                variant.name,
                source=variant.source or model.source,
                opening={
                    **of_model,
                    **variant.opening(),
                    "prompts": {**model.prompts, **variant.prompts},
                },
                limits=self._settings,
                metrics=self._metrics,
            )
            for variant in given
        ]
        served = Model(model.name, variants, list(accumulate(v.weight for v in given)))
        self._models[model.name] = served
        for name in (model.name, *model.aliases):
            self._by_name[name] = served
        for variant in variants:
            self._by_name[f"{model.name}@{variant.variant}"] = Model(model.name, [variant], [1.0])
