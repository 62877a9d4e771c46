"""`arrowembed serve`: its options are the settings of the service."""

from __future__ import annotations

import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

from arrowembed.server.run import run
from arrowembed.server.settings import (
    SECTIONS,
    ServerSettings,
    flag_of,
    read_settings,
    variable_of,
)

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_ARGUMENT = "models"
"""The setting that is given as arguments, not as an option."""


class _Option(click.Option):
    """A setting as an option. Its value is checked with all others, by the settings themselves."""

    def __init__(self, name: str, field: FieldInfo, section: str) -> None:
        kind = _kind(field.annotation)
        flag = flag_of(name)
        super().__init__(
            [f"{flag}/--no-{flag[2:]}" if kind is bool else flag, name],
            # A flag that is not given must be told from one that is off.
            default=None,
            type=bool if kind is bool else str,
            multiple=kind is list,
            metavar=None if kind is bool else _metavar(kind),
            help=_help(name, field),
        )
        self.section = section


class _Command(click.Command):
    """A command that shows its options by sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes a heading and the options below it, for each section."""
        shown: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx)
            if record is not None and isinstance(option, click.Option):
                shown.setdefault(getattr(option, "section", "Options"), []).append(record)
        for section, records in shown.items():
            with formatter.section(section):
                formatter.write_dl(records)


def _options() -> list[click.Parameter]:
    options: list[click.Parameter] = [
        _Option("config", ServerSettings.model_fields["config"], "Options")
    ]
    for section in SECTIONS:
        title = (section.__doc__ or "").partition("\n")[0].rstrip(".")
        options += [_Option(*field, title) for field in _fields(section)]
    return options


def _fields(section: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    return [item for item in section.model_fields.items() if item[0] != _ARGUMENT]


def _kind(annotation: Any) -> Any:
    """The type of a setting's value, without None."""
    if get_origin(annotation) in (Union, types.UnionType):
        annotation = next(t for t in get_args(annotation) if t is not type(None))
    return get_origin(annotation) or annotation


def _metavar(kind: Any) -> str:
    if kind is Literal:
        return "NAME"
    known = {int: "N", float: "X", Path: "FILE"}
    return next((shown for t, shown in known.items() if t is kind), "TEXT")


def _help(name: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    known = "" if default in (None, "", []) else f"; default: {default}"
    return f"{field.description}  [{variable_of(name)}{known}]"


@click.command(cls=_Command, params=_options())
@click.argument("models", nargs=-1, metavar="[MODEL]...")
def serve(models: tuple[str, ...], **given: Any) -> None:
    """Answer requests over HTTP with MODELs, each as NAME, SOURCE or NAME=SOURCE.

    Settings come from options, from environment variables and from the file --config names (TOML),
    in this order.

    \b
    arrowembed serve all-MiniLM-L6-v2
    arrowembed serve search=models/all-MiniLM-L6-v2 --host 0.0.0.0 --port 80
    """
    settings = {name: value for name, value in given.items() if value not in (None, ())}
    if models:
        settings[_ARGUMENT] = list(models)
    run(read_settings(**settings))
