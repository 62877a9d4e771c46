"""Entries for a store, read from files: lines, JSON lines, CSV, Parquet and Arrow.

One at a time, so that files may be longer than memory; a mistake in a file is told with its line.
"""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import json
import math
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from arrowembed.cli.inputs import decoded
from arrowembed.errors import InvalidArgumentError, MissingDependencyError
from arrowembed.store.records import checked_ids, checked_metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Values = Iterator[tuple[str, dict[str, Any]]]
    """Where each entry stands, and its values by the names of fields."""

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}

_ROWS = 1024
"""Of a Parquet file, read at a time."""

_LONGEST_FIELD = 1 << 30
"""Of CSV; Python's own limit is below the length of many texts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it is in a file."""

    id: str
    text: str | None
    metadata: dict[str, Any]
    vector: NDArray[np.float32] | None
    place: str
    """Where it was read: the file and the line."""


@dataclass(frozen=True, slots=True)
class Fields:
    """What the fields of a file mean."""

    text: str = "text"
    id: str | None = None
    """None makes an id of the file's name and the line: `faq.txt:12`."""
    vector: str | None = None
    metadata: tuple[str, ...] = field(default=())
    """None named are all others."""

    def entry(self, place: str, default_id: str, values: dict[str, Any]) -> Entry:
        """An entry of what stands in one line.

        Raises:
            InvalidArgumentError: Something is missing, or not of its kind; the message says where.
        """
        try:
            return Entry(
                checked_ids([self._id(default_id, values)])[0],
                self._text(values),
                checked_metadata(self._metadata(values), 0),
                None if self.vector is None else _checked_vector(self.vector, values),
                place,
            )
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"{place}: {str(error).removeprefix('metadata[0].').removeprefix('ids[0]: ')}"
            ) from error

    def _id(self, default: str, values: dict[str, Any]) -> str:
        if self.id is None:
            return default
        value = values.get(self.id)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if isinstance(value, str):
            return value
        raise InvalidArgumentError(
            f"no id in the field {self.id!r}"
            if value is None
            else f"the field {self.id!r} holds no id but {type(value).__name__}"
        )

    def _text(self, values: dict[str, Any]) -> str | None:
        text = values.get(self.text)
        if isinstance(text, str) or (text is None and self.vector is not None):
            return text
        if text is None:
            known = ", ".join(repr(name) for name in values)
            raise InvalidArgumentError(
                f"no text in the field {self.text!r}, only {known or 'nothing'}; "
                "name it with --text-field"
            )
        raise InvalidArgumentError(
            f"the field {self.text!r} holds no text but {type(text).__name__}"
        )

    def _metadata(self, values: dict[str, Any]) -> dict[str, Any]:
        names = self.metadata or [
            name for name in values if name not in (self.text, self.id, self.vector)
        ]
        found = {name: _as_json(values[name]) for name in names if name in values}
        return {name: value for name, value in found.items() if value is not None}


def read_entries(paths: Iterable[Path], form: str | None, fields: Fields) -> Iterator[Entry]:
    """The entries of all files, one after the other.

    Args:
        paths: The files; `-` is standard input.
        form: How they are read; None goes by how their names end.
        fields: What their fields mean.

    Raises:
        InvalidArgumentError: An entry is not as it should be.
        InvalidTextError: A line is not UTF-8.
        MissingDependencyError: Parquet or Arrow, and pyarrow is not installed.
    """
    for path in paths:
        name = str(path)
        reader = _READERS[form or _SUFFIXES.get(path.suffix.lower(), "lines")]
        for place, values in reader(path):
            yield fields.entry(f"{name}, {place}", f"{path.as_posix()}:{place.split()[-1]}", values)


def _checked_vector(name: str, values: dict[str, Any]) -> NDArray[np.float32]:
    try:
        vector = np.asarray(values.get(name), dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"the field {name!r} holds no vector: {error}") from error
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise InvalidArgumentError(f"the field {name!r} holds no list of finite numbers")
    return vector


