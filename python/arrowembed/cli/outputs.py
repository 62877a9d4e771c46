"""Vectors as a table, JSON lines, .npy or Parquet; to standard output or, atomically, to a file."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import numpy as np

from arrowembed.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    Chunks = Iterable[tuple[list[str], NDArray[Any]]]
    """Texts and their vectors, shape (n, dim), a chunk at a time."""


@contextmanager
def open_output(path: Path | None, *, binary: bool) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears under its name only when it is complete.

    Raises:
        click.UsageError: Binary output would go to a terminal.
    """
    if path is None:
        if binary and sys.stdout.isatty():
            raise click.UsageError("this format is binary; give --output or redirect it")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(_default_mode())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_table(chunks: Chunks, file: IO[bytes]) -> None:
    """A line for each text: its beginning and the first numbers of its vector."""
    for texts, vectors in chunks:
        for text, vector in zip(texts, vectors, strict=True):
            numbers = "  ".join(f"{number:9.6f}" for number in vector[:4])
            line = f"{shorten(text, 40):40}  [{numbers}  … {len(vector)} in all]\n"
            file.write(line.encode())


def write_jsonl(chunks: Chunks, file: IO[bytes]) -> None:
    """A JSON object for each text: `text` and `embedding`."""
    for texts, vectors in chunks:
        for text, vector in zip(texts, vectors, strict=True):
            record = {"text": text, "embedding": shortest(vector)}
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def write_npy(chunks: Chunks, file: IO[bytes]) -> None:
    """One NumPy array of shape (n, dim)."""
    np.save(file, np.concatenate([vectors for _, vectors in chunks]))


def write_parquet(chunks: Chunks, file: IO[bytes]) -> None:
    """A Parquet file with the columns `text` and `embedding` (a list of fixed size).

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa  # noqa: PLC0415 - optional
        import pyarrow.parquet as pq  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            "pyarrow", purpose="--format parquet", install='"arrowembed[arrow]"'
        ) from error
    writer = None
    try:
        for texts, vectors in chunks:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            table = pa.table({"text": pa.array(texts, pa.string()), "embedding": column})
            if writer is None:
                writer = pq.ParquetWriter(file, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


WRITERS: dict[str, Callable[[Chunks, IO[bytes]], None]] = {
    "table": write_table,
    "jsonl": write_jsonl,
    "npy": write_npy,
    "parquet": write_parquet,
}
BINARY = ("npy", "parquet")


def shorten(text: str, width: int) -> str:
    """The beginning of a text, printable and on one line."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= width else line[: width - 1] + "…"


def shortest(vector: NDArray[Any]) -> list[float] | list[int]:
    """Numbers with as many digits as their own type needs to be read back unchanged."""
    if vector.dtype.kind != "f":
        integers: list[int] = vector.tolist()
        return integers
    return [float(str(number)) for number in vector]


def _default_mode() -> int:
    """The permissions that a new file gets; those of a temporary file are stricter."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
