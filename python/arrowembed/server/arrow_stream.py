"""Texts and vectors as Arrow IPC streams, for clients that have them in columns already."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from arrowembed.errors import MissingDependencyError
from arrowembed.server.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from arrowembed.server.settings import ServerSettings

ARROW = "application/vnd.apache.arrow.stream"
"""Media type of an Arrow IPC stream."""

COLUMN = "embedding"
"""Name of the column of vectors."""

_UTF8_BYTES = 4
"""Most bytes of a character."""


def read_texts(body: bytes, settings: ServerSettings) -> list[str]:
    """The texts of a stream with one column of strings.

    Nothing in it is believed before it was checked, and nothing is unpacked, so that a small body
    cannot become a large one.

    Raises:
        ServiceError: It is no such stream, or is beyond the limits of the settings.
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = _pyarrow()
    texts: list[str] = []
    try:
        messages = arrow.ipc.MessageReader.open_stream(body)
        first = _next(messages)
        if first is None:
            raise ServiceError("malformed_request", "the body is no Arrow IPC stream: it is empty")
        schema = arrow.ipc.read_schema(first)
        _check_schema(schema)
        for message in iter(lambda: _next(messages), None):
            if message.type != "record batch" or _is_compressed(message):
                raise ServiceError(
                    "malformed_request",
                    "the Arrow stream: send plain record batches, without compression or "
                    "dictionaries",
                )
            batch = arrow.ipc.read_record_batch(message, schema)
            if len(texts) + batch.num_rows > settings.max_texts:
                raise ServiceError(
                    "too_many_texts", f"more than {settings.max_texts} texts in a request"
                )
            batch.validate(full=True)
            for text in batch.column(0):
                texts.append(_text(text, len(texts), settings))
    except (arrow.ArrowException, OSError, EOFError) as error:
        raise ServiceError(
            "malformed_request", "the body is no Arrow IPC stream, or a damaged one"
        ) from error
    if not texts:
        raise ServiceError("invalid_request", "the Arrow stream: has no rows")
    return texts


def write_vectors(vectors: NDArray[Any], facts: Mapping[str, Any]) -> bytes:
    """A stream with one column of vectors, of type FixedSizeList.

    Args:
        vectors: Vectors, shape (n, dim).
        facts: What else there is to say, which goes into the schema's metadata: texts as they are,
            all else as JSON.

    Raises:
        MissingDependencyError: pyarrow is not installed.
    """
    arrow = _pyarrow()
    column = arrow.FixedSizeListArray.from_arrays(arrow.array(vectors.ravel()), vectors.shape[1])
    metadata = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in facts.items()
    }
    batch = arrow.record_batch({COLUMN: column}, metadata=metadata)
    sink = arrow.BufferOutputStream()
    with arrow.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _check_schema(schema: pa.Schema) -> None:
    arrow = _pyarrow()
    if len(schema) != 1:
        raise ServiceError(
            "invalid_request", f"the Arrow stream: {len(schema)} columns; send the one of texts"
        )
    kind = schema.field(0).type
    if kind not in (arrow.string(), arrow.large_string(), arrow.string_view()):
        raise ServiceError(
            "invalid_request",
            f"the Arrow stream: a column of {kind}; cast it to string, large_string or string_view",
        )


def _next(messages: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return messages.read_next_message()
    except StopIteration:
        return None


def _is_compressed(message: pa.ipc.Message) -> bool:
    """Whether a record batch's buffers are compressed, which pyarrow would not tell beforehand.

    Its metadata, which pyarrow has verified, is a flatbuffer: `Message.header`, a `RecordBatch`,
    whose `compression` must not be there.
    """
    from flatbuffers import encode, packer  # noqa: PLC0415 - as pyarrow, only needed here
    from flatbuffers.table import Table  # noqa: PLC0415

    metadata = message.metadata.to_pybytes()
    root = Table(metadata, encode.Get(packer.uoffset, metadata, 0))
    batch = Table(metadata, 0)
    root.Union(batch, root.Offset(_field(2)))
    return bool(batch.Offset(_field(3)))


def _field(number: int) -> int:
    """Where a flatbuffer's table says whether it has a field."""
    return 4 + 2 * number


def _text(value: pa.Scalar, index: int, settings: ServerSettings) -> str:
    if not value.is_valid:
        raise ServiceError("invalid_request", f"text {index} is null", index=index)
    # Several views may share bytes: what is too large must not be copied out of them.
    if value.as_buffer().size > _UTF8_BYTES * settings.max_text_chars:
        raise ServiceError(
            "text_too_large",
            f"text {index} has more than {settings.max_text_chars} characters, split it",
            index=index,
        )
    return str(value.as_py())


def _pyarrow() -> Any:
    try:
        import pyarrow as pa  # noqa: PLC0415 - large, and only for those who ask for it
        import pyarrow.ipc  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise MissingDependencyError.of(
            "pyarrow", purpose="Arrow on this server", install='"arrowembed[arrow]"'
        ) from error
    return pa
