"""`arrowembed models`, `info` and `verify`: looking at models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from arrowembed.cli.options import model_options, open_model

if TYPE_CHECKING:
    from pathlib import Path

_JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


@click.command()
@_JSON
def models(*, as_json: bool) -> None:
    """List the models that can be used by name without the network."""
    from arrowembed.models import list_models, models_folder  # noqa: PLC0415 - as below

    found = list_models()
    if as_json:
        entries = [{"name": m.name, "place": m.place, "path": str(m.path)} for m in found]
        click.echo(json.dumps(entries, ensure_ascii=False))
        return
    if not found:
        click.echo(f"none yet; models are kept in {models_folder()}", err=True)
        click.echo("bring one: arrowembed pull all-MiniLM-L6-v2", err=True)
    width = max((len(m.name) for m in found), default=0)
    for model in found:
        click.echo(f"{model.name:{width}}  {model.place:18}  {model.path}")


@click.command()
@click.argument("name", required=False)
@model_options
@_JSON
def info(name: str | None, *, as_json: bool, **options: Any) -> None:
    """Show what is known of a model: NAME, or that of --model."""
    if name is not None:
        options["model"] = name
    details = open_model(**options).info()
    if as_json:
        click.echo(json.dumps(details, ensure_ascii=False))
        return
    for key, value in details.items():
        nested = isinstance(value, (dict, list))
        shown = json.dumps(value, ensure_ascii=False) if nested else value
        click.echo(f"{key:21} {shown}")


@click.command()
@click.argument("name")
def verify(name: str) -> None:
    """Check every tensor of a model file against its checksum.

    NAME is a model's name, or the path of its folder or file.
    """
    from arrowembed import _core  # noqa: PLC0415 - imports the engine
    from arrowembed.models import find  # noqa: PLC0415

    path: Path = find(name, local_files_only=True)
    with tqdm(unit=" tensors", disable=None, delay=1.0, leave=False) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        count = _core.verify(str(path), report)
    click.echo(f"{path}: {count} tensors, all as they were written")
