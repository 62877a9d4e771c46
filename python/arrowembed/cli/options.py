"""Options that several commands share, and how they become an `Embedder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from arrowembed.embedder import Embedder

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_MODEL = "all-MiniLM-L6-v2"


compute_option = click.option(
    "--compute",
    type=click.Choice(["auto", "float32", "float16", "bfloat16", "int16", "int8"]),
    help="Numbers to compute in.  [default: those that the model is stored in]",
)


def model_options(command: Callable[P, R]) -> Callable[P, R]:
    """Adds the options that say which model to open, and how."""
    for option in (
        click.option("--threads", type=click.IntRange(min=1), help="Threads to compute on."),
        compute_option,
        click.option(
            "--truncate-dim",
            type=click.IntRange(min=1),
            help="Keep only so many leading dimensions.",
        ),
        click.option(
            "--max-seq-length", type=click.IntRange(min=1), help="Cut texts to so many tokens."
        ),
        click.option("--local-files-only", is_flag=True, help="Never ask the hub."),
        click.option("--revision", help="Branch, tag or commit on the hub."),
        click.option(
            "--model",
            "-m",
            default=DEFAULT_MODEL,
            envvar="ARROWEMBED_MODEL",
            show_default=True,
            show_envvar=True,
            help="Name of a model, or path of its folder or file.",
        ),
    ):
        command = option(command)
    return command


def open_model(
    model: str,
    *,
    threads: int | None,
    **settings: Any,
) -> Embedder:
    """The model that the options of `model_options` ask for."""
    from arrowembed import Embedder, set_num_threads  # noqa: PLC0415 - imports the engine

    if threads is not None:
        set_num_threads(threads)
    # A command sees each text once: a cache would only cost memory.
    return Embedder(model, cache_size=0, **settings)
