"""`arrowembed similarity`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from arrowembed.cli.inputs import file_option, read_texts
from arrowembed.cli.options import model_options, open_model
from arrowembed.cli.outputs import shorten, shortest

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@click.argument("texts", nargs=-1)
@file_option
@model_options
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the output.",
)
def similarity(texts: tuple[str, ...], *, path: Path | None, form: str, **options: Any) -> None:
    """Show how similar TEXTS, or the lines of a file, are to each other.

    \b
    arrowembed similarity "a cat" "a kitten" "a tax return"
    """
    with read_texts(texts, path) as lines:
        given = list(lines)
    if len(given) < 2:
        raise click.UsageError(f"{len(given)} text(s) given; a comparison needs at least two")
    model = open_model(**options)
    vectors = model.encode(given)
    matrix = model.similarity(vectors, vectors)
    if form == "json":
        rows = [shortest(row) for row in matrix]
        document = {"function": model.similarity_function, "texts": given, "similarity": rows}
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    click.echo(f"{model.similarity_function} similarity")
    click.echo(" " * 45 + "".join(f"{column:>8}" for column in range(1, len(given) + 1)))
    for row, (text, values) in enumerate(zip(given, matrix, strict=True), start=1):
        click.echo(f"{row:>3}  {shorten(text, 40):40}" + "".join(f"{v:8.3f}" for v in values))
