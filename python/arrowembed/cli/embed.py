"""`arrowembed embed`."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from tqdm import tqdm

from arrowembed.cli.inputs import file_option, read_texts
from arrowembed.cli.options import model_options, open_model
from arrowembed.cli.outputs import BINARY, WRITERS, open_output
from arrowembed.options import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arrowembed.cli.outputs import Chunks
    from arrowembed.embedder import Embedder

_CHUNK = 1024
"""Texts embedded at a time."""


@click.command()
@click.argument("texts", nargs=-1)
@file_option
@model_options
@click.option(
    "--format",
    "form",
    type=click.Choice(list(WRITERS)),
    default="table",
    show_default=True,
    help="Form of the output.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; replaced only when all is done. [default: standard output]",
)
@click.option("--prompt-name", help="Name of the model's prompt to put before each text.")
@click.option("--prompt", help="Text to put before each text.")
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls", "max", "mean_sqrt", "last"]),
    help="Pooling instead of the model's own.",
)
@click.option(
    "--normalize",
    type=click.Choice(["l2", "none", "max_abs"]),
    help="Normalisation instead of the model's own.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float32",
    show_default=True,
    help="Type of the numbers.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Most texts in a micro-batch.")
@click.option("--no-truncate", is_flag=True, help="Refuse texts that are too long.")
def embed(
    texts: tuple[str, ...],
    *,
    path: Path | None,
    form: str,
    output: Path | None,
    no_truncate: bool,
    precision: str,
    **options: Any,
) -> None:
    """Embed TEXTS, the lines of a file, or those of standard input.

    \b
    arrowembed embed "one text" "another"
    arrowembed embed --file texts.txt --format npy --output vectors.npy
    cut -f2 table.tsv | arrowembed embed --format jsonl
    """
    names = ("prompt_name", "prompt", "pooling", "normalize", "batch_size")
    encode_options = {name: options.pop(name) for name in names}
    with read_texts(texts, path) as lines, open_output(output, binary=form in BINARY) as file:
        model = open_model(**options)
        chunks = _embed(model, lines, truncate=not no_truncate, **encode_options)
        if precision != "float32":
            chunks = _quantized(chunks, precision)
        WRITERS[form](chunks, file)


def _embed(model: Embedder, lines: Iterator[str], **options: Any) -> Chunks:
    """Embeds chunk by chunk, at least one, so that no texts give an empty result."""
    with tqdm(unit=" texts", disable=None, delay=1.0, leave=False) as bar:
        first = True
        while (chunk := list(islice(lines, _CHUNK))) or first:
            first = False
            yield chunk, model.encode(chunk, show_progress_bar=False, **options)
            bar.update(len(chunk))


def _quantized(chunks: Chunks, precision: Any) -> Chunks:
    """All chunks as one, because 8-bit ranges need all vectors."""
    from arrowembed.quantization import quantize_embeddings  # noqa: PLC0415

    pairs = list(chunks)
    vectors = np.concatenate([vectors for _, vectors in pairs])
    yield [text for texts, _ in pairs for text in texts], quantize_embeddings(vectors, precision)
