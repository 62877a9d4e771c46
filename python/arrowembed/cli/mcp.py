"""`arrowembed mcp`: tools for language models, over the Model Context Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from arrowembed.errors import MissingDependencyError

if TYPE_CHECKING:
    from types import ModuleType


@click.command()
@click.option(
    "--model",
    "-m",
    envvar="ARROWEMBED_MODEL",
    show_envvar=True,
    help="Name of a model, or path of its folder or file.  [default: that of the store, else "
    "all-MiniLM-L6-v2]",
)
@click.option(
    "--store",
    "-s",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ARROWEMBED_STORE",
    show_envvar=True,
    help="Folder of a store for search, remember and forget; made if it is not there.",
)
@click.option("--read-only", is_flag=True, help="Offer no tools that change something.")
@click.option("--plugins", is_flag=True, help="Offer the tools of installed packages, too.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute on.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest time for one call.",
)
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    show_default=True,
    help="stdio for a host that starts this; http for clients that connect.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Of http: where to listen.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Of http; 0 takes a free one.",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Of http: another name by which clients reach it; may be given several times.",
)
@click.option(
    "--api-keys-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    envvar="ARROWEMBED_API_KEYS_FILE",
    show_envvar=True,
    help="Of http: keys that clients need, as `arrowembed keys new` prints them.",
)
def mcp(
    *,
    model: str | None,
    store: Path | None,
    read_only: bool,
    plugins: bool,
    threads: int | None,
    timeout: float,
    transport: str,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    api_keys_file: Path | None,
) -> None:
    """Offer tools to language models: embed, similarity and, with a store, a memory.

    A host such as Claude, Cursor or an agent starts this and speaks the Model Context Protocol with
    it over standard input and output.

    \b
    arrowembed mcp --store ~/memory
    arrowembed mcp --store ~/memory --transport http --port 8765
    """
    from arrowembed.tools.mcp.offer import Offer  # noqa: PLC0415 - imports the engine

    if threads is not None:
        from arrowembed import set_num_threads  # noqa: PLC0415

        set_num_threads(threads)
    offer = Offer(model, store, read_only=read_only, plugins=plugins, timeout=timeout)
    if transport == "stdio":
        from arrowembed.tools.mcp import stdio  # noqa: PLC0415

        stdio.run(offer)
    else:
        http = _http()
        http.run(
            offer, host=host, port=port, allowed_hosts=allowed_hosts, api_keys_file=api_keys_file
        )


def _http() -> ModuleType:
    """What serves over HTTP.

    Raises:
        MissingDependencyError: The package `mcp` is not installed.
    """
    try:
        from arrowembed.tools.mcp import http  # noqa: PLC0415 - an extra, and slow to import
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "arrowembed":
            raise
        raise MissingDependencyError.of(
            error.name, purpose="arrowembed mcp", install='"arrowembed[mcp]"'
        ) from error
    return http
