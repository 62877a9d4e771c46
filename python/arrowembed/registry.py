"""Several models in one process: loaded when first used, unloaded when not needed.

Which models are in memory is decided by the engine in Rust. Here are their names and settings, in
dictionaries that are only ever changed by one operation, which is atomic: so there is no lock that
a fork could leave held.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from os import fspath
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

from arrowembed import _core
from arrowembed.embedder import Embedder
from arrowembed.errors import InvalidArgumentError
from arrowembed.progress import Progress
from arrowembed.settings import Settings
from arrowembed.texts import Texts, as_texts

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from numpy.typing import NDArray

    from arrowembed.options import EncodeOptions


class RegisteredModel(TypedDict):
    """A model of an `EmbeddingEngine`, and how it stands; None where it does not apply."""

    name: str
    path: str | None
    """What it is opened from, once it has been looked up."""
    bytes: int | None
    """Bytes of its weights; None, as the next two are, if it is not loaded."""
    loaded_for: float | None
    """Seconds since it was loaded."""
    idle_for: float | None
    """Seconds since it was last used."""


@dataclass(frozen=True)
class _Registration:
    """What a name stands for."""

    model: str
    settings: Settings
    _embedders: list[Embedder] = field(default_factory=list, repr=False, compare=False)

    @property
    def embedder(self) -> Embedder | None:
        """The one of all threads, once the model was loaded."""
        return self._embedders[0] if self._embedders else None

    def keep(self, embedder: Embedder) -> Embedder:
        """The one of the thread that came here first."""
        self._embedders.append(embedder)
        return self._embedders[0]


class EmbeddingEngine:
    """Models by name, each loaded when it is first used, once however many threads ask at a time.

    If that fails, all who wait get the error, and the next one who asks tries again. Safe to share
    between threads; a forked child goes on with the models that were loaded.

    Args:
        memory_budget: Most bytes of weights in memory, of all models together; None is no limit.
        when_full: What happens to a model that does not fit into the budget: "refuse" raises
            `MemoryBudgetError`, "evict" unloads the least recently used ones that nobody is using.
        idle_timeout: Seconds for which nobody has to use a model until it is unloaded, 0.001 or
            more; None never unloads any.
        num_threads: As for `set_num_threads`; None leaves it.

    Raises:
        InvalidArgumentError: An argument is outside what is allowed.
    """

    def __init__(
        self,
        *,
        memory_budget: int | None = None,
        when_full: Literal["refuse", "evict"] = "refuse",
        idle_timeout: float | None = None,
        num_threads: int | None = None,
    ) -> None:
        self._start(
            _core.EmbeddingEngine(
                memory_budget=memory_budget,
                when_full=when_full,
                idle_timeout=idle_timeout,
                num_threads=num_threads,
            )
        )

    @classmethod
    def from_env(cls) -> Self:
        """One with what the environment says.

        That is `ARROWEMBED_MEMORY_BUDGET` in bytes, `ARROWEMBED_WHEN_FULL`,
        `ARROWEMBED_IDLE_TIMEOUT` in seconds and `ARROWEMBED_NUM_THREADS`.

        Raises:
            InvalidArgumentError: A variable's value is wrong; the message names it.
        """
        self = cls.__new__(cls)
        self._start(_core.EmbeddingEngine.from_env())
        return self

    def _start(self, core: _core.EmbeddingEngine) -> None:
        self._core = core
        self._registered: dict[str, _Registration] = {}

    def register(
        self, name: str, model: str | PathLike[str] | None = None, **settings: Any
    ) -> None:
        """Names a model, which is not opened yet. To say the same again changes nothing.

        A name whose model is not loaded can be registered again with another model or other
        settings; each `Embedder` from before goes on as long as the engine would load the same.
        A name that is not registered stands for the model of that name, with default settings.

        Args:
            name: How it is called here.
            model: Name or path of the model, as for `Embedder`; None is `name` itself.
            settings: The keyword arguments of `Embedder`.

        Raises:
            InvalidArgumentError: A setting is outside what is allowed, or the name's model is
                loaded and is another one or has other settings.
            TypeError: `Embedder` has no such argument.
        """
        if not name:
            raise InvalidArgumentError("name: is empty")
        new = _Registration(fspath(model if model is not None else name), Settings(**settings))
        new.settings.check()
        there = self._registered.setdefault(name, new)
        if there == new and (there.embedder or there.settings.token == new.settings.token):
            return
        if there != new and self.is_loaded(name):
            raise InvalidArgumentError(
                f"name: {name!r} is already registered for {there.model!r}, or with other "
                "settings, and is loaded; unload it or choose another name"
            )
        self._registered[name] = new

    def get(self, name: str, *, show_progress_bar: bool | None = None) -> Embedder:
        """The model of that name, loaded if it was not.

        It may be kept: holding it does not keep the model in memory. If the model is unloaded, the
        next call of the `Embedder` loads it again.

        Args:
            name: A registered name, or that of a model, or a path.
            show_progress_bar: Of reading a model with `preload`: True shows one; None shows one on
                a terminal when it takes long.

        Raises:
            ModelNotFoundError: No such model.
            MemoryBudgetError: It does not fit into the memory budget.
            ModelFileError: The model's files are damaged.
        """
        registration = self._registered.get(name) or _Registration(name, Settings())
        if registration.embedder is not None:
            return registration.embedder
        model, settings = registration.model, registration.settings
        path = settings.find(model)
        config = settings.config(path)
        self._core.register(name, config)
        self._load(name, settings.preload and show_progress_bar)
        try:
            embedder = Embedder.over(self._core.engine(name, config), model, path, settings)
        except InvalidArgumentError:
            # The settings do not suit the model; others can be registered when it is not loaded.
            self.unload(name)
            raise
        there = self._registered.setdefault(name, registration)
        return (there if there == registration else registration).keep(embedder)

    def load(self, name: str, *, show_progress_bar: bool | None = None) -> None:
        """Loads a model, if it is not loaded. Raises what `get` raises."""
        self.get(name, show_progress_bar=show_progress_bar)
        preload = self._registered[name].settings.preload
        self._load(name, preload and not self.is_loaded(name) and show_progress_bar)

    def _load(self, name: str, show_progress_bar: bool | None) -> None:
        with Progress(None, show_progress_bar, unit="B") as progress:
            self._core.load(name, progress.callback)

    def unload(self, name: str) -> bool:
        """Unloads a model, once those who compute with it are done; False if it was not loaded."""
        return self._core.unload(name)

    def is_loaded(self, name: str) -> bool:
        """Whether a model is loaded."""
        return self._core.is_loaded(name)

    def warmup(self, name: str, *, show_progress_bar: bool | None = None) -> None:
        """Loads a model, reads its weights into memory and computes a text.

        The first call then takes no longer than others. Raises what `get` raises.
        """
        self.get(name)
        with Progress(None, show_progress_bar, unit="B") as progress:
            self._core.warmup(name, progress.callback)

    def embed(self, name: str, text: str, **options: Unpack[EncodeOptions]) -> NDArray[Any]:
        """The vector of a text, shape (dim,). Options and errors: `Embedder.encode`, and `get`."""
        return self.embed_batch(name, text, **options)

    def embed_batch(
        self, name: str, texts: Texts, **options: Unpack[EncodeOptions]
    ) -> NDArray[Any]:
        """The vectors of texts, in their order, shape (n, dim). As for `embed`."""
        vectors: NDArray[Any] = self.get(name).encode(texts, **options)
        return vectors

    def embed_multi(
        self, names: Iterable[str], texts: Texts, **options: Unpack[EncodeOptions]
    ) -> dict[str, NDArray[Any]]:
        """The vectors of the same texts by several models, by their names. As for `embed_batch`."""
        texts = texts if isinstance(texts, str) else as_texts(texts)
        return {name: self.embed_batch(name, texts, **options) for name in names}

    def embedding_dimensions(self, name: str) -> int:
        """Length of a model's vectors. Raises what `get` raises."""
        return self.get(name).dimension

    def max_sequence_length(self, name: str) -> int:
        """Longest input of a model in tokens. Raises what `get` raises."""
        return self.get(name).max_seq_length

    def model_size(self, name: str) -> int:
        """Bytes of a model's weights. Raises what `get` raises."""
        return self.get(name).info()["weights_bytes"]

    def info(self) -> list[RegisteredModel]:
        """How each model stands, in the order of their names. Loads none."""
        known = {model["name"]: model for model in self._core.info()}
        return [self._info_of(name, known.get(name)) for name in sorted(self._registered)]

    def _info_of(self, name: str, known: _core.RegisteredModel | None) -> RegisteredModel:
        registration = self._registered[name]
        if known is not None and known["bytes"] is None and registration.embedder is None:
            # What the name stood for before it was registered again may be elsewhere.
            known = None
        if known is not None:
            return {**known}
        return {"name": name, "path": None, "bytes": None, "loaded_for": None, "idle_for": None}


_shared = EmbeddingEngine()


def shared(name_or_path: str | PathLike[str], **settings: Any) -> Embedder:
    """The one `Embedder` of this process for a model, opened by whoever asks first.

    However many threads ask at once, the model is opened once. A forked child goes on with it.

    Args:
        name_or_path: As for `Embedder`.
        settings: The keyword arguments of `Embedder`; other settings are another instance.

    Raises:
        ModelNotFoundError: As `Embedder`, whose other errors are raised, too.
    """
    model, wanted = fspath(name_or_path), Settings(**settings)
    name = model if wanted == Settings() else f"{model} {wanted}"
    _shared.register(name, model, **settings)
    return _shared.get(name)
