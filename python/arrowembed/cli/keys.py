"""`arrowembed keys`: API keys of the service."""

from __future__ import annotations

import click

from arrowembed.server.security.keys import new_key
from arrowembed.server.security.principal import SCOPES


@click.group()
def keys() -> None:
    """Make API keys for `arrowembed serve`."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=["embed"],
    show_default=True,
    help="What the key is good for; may be given several times.",
)
def new(name: str, scopes: tuple[str, ...]) -> None:
    """Make a key for the client NAME.

    The key is shown this once. What the service needs of it is the line on standard output:

    \b
    arrowembed keys new search-team --scope embed --scope search >> keys.txt
    arrowembed serve --api-keys-file keys.txt
    """
    key, kept = new_key(name, scopes)
    click.echo(f"key, for {name}; it is not shown again:\n\n  {key}\n", err=True)
    click.echo(kept.entry())