def _as_json(value: Any) -> Any:
    """What files of tables have beyond JSON, in its words: times in ISO 8601, NaN as nothing."""
    if isinstance(value, (float, np.floating)):
        return None if math.isnan(value) else float(value)
    if isinstance(value, (dt.date, dt.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, (list, np.ndarray)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return value


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


def _lines(path: Path) -> Values:
    """A text in each line; blank ones are passed over."""
    with _opened(path) as file:
        for number, line in enumerate(decoded(file, str(path)), start=1):
            if line.strip():
                yield f"line {number}", {"text": line.removesuffix("\n").removesuffix("\r")}


def _json_lines(path: Path) -> Values:
    with _opened(path) as file:
        for number, line in enumerate(decoded(file, str(path)), start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InvalidArgumentError(
                    f"{path}, line {number}: no JSON ({error}); expected an object in each line"
                ) from error
            if not isinstance(values, dict):
                raise InvalidArgumentError(
                    f"{path}, line {number}: expected an object such as "
                    f'{{"text": "…"}}, got {type(values).__name__}'
                )
            yield f"line {number}", values


def _delimited(delimiter: str) -> Callable[[Path], Values]:
    def read(path: Path) -> Values:
        csv.field_size_limit(_LONGEST_FIELD)
        with _opened(path) as file:
            rows = csv.reader(decoded(file, str(path)), delimiter=delimiter, strict=True)
            try:
                header = [name.removeprefix("\ufeff") for name in next(rows, [])]
                for row in rows:
                    if not row:
                        continue
                    if len(row) != len(header):
                        raise InvalidArgumentError(
                            f"{path}, line {rows.line_num}: {len(row)} fields, and {len(header)} "
                            "in the first line"
                        )
                    yield f"line {rows.line_num}", dict(zip(header, row, strict=True))
            except csv.Error as error:
                raise InvalidArgumentError(f"{path}, line {rows.line_num}: {error}") from error

    return read


def _parquet(path: Path) -> Values:
    pq = _pyarrow(path, "parquet")
    with _arrow_errors(path), pq.ParquetFile(path) as file:
        yield from _rows(file.iter_batches(batch_size=_ROWS))


def _arrow(path: Path) -> Values:
    ipc = _pyarrow(path, "ipc")
    with _arrow_errors(path), path.open("rb") as file:
        if file.read(6) == b"ARROW1":
            reader = ipc.open_file(file)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        else:
            file.seek(0)
            batches = ipc.open_stream(file)
        yield from _rows(part for batch in batches for part in _parts(batch))


def _parts(batch: Any) -> Iterator[Any]:
    return (batch.slice(start, _ROWS) for start in range(0, batch.num_rows, _ROWS))


def _rows(batches: Iterable[Any]) -> Values:
    number = 0
    for batch in batches:
        columns = [_values(column) for column in batch.columns]
        for row in zip(*columns, strict=True):
            number += 1
            yield f"row {number}", dict(zip(batch.schema.names, row, strict=True))


def _values(column: Any) -> Iterable[Any]:
    """The values of a column; vectors of one length without a Python object for each number."""
    import pyarrow as pa  # noqa: PLC0415 - optional

    kind = column.type
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        numbers = column.flatten()
        if pa.types.is_floating(kind.value_type) and not numbers.null_count:
            matrix: NDArray[Any] = numbers.to_numpy(zero_copy_only=False)
            return iter(matrix.reshape(-1, kind.list_size))
    values: list[Any] = column.to_pylist()
    return values


def _pyarrow(path: Path, module: str) -> Any:
    if str(path) == "-":
        raise InvalidArgumentError(f"{module} cannot be read from standard input; name a file")
    try:
        import pyarrow.ipc  # noqa: PLC0415 - optional
        import pyarrow.parquet  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            "pyarrow", purpose=f"reading {path}", install='"arrowembed[arrow]"'
        ) from error
    return getattr(pyarrow, module)


@contextmanager
def _arrow_errors(path: Path) -> Iterator[None]:
    import pyarrow as pa  # noqa: PLC0415 - optional

    try:
        yield
    except pa.ArrowException as error:
        raise InvalidArgumentError(f"{path}: {error}") from error


_READERS: dict[str, Callable[[Path], Values]] = {
    "lines": _lines,
    "jsonl": _json_lines,
    "csv": _delimited(","),
    "tsv": _delimited("\t"),
    "parquet": _parquet,
    "arrow": _arrow,
}

FORMS = tuple(_READERS)
