"""`arrowembed search`."""

from __future__ import annotations

import heapq
import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from arrowembed.cli.inputs import file_option, read_texts
from arrowembed.cli.options import model_options, open_model
from arrowembed.cli.outputs import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from arrowembed.embedder import Embedder

_CHUNK = 1024
"""Lines embedded at a time; the file may be longer than memory."""


@click.command()
@click.argument("query")
@file_option
@model_options
@click.option(
    "--top-k",
    "-k",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of lines to show.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl"]),
    default="table",
    show_default=True,
    help="Form of the output.",
)
def search(query: str, *, path: Path | None, top_k: int, form: str, **options: Any) -> None:
    """Find the lines of a file, or of standard input, that are nearest in meaning to QUERY.

    Blank lines are passed over.

    \b
    arrowembed search "how do I return an article?" --file faq.txt -k 3
    """
    with read_texts((), path) as lines:
        model = open_model(**options)
        best = _nearest(model, query, lines, top_k)
    for score, negative_number, line in best:
        number = -negative_number
        if form == "jsonl":
            record = {"score": round(score, 6), "line": number, "text": line}
            click.echo(json.dumps(record, ensure_ascii=False))
        else:
            click.echo(f"{score:7.4f}  {number:>6}  {shorten(line, 100)}")


def _nearest(
    model: Embedder, query: str, lines: Iterator[str], top_k: int
) -> list[tuple[float, int, str]]:
    """The `top_k` best as (score, -line number, text), best first, the earlier line on a tie."""
    query_vector = model.encode_query(query)
    numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    best: list[tuple[float, int, str]] = []
    while chunk := list(islice(numbered, _CHUNK)):
        vectors = model.encode_document([line for _, line in chunk])
        scores = model.similarity(query_vector, vectors)[0]
        candidates = (
            (float(score), -number, line)
            for score, (number, line) in zip(scores, chunk, strict=True)
        )
        best = heapq.nlargest(top_k, [*best, *candidates])
    return best
