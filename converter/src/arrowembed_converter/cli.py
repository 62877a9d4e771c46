"""The commands `convert`, `validate` and `benchmark` of `arrowembed`."""

import json
import logging
from pathlib import Path
from typing import Any

import click

from arrowembed.cli.options import compute_option
from arrowembed_converter.peers import PEERS

_TOKEN = click.option(
    "--token", envvar="HF_TOKEN", show_envvar=True, help="Access token for the hub."
)
_LOCAL = click.option("--local-files-only", is_flag=True, help="Never ask the hub.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Write the report as JSON.")


@click.command()
@click.argument("source")
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16", "int16", "int8"]),
    default="float16",
    show_default=True,
    help="Type in which matrices and tables are stored.",
)
@click.option(
    "--format",
    type=click.Choice(["arrow", "parquet"]),
    default="arrow",
    show_default=True,
    help="Format of the weights; arrow can be mapped.",
)
@click.option(
    "--compression",
    type=click.Choice(["none", "lz4", "zstd"]),
    default="none",
    show_default=True,
    help="Of the weights; compressed ones cannot be mapped and are unpacked when first opened.",
)
@click.option(
    "--layout",
    type=click.Choice(["packed", "row_major"]),
    default="packed",
    show_default=True,
    help="As the CPU kernels read them, or as Hugging Face has them.",
)
@click.option("--name", help="Name of the model.  [default: the source's]")
@click.option("--revision", help="Branch, tag or commit on the hub.")
@_TOKEN
@_LOCAL
@click.option("--sha256", help="What the source's weights must hash to.")
@click.option("--force", is_flag=True, help="Replace a model that is there already.")
@click.option("--quiet", "-q", is_flag=True, help="Show neither progress nor report.")
@_JSON
def convert(*, as_json: bool, quiet: bool, **options: Any) -> None:
    """Convert the model SOURCE to a model folder.

    SOURCE is a Hugging Face or sentence-transformers folder, the name of an installed package that
    carries one, or a model's name on the hub. TARGET is the folder to write; without it the model
    is kept in ARROWEMBED_HOME and found by its name.

    \b
    arrowembed convert all-MiniLM-L6-v2
    arrowembed convert ./my-model ./my-model-arrow --dtype float32
    """
    from arrowembed_converter.conversion import convert_model  # noqa: PLC0415 - the engine

    conversion = convert_model(quiet=quiet, **options)
    if as_json:
        click.echo(json.dumps(conversion.as_dict()))
    elif not quiet:
        click.echo(str(conversion))


@click.command()
@click.argument("model")
@click.option(
    "--source",
    help="Hugging Face folder or name that MODEL was converted from.  [default: by its name]",
)
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Texts to compare: a line each, or a JSON list.  [default: a varied built-in list]",
)
@compute_option
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Largest 1 - cosine allowed.  [default: by the model's dtype and arithmetic]",
)
@click.option("--against", type=click.Choice(PEERS), help="Compare with another package, too.")
@_TOKEN
@_LOCAL
@_JSON
def validate(*, model: str, texts: Path | None, as_json: bool, **options: Any) -> None:
    """Compare MODEL's vectors with those of a plain float64 computation.

    The reference reads the original Hugging Face files and shares no code with the engine. Exit
    status 1 if token ids differ or a vector is further off than allowed.
    """
    from arrowembed_converter import validation  # noqa: PLC0415 - imports the engine

    # That texts were cut is in the report.
    logging.getLogger("arrowembed").setLevel(logging.ERROR)
    if texts is not None:
        options["texts"] = validation.read_texts(texts)
    result = validation.validate_model(model, **options)
    click.echo(json.dumps(result.as_dict()) if as_json else str(result))
    if not result.passed:
        click.get_current_context().exit(1)


@click.command()
@click.argument("model")
@click.option("--against", type=click.Choice(PEERS), help="Measure another package beside it.")
@click.option("--peer-model", help="What the other package opens.  [default: MODEL's source]")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute on.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="How often everything is measured.",
)
@_JSON
def benchmark(*, model: str, as_json: bool, **options: Any) -> None:
    """Measure MODEL: size, start, latency, throughput and memory."""
    from arrowembed_converter.benchmark import benchmark_model  # noqa: PLC0415 - the engine

    result = benchmark_model(model, **options)
    click.echo(json.dumps(result.as_dict()) if as_json else str(result))
