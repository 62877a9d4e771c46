"""How entries lie in a table of LanceDB.

Metadata are one column of JSON, out of which they come as they went in. Beside it each key has a
column for each kind of its values, for filters: `string_lang`, `integer_year`. A column comes into
being when its first value does, at most `MAX_COLUMNS` of them; entries with values beyond are
marked in the column `rest`, and filters on such keys read these entries' JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import pyarrow as pa

from arrowembed.store.records import to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from arrowembed.store.description import Description
    from arrowembed.store.records import Rows

MAX_COLUMNS = 128
"""Of metadata. Each costs a little in every file of the table."""

MAX_KEY_BYTES = 128
"""Of a key that has columns of its own."""

Kind: TypeAlias = Literal["string", "integer", "number", "boolean", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_TYPES: dict[Kind, pa.DataType] = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "other": pa.bool_(),
}
"""`other` is true of a list or an object: it is there, and compares with nothing."""


def kind_of(value: object) -> Kind | None:
    """In which of its key's columns a value lies; None for null."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "string" if isinstance(value, str) else "other"


def column(kind: Kind, key: str) -> str:
    """The name of a column: lower-case letters and digits as they are, each other byte as _hex.

    Such names need no quotes, and no two keys share one.
    """
    plain = b"abcdefghijklmnopqrstuvwxyz0123456789"
    return f"{kind}_" + "".join(
        chr(byte) if byte in plain else f"_{byte:02x}" for byte in key.encode()
    )


def has_columns(key: str) -> bool:
    """Whether the values of a key have columns, if there is room."""
    return len(key.encode()) <= MAX_KEY_BYTES


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of metadata that a table has."""

    names: frozenset[str]

    @classmethod
    def of(cls, schema: pa.Schema) -> Layout:
        """Those of a table's schema."""
        beginnings = tuple(f"{kind}_" for kind in KINDS)
        return cls(frozenset(name for name in schema.names if name.startswith(beginnings)))

    @property
    def full(self) -> bool:
        """Whether no more can be added."""
        return len(self.names) >= MAX_COLUMNS

    def lacks(self, key: str, kinds: Iterable[Kind]) -> bool:
        """Whether entries may have such values of a key of which the columns know nothing."""
        if not has_columns(key):
            return True
        return self.full and any(column(kind, key) not in self.names for kind in kinds)

    def wanted(self, rows: Rows) -> list[pa.Field]:
        """The columns that these entries need besides, as far as there is room."""
        found = dict.fromkeys(
            (kind, key)
            for entry in rows.metadata
            for key, value in entry.items()
            if (kind := kind_of(value)) is not None and has_columns(key)
        )
        fields = [
            pa.field(name, _TYPES[kind])
            for kind, key in found
            if (name := column(kind, key)) not in self.names
        ]
        return fields[: MAX_COLUMNS - len(self.names)]


def schema(description: Description) -> pa.Schema:
    """Of a table without entries."""
    number = pa.float16() if description.dtype == "float16" else pa.float32()
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            # Ascending in the order in which entries were put in.
            pa.field("sequence", pa.int64(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field("rest", pa.bool_(), nullable=False),
            # The Euclidean norm of the vector as it is stored.
            pa.field("norm", pa.float64(), nullable=False),
            pa.field("vector", pa.list_(number, description.dimension), nullable=False),
        ]
    )


def stored(vectors: NDArray[np.float32], description: Description) -> NDArray[Any]:
    """Vectors in the type in which they are stored, which holds all of their numbers."""
    return vectors.astype(np.float16) if description.dtype == "float16" else vectors


def norms(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Euclidean norms, computed in float64."""
    result: NDArray[np.float64] = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return result


def table(
    rows: Rows, vectors: NDArray[Any], sequences: NDArray[np.int64], fields: pa.Schema
) -> pa.Table:
    """Entries as they are written, with the columns of `fields`."""
    layout = Layout.of(fields)
    values: dict[str, list[Any]] = {name: [None] * len(rows) for name in layout.names}
    rest = [False] * len(rows)
    for index, entry in enumerate(rows.metadata):
        for key, value in entry.items():
            kind = kind_of(value)
            if kind is None:
                continue
            name = column(kind, key) if has_columns(key) else ""
            if name in values:
                values[name][index] = _comparable(value)
            else:
                rest[index] = True
    arrays: dict[str, Any] = {
        "id": rows.ids,
        "sequence": sequences,
        "text": rows.texts,
        "metadata": [to_json(entry) for entry in rows.metadata],
        "rest": rest,
        "norm": norms(vectors),
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
        **values,
    }
    return pa.table([pa.array(arrays[f.name], f.type) for f in fields], schema=fields)


def _comparable(value: Any) -> Any:
    """A value as its column has it: minus zero is zero, because Arrow takes it for less."""
    if isinstance(value, (list, dict)):
        return True
    return 0.0 if isinstance(value, float) and value == 0 else value
