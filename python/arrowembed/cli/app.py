"""The group of commands: found by name, imported only when run; one place for errors."""

from __future__ import annotations

import gc
import importlib
import sys
from typing import IO, TYPE_CHECKING, Any

import click

from arrowembed.errors import ArrowEmbedError

if TYPE_CHECKING:
    from types import ModuleType

_HERE = "arrowembed.cli"
_CONVERTER = "arrowembed_converter.cli"

# Name: (module, what it does). The attribute has the command's name.
_COMMANDS = {
    "convert": (_CONVERTER, "Convert a Hugging Face model to a model file."),
    "pull": (f"{_HERE}.pull", "Fetch a model and keep it, converted, for use by name."),
    "models": (f"{_HERE}.models", "List the models that can be used by name without the network."),
    "info": (f"{_HERE}.models", "Show what is known of a model."),
    "embed": (f"{_HERE}.embed", "Embed texts and write their vectors."),
    "similarity": (f"{_HERE}.similarity", "Show how similar texts are to each other."),
    "search": (f"{_HERE}.search", "Find the lines of a file that are nearest to a query."),
    "index": (f"{_HERE}.index", "Keep texts in a store on disk and search them."),
    "serve": (f"{_HERE}.serve", "Answer requests over HTTP."),
    "mcp": (f"{_HERE}.mcp", "Offer tools to language models by the Model Context Protocol."),
    "keys": (f"{_HERE}.keys", "Make API keys for serve and mcp."),
    "validate": (_CONVERTER, "Compare the engine with a float64 reference."),
    "benchmark": (_CONVERTER, "Measure load time, latency, throughput and memory."),
    "verify": (f"{_HERE}.models", "Check every tensor of a model file against its checksum."),
    "completion": (f"{_HERE}.completion", "Print the completion script of a shell."),
}


class Failure(click.ClickException):
    """A failure that is the user's business: one message, no traceback, exit status 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Writes `error: …` to standard error."""
        click.echo(f"error: {self.format_message()}", file=file or sys.stderr)


class Commands(click.Group):
    """Commands by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of a model's life."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command's module and gives the command."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(_imported(module), cmd_name)
        except ModuleNotFoundError as error:
            if module != _CONVERTER or str(error.name).partition(".")[0] == "arrowembed":
                raise
            raise Failure(
                f'{cmd_name} needs {error.name}: pip install "arrowembed[convert]"'
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; turns its errors into messages and exit statuses."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            ctx.exit(130)
        except BrokenPipeError:
            raise  # click leaves quietly
        except (ArrowEmbedError, OSError, MemoryError) as error:
            if ctx.params.get("debug"):
                raise
            raise Failure(str(error) or type(error).__name__) from error
        return result


def _imported(module: str) -> ModuleType:
    """A module, imported without collecting garbage.

    The service's modules make very many objects that all stay; looking for garbage among them
    takes up to a tenth of its start.
    """
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.enable()


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value and not ctx.resilient_parsing:
        from arrowembed import __version__  # noqa: PLC0415 - imports the engine

        click.echo(f"arrowembed {__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def app(*, debug: bool) -> None:
    """Text embeddings on your own machine.

    \b
    arrowembed embed "one text" "another"
    arrowembed search "how do I return an article?" --file faq.txt
    """
    del debug
