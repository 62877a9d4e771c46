"""`arrowembed completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    bash: arrowembed completion bash > ~/.local/share/bash-completion/completions/arrowembed
    zsh:  arrowembed completion zsh > ~/.zfunc/_arrowembed   (with ~/.zfunc in fpath)
    fish: arrowembed completion fish > ~/.config/fish/completions/arrowembed.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"no completion for {shell}")
    script = kind(ctx.find_root().command, {}, "arrowembed", "_ARROWEMBED_COMPLETE")
    click.echo(script.source())
