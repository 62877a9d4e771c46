"""`Embedder`: texts in, vectors out.

Nothing that `import arrowembed` reads may import NumPy: the engine does so while it opens a model,
which takes a fifth off the time of a fresh process to its first vector.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, cast, overload

from arrowembed import _core, models, notices
from arrowembed.errors import InvalidArgumentError, TextTypeError
from arrowembed.options import PRECISIONS, Token, checked_batch_size, checked_dim
from arrowembed.progress import Progress, cancellable
from arrowembed.prompts import Prompts
from arrowembed.settings import Settings
from arrowembed.tensors import to_tensor
from arrowembed.texts import Texts, as_texts, is_texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from os import PathLike

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from arrowembed.options import (
        Compute,
        EncodeOptions,
        Features,
        ModelInfo,
        Normalize,
        OutputValue,
        Pooling,
        Precision,
        PromptOptions,
        VectorOptions,
    )


class Embedder:
    """A sentence-embedding model, mapped into memory.

    Safe to share between threads. Pickles as a reference to the model, not as its weights, and may
    be used on both sides of a fork.

    Args:
        name_or_path: Name of a model ("all-MiniLM-L6-v2", "organisation/model"), or path of a
            model folder or file. `arrowembed.models` says where names are looked up.
        device: "cpu", or a candle device of this build such as "cuda:0" or "metal".
        compute: In which numbers matrices are multiplied. "float32"; "float16", half precision
            where the processor has AVX-512 FP16, "bfloat16", 8 bits in tiles where it has AMX,
            both in float32 elsewhere, or "int16", integers with exact sums: all three lose next
            to nothing; "int8", fastest and smallest, with a loss that can be measured; or "auto",
            the fastest of the others on this processor, if the weights are floating-point
            numbers; it measures what "int16" would lose of the model when it is first opened so,
            and takes "float32" if that could be seen. None takes what the model is stored in, and
            float32 for float16. Where weights of another kind are needed, the model is made anew
            once and kept in the cache. Devices other than "cpu" compute in float32.
        cache_size: Number of vectors kept for texts that come again; 0 turns the cache off, None
            sets no limit on their number.
        cache_bytes: Limit on the memory of the cache; None sets none.
        max_seq_length: Longest input in tokens, at most the model's own limit; None takes that.
        prompts: Named texts to put before inputs, added to those of the model.
        default_prompt_name: The prompt used when none is asked for.
        truncate_dim: Keep only so many leading dimensions (Matryoshka), renormalised.
        local_files_only: Never ask the hub.
        token: Access token for the hub.
        revision: Branch, tag or commit on the hub.
        verify: Check every tensor against its checksum while opening.
        preload: Read the weights into memory while opening, instead of each when it is needed.
        lock_memory: Lock them there, so that the system never drops them; needs the right to it.
        show_progress_bar: Of `preload`: True shows one; None shows one on a terminal when it takes
            long.

    Raises:
        ModelNotFoundError: No such model; the message lists the places that were looked at.
        ModelFileError: The model's files are damaged.
        UnsupportedModelError: The engine cannot run a model of this kind.
        InvalidArgumentError: An argument is outside what is allowed.
        OutOfMemoryError: The system does not allow to lock so much memory.
    """

    def __init__(
        self,
        name_or_path: str | PathLike[str],
        *,
        device: str = "cpu",
        compute: Compute | None = None,
        cache_size: int | None = 10_000,
        cache_bytes: int | None = None,
        max_seq_length: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        verify: bool = False,
        preload: bool = False,
        lock_memory: bool = False,
        show_progress_bar: bool | None = None,
    ) -> None:
        settings = Settings(
            device=device,
            compute=compute,
            cache_size=cache_size,
            cache_bytes=cache_bytes,
            max_seq_length=max_seq_length,
            prompts=prompts or {},
            default_prompt_name=default_prompt_name,
            truncate_dim=truncate_dim,
            local_files_only=local_files_only,
            token=token,
            revision=revision,
            verify=verify,
            preload=preload,
            lock_memory=lock_memory,
        )
        path = settings.find(name_or_path)
        with Progress(None, preload and show_progress_bar, unit="B") as progress:
            engine = _core.Engine(settings.config(path), progress.callback)
        self._start(engine, str(name_or_path), path, settings)

    @classmethod
    def from_env(cls) -> Self:
        """One with what the environment says.

        That is `ARROWEMBED_MODEL`, a name or path, and optionally `ARROWEMBED_DEVICE`, `_COMPUTE`,
        `_MAX_SEQ_LENGTH`, `_CACHE_ENTRIES`, `_CACHE_BYTES`, `_VERIFY`, `_PRELOAD`, `_LOCK_MEMORY`.

        Raises:
            InvalidArgumentError: A variable's value is wrong; the message names it.
        """
        return cls(**_core.settings_from_env())

    @classmethod
    def over(cls, engine: _core.Engine, name: str, path: Path, settings: Settings) -> Self:
        """One over an engine that is there; for `arrowembed.registry`."""
        self = cls.__new__(cls)
        self._start(engine, name, path, settings)
        return self

    def _start(self, engine: _core.Engine, name: str, path: Path, settings: Settings) -> None:
        self._engine, self._name, self._path = engine, name, path
        self._settings = settings.to_pickle()
        self._metadata: dict[str, Any] = json.loads(engine.metadata())
        self._prompts = Prompts(
            {**self._metadata.get("prompts", {}), **settings.prompts},
            settings.default_prompt_name or self._metadata.get("default_prompt_name"),
        )
        info = engine.info()
        notices.short_of_memory(info)
        self._max_seq_length = info["max_seq_length"]
        self._embedding_size = info["embedding_size"]
        self._truncate_dim = checked_dim(settings.truncate_dim, self._embedding_size)
        self._warned_of_truncation = False

    @overload
    def encode(
        self,
        sentences: Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        **options: Unpack[VectorOptions],
    ) -> NDArray[Any]: ...
    @overload
    def encode(
        self,
        sentences: Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        output_value: OutputValue = ...,
        convert_to_numpy: bool = ...,
        convert_to_tensor: bool = ...,
        **options: Unpack[VectorOptions],
    ) -> Any: ...
    def encode(
        self,
        sentences: Texts,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: OutputValue = "sentence_embedding",
        precision: Precision = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pooling: Pooling | None = None,
        normalize: Normalize | None = None,
        truncate: bool = True,
        ranges: ArrayLike | None = None,
        calibration_embeddings: ArrayLike | None = None,
    ) -> Any:
        """Embeds texts. Names and meanings are those of sentence-transformers.

        Ctrl-C stops it between micro-batches; other threads run meanwhile.

        Args:
            sentences: One text, or a list, tuple, NumPy array, pandas, polars or pyarrow column,
                or any other iterable of texts.
            prompt_name: Name of the model's prompt to put before each text.
            prompt: Text to put before each text; goes before `prompt_name`.
            batch_size: Most texts in one micro-batch. By default only the number of tokens
                bounds a micro-batch; the result does not depend on either.
            show_progress_bar: True shows one; None shows one on a terminal when it takes long.
            output_value: "sentence_embedding", or "token_embeddings" for a vector for each token.
            precision: "float32", "float16", "int8", "uint8", "binary" or "ubinary"; see
                `quantize_embeddings`.
            convert_to_numpy: False gives a list of vectors instead of one array.
            convert_to_tensor: Give a torch tensor that shares the array's memory.
            normalize_embeddings: True scales vectors to length one; False leaves what the model
                itself prescribes.
            truncate_dim: Keep only so many leading dimensions, renormalised; None takes what the
                Embedder was made with.
            pooling: "mean", "cls", "max", "mean_sqrt" or "last" instead of the model's own;
                "none" is `output_value="token_embeddings"`.
            normalize: "l2", "none", "max_abs", or p of a p-norm, instead of the model's own.
            truncate: False refuses texts longer than `max_seq_length` instead of cutting them.
            ranges: For int8 and uint8: lowest and highest value of each dimension, shape (2, dim).
            calibration_embeddings: For int8 and uint8: vectors from which to take the ranges.

        Returns:
            float32 array of shape (dim,) for one text and (n, dim) for n, in their order;
            for token embeddings an array (tokens, dim), or a list of them.

        Raises:
            TextTypeError: Something is no text; the message gives its position.
            InvalidTextError: A text holds a lone surrogate.
            TextTooLongError: A text is too long and `truncate` is False.
            InvalidArgumentError: An option's value is outside what is allowed.
            NonFiniteError: A vector came out with a NaN or an infinity.
        """
        if output_value not in ("sentence_embedding", "token_embeddings"):
            raise InvalidArgumentError(
                f"output_value: {output_value!r}; known are sentence_embedding, token_embeddings"
            )
        if precision not in PRECISIONS:
            raise InvalidArgumentError(
                f"precision: {precision!r}; known are {', '.join(PRECISIONS)}"
            )
        single = isinstance(sentences, str)
        texts = [cast("str", sentences)] if single else as_texts(sentences)
        tokens = output_value == "token_embeddings" or pooling == "none"
        if tokens and (precision != "float32" or truncate_dim is not None):
            raise InvalidArgumentError(
                "output_value: token embeddings come in float32 and full length; "
                "precision and truncate_dim do not apply to them"
            )
        request = self.request(
            prompt_name,
            prompt,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pooling=pooling,
            normalize=normalize,
            truncate=truncate,
        )
        request["max_texts"] = checked_batch_size(batch_size)
        with Progress(len(texts), False if single else show_progress_bar) as progress:
            request["on_progress"] = progress.callback
            if tokens:
                del request["pooling"], request["truncate_dim"]
                matrices, stats = self._engine.encode_tokens(texts, **request)
            else:
                vectors, stats = self._engine.encode(texts, **request)
        self.warn_of_truncation(stats)
        if tokens:
            converted = [to_tensor(m) for m in matrices] if convert_to_tensor else matrices
            return converted[0] if single else converted
        result: NDArray[Any] = vectors
        if precision != "float32":
            from arrowembed.quantization import quantize_embeddings  # noqa: PLC0415 - NumPy

            result = quantize_embeddings(vectors, precision, ranges, calibration_embeddings)
        if single:
            result = result[0]
        if convert_to_tensor:
            return to_tensor(result)
        return result if convert_to_numpy or single else list(result)

    def encode_tokens(
        self, sentences: Texts, prompt_name: str | None = None, *, truncate: bool = True
    ) -> tuple[list[NDArray[np.float32]], _core.EncodeStats]:
        """`encode` with `output_value="token_embeddings"`, and what it took.

        Returns:
            For each text an array of shape (tokens, dim), and the numbers of texts and tokens.
        """
        texts = [sentences] if isinstance(sentences, str) else as_texts(sentences)
        prompt = self._prompts.text(prompt_name)
        vectors, stats = self._engine.encode_tokens(texts, prompt=prompt, truncate=truncate)
        self.warn_of_truncation(stats)
        return vectors, stats

    def encode_query(self, sentences: Texts, **options: Unpack[EncodeOptions]) -> NDArray[Any]:
        """`encode` with the prompt named "query", if the model has one and none is given."""
        return self._encode_with_prompt(self._prompts.query_name, sentences, options)

    def encode_document(self, sentences: Texts, **options: Unpack[EncodeOptions]) -> NDArray[Any]:
        """`encode` with the prompt for documents, if the model has one and none is given.

        That is the first of "document", "passage" and "corpus".
        """
        return self._encode_with_prompt(self._prompts.document_name, sentences, options)

    def encode_iter(
        self,
        sentences: Iterable[str],
        *,
        chunk_size: int = 1024,
        **options: Unpack[EncodeOptions],
    ) -> Iterator[NDArray[Any]]:
        """Embeds any iterable, however long, in constant memory.

        Args:
            sentences: Texts; only `chunk_size` of them are held at a time.
            chunk_size: Texts for each array.
            options: As for `encode`. The 8-bit precisions need `ranges` or
                `calibration_embeddings`, because no chunk knows the range of the others.

        Yields:
            For each chunk what `encode` gives, in order.

        Raises:
            InvalidArgumentError: `chunk_size` below 1, or an 8-bit precision without ranges.
        """
        if chunk_size < 1:
            raise InvalidArgumentError(f"chunk_size: {chunk_size}; expected at least 1")
        if isinstance(sentences, str):
            raise TextTypeError("encode_iter takes an iterable of texts; use encode for one text")
        if options.get("precision") in ("int8", "uint8") and (
            options.get("ranges") is None and options.get("calibration_embeddings") is None
        ):
            raise InvalidArgumentError(
                f"precision: {options['precision']} in chunks needs ranges or "
                "calibration_embeddings, so that all chunks are scaled alike"
            )
        return self._chunks(iter(sentences), chunk_size, options)

    async def aencode(self, sentences: Texts, **options: Unpack[EncodeOptions]) -> NDArray[Any]:
        """`encode` on another thread, so that the event loop goes on.

        Cancelling it stops the work after the micro-batch that is running.
        """
        from asyncio import to_thread  # noqa: PLC0415 - slow to import

        with cancellable():
            encode = partial(self.encode, sentences, **options)
            return cast("NDArray[Any]", await to_thread(encode))

    def encode_arrow(
        self,
        column: object,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pooling: Pooling | None = None,
        normalize: Normalize | None = None,
        truncate: bool = True,
    ) -> _core.ArrowArray:
        """Embeds an Arrow column of strings without making Python objects of them.

        All its vectors are held at once; pass a column in pieces to stream it.

        Args:
            column: Anything that offers its strings by the Arrow PyCapsule interface
                (`__arrow_c_array__` or `__arrow_c_stream__`): pyarrow, polars, duckdb and others.
            prompt_name: This and all others as for `encode`.
            prompt: As above.
            batch_size: As above.
            normalize_embeddings: As above.
            truncate_dim: As above.
            pooling: As above, without "none".
            normalize: As above.
            truncate: As above.

        Returns:
            Array of type FixedSizeList<float32>[dim] that offers the same interface, for example to
            `pyarrow.array(...)`. A null text gives a null vector.

        Raises:
            TextTypeError: `column` is no Arrow column of strings.
        """
        request = self.request(
            prompt_name,
            prompt,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
            pooling=pooling,
            normalize=normalize,
            truncate=truncate,
        )
        request["max_texts"] = checked_batch_size(batch_size)
        vectors, stats = self._engine.encode_arrow(column, **request)
        self.warn_of_truncation(stats)
        return vectors

    def similarity(self, a: Texts | ArrayLike, b: Texts | ArrayLike) -> NDArray[np.float32]:
        """Similarity of each of `a` to each of `b`, by the model's own function.

        Args:
            a: Vectors of shape (n, dim) or (dim,), or texts, which are embedded first.
            b: The same, m of them.

        Returns:
            float32 array of shape (n, m). More is more similar, whatever the function.
        """
        from arrowembed.similarity import similarity  # noqa: PLC0415 - NumPy

        return similarity(self.similarity_function, self._vectors(a), self._vectors(b))

    def similarity_pairwise(
        self, a: Texts | ArrayLike, b: Texts | ArrayLike
    ) -> NDArray[np.float32]:
        """Similarity of each of `a` to the one of `b` in the same place; shape (n,)."""
        from arrowembed.similarity import similarity_pairwise  # noqa: PLC0415 - NumPy

        return similarity_pairwise(self.similarity_function, self._vectors(a), self._vectors(b))

    def tokenize(
        self, sentences: Texts, *, truncate: bool = True, **options: Unpack[PromptOptions]
    ) -> Features:
        """Token ids as the model sees them: special tokens added, cut to `max_seq_length`.

        Args:
            sentences: One text or several, as for `encode`.
            truncate: False refuses texts longer than `max_seq_length` instead of cutting them.
            options: `prompt_name` and `prompt`, as for `encode`.

        Returns:
            `input_ids`, `attention_mask` and `token_type_ids`, each a list with one list for each
            text; they are as long as the text is and not padded.
        """
        texts = [sentences] if isinstance(sentences, str) else as_texts(sentences)
        encodings = self._engine.tokenize(
            texts,
            prompt=self._prompts.text(options.get("prompt_name"), options.get("prompt")),
            truncate=truncate,
        )
        return {
            "input_ids": [ids for ids, _, _ in encodings],
            "attention_mask": [[1] * len(ids) for ids, _, _ in encodings],
            "token_type_ids": [type_ids for _, type_ids, _ in encodings],
        }

    def tokenize_with_offsets(
        self,
        sentences: Texts,
        *,
        add_special_tokens: bool = True,
        **options: Unpack[PromptOptions],
    ) -> list[list[Token]]:
        """All tokens of texts, also beyond `max_seq_length`, and where they stand there.

        Args:
            sentences: One text or several, as for `encode`.
            add_special_tokens: Whether those that the model sees around a text are among them.
            options: `prompt_name` and `prompt`, as for `encode`.

        Returns:
            For each text the list of its tokens.
        """
        texts = [sentences] if isinstance(sentences, str) else as_texts(sentences)
        tokens = self._engine.tokenize_with_offsets(
            texts,
            prompt=self._prompts.text(options.get("prompt_name"), options.get("prompt")),
            add_special_tokens=add_special_tokens,
        )
        return [[Token._make(each) for each in of_text] for of_text in tokens]

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text that token ids stand for, as near as the tokenizer can tell.

        Raises:
            InvalidArgumentError: A number can be no token id.
        """
        return self._engine.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def info(self) -> ModelInfo:
        """What is known of the model, the engine and what they have done so far."""
        engine, totals, metadata = self._engine.info(), self._engine.totals(), self._metadata
        return {
            "name": self._name_of_model(),
            "path": engine["path"],
            "architecture": metadata["architecture"],
            "dimension": self.dimension,
            "matryoshka_dimensions": engine["matryoshka_dimensions"],
            "max_seq_length": engine["max_seq_length"],
            "pooling": metadata["pooling"],
            "normalize": metadata["normalize"],
            "similarity": self.similarity_function,
            "prompts": dict(self._prompts.named),
            "default_prompt_name": self._prompts.default_name,
            "dtype": _dtype(metadata["dtype"], engine["dtypes"]),
            "num_parameters": engine["num_parameters"],
            "num_hidden_layers": engine["num_hidden_layers"],
            "vocab_size": engine["vocab_size"],
            "weights_bytes": engine["weights_bytes"],
            "mapped": engine["mapped"],
            "device": engine["device"],
            "isa": engine["isa"],
            "compute": engine["compute"],
            "num_threads": engine["num_threads"],
            "source": metadata.get("source"),
            "texts": totals["texts"],
            "tokens": totals["tokens"],
            "truncated": totals["truncated"],
            "cache": self._engine.cache_info(),
        }

    @property
    def dimension(self) -> int:
        """Length of the vectors that `encode` gives."""
        return self._truncate_dim or self._embedding_size

    @property
    def truncate_dim(self) -> int | None:
        """To how many dimensions vectors are cut; None leaves them whole."""
        return self._truncate_dim

    def get_sentence_embedding_dimension(self) -> int:
        """`dimension`, under its name in sentence-transformers."""
        return self.dimension

    @property
    def max_seq_length(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self._max_seq_length

    @property
    def prompts(self) -> Mapping[str, str]:
        """The named prompts."""
        return dict(self._prompts.named)

    @property
    def similarity_function(self) -> str:
        """The model's own: cosine, dot, euclidean or manhattan."""
        return str(self._metadata.get("similarity", "cosine"))

    @property
    def path(self) -> Path:
        """The model's folder or file."""
        return self._path

    @property
    def reference(self) -> str:
        """What finds the model again, from any folder: its name, or the path it was given by."""
        return str(self._path) if self._given_by_path() else self._name

    def retrieval_prompts(self) -> tuple[str, str]:
        """The texts that `encode_query` and `encode_document` put before each input."""
        prompts = self._prompts
        return prompts.text(prompts.query_name), prompts.text(prompts.document_name)

    def cache_info(self) -> _core.CacheInfo:
        """Size, limits, hits and misses of the cache of vectors; empty for an unloaded model."""
        return self._engine.cache_info()

    def cache_clear(self) -> None:
        """Empties the cache of vectors."""
        self._engine.cache_clear()

    def request(
        self,
        prompt_name: str | None,
        prompt: str | None,
        *,
        normalize_embeddings: bool,
        truncate_dim: int | None,
        pooling: Pooling | None,
        normalize: Normalize | None,
        truncate: bool,
    ) -> dict[str, Any]:
        """What the engine is told of a request, with this Embedder's own settings filled in."""
        if normalize is None and normalize_embeddings:
            normalize = "l2"
        if truncate_dim is None:
            truncate_dim = self._truncate_dim
        return {
            "prompt": self._prompts.text(prompt_name, prompt),
            "pooling": pooling,
            "normalize": normalize,
            "truncate_dim": checked_dim(truncate_dim, self._embedding_size),
            "truncate": truncate,
        }

    def queue(self, **settings: Any) -> _core.Scheduler:
        """What `arrowembed.scheduler` is the door to."""
        return _core.Scheduler(self._engine, **settings)

    def __repr__(self) -> str:
        return (
            f"Embedder({self._name!r}, dimension={self.dimension}, "
            f"max_seq_length={self.max_seq_length})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._name, str(self._path), self._settings)

    def _name_of_model(self) -> str:
        """The name it was found by; what its files say if they were given by their path."""
        return self._metadata["name"] if self._given_by_path() else models.short_name(self._name)

    def _given_by_path(self) -> bool:
        return Path(self._name).expanduser().absolute() == self._path

    def _encode_with_prompt(
        self, name: str | None, sentences: Texts, options: EncodeOptions
    ) -> NDArray[Any]:
        if options.get("prompt") is None and options.get("prompt_name") is None:
            options = {**options, "prompt_name": name}
        return cast("NDArray[Any]", self.encode(sentences, **options))

    def _chunks(
        self, texts: Iterator[str], chunk_size: int, options: EncodeOptions
    ) -> Iterator[NDArray[Any]]:
        while chunk := list(islice(texts, chunk_size)):
            yield cast("NDArray[Any]", self.encode(chunk, **options))

    def _vectors(self, value: Texts | ArrayLike) -> ArrayLike:
        if is_texts(value):
            return self.encode(cast("Texts", value))
        return cast("ArrayLike", value)

    def warn_of_truncation(self, stats: _core.EncodeStats) -> None:
        """Warns once of texts that were cut."""
        if stats["truncated"] and not self._warned_of_truncation:
            self._warned_of_truncation = True
            notices.truncated(stats, self.max_seq_length)


def _reopen(name: str, path: str, settings: dict[str, Any]) -> Embedder:
    """Opens a pickled model: the same files if they are there, otherwise by name."""
    settings = dict(settings)
    if Path(path).exists():
        settings["revision"] = None
        return Embedder(path, **settings)
    return Embedder(name, **settings)


def _dtype(meant: str, stored: Mapping[str, int]) -> str:
    """What weights were meant to be stored in, or what a GGUF file has, the most frequent first."""
    # Other files have float32 norms, whatever arithmetic their matrices were made for.
    if "float32" in stored:
        return meant
    kinds = sorted(stored, key=lambda kind: -stored[kind])
    # Norms and biases are floats in every file.
    return ", ".join(kind for kind in kinds if kind != "F32" or len(kinds) == 1)
