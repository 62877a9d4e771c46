"""Texts from arguments, a file or standard input."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from arrowembed.errors import InvalidTextError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

file_option = click.option(
    "--file",
    "-f",
    "path",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="Read texts from this file, one a line; - is standard input.",
)


@contextmanager
def read_texts(arguments: Sequence[str], path: Path | None) -> Iterator[Iterator[str]]:
    """The texts that a command was given, one at a time.

    Arguments, `--file` and a pipe exclude one another. Every line is a text, an empty one too, so
    that the n-th result belongs to the n-th line.

    Raises:
        click.UsageError: None were given, or in two ways.
        InvalidTextError: A line is not UTF-8.
    """
    if arguments and path is not None:
        raise click.UsageError("give texts as arguments or with --file, not both")
    if list(arguments) == ["-"]:
        arguments, path = (), Path("-")
    if arguments:
        yield iter(arguments)
    elif path is not None and str(path) != "-":
        with path.open("rb") as file:
            yield _lines(file, str(path))
    elif path is not None or not sys.stdin.isatty():
        yield _lines(sys.stdin.buffer, "standard input")
    else:
        raise click.UsageError("no texts; give them as arguments, with --file, or through a pipe")


def decoded(file: Iterable[bytes], name: str) -> Iterator[str]:
    """The lines of a file with their ends.

    Raises:
        InvalidTextError: A line is not UTF-8.
    """
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as error:
            raise InvalidTextError(
                f"{name}, line {number}: not UTF-8 ({error.reason}); convert the file first, "
                "for example with iconv"
            ) from error


def _lines(file: Iterable[bytes], name: str) -> Iterator[str]:
    for line in decoded(file, name):
        yield line.removesuffix("\n").removesuffix("\r")
