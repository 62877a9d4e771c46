"""`arrowembed index`: stores of texts on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arrowembed.cli.entries import FORMS, Fields, read_entries
from arrowembed.cli.filling import ON_DUPLICATE, fill
from arrowembed.cli.options import model_options, open_model
from arrowembed.cli.outputs import shorten
from arrowembed.errors import InvalidArgumentError, StoreNotFoundError
from arrowembed.store.description import BACKENDS, METRICS, VECTOR_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arrowembed.cli.entries import Entry
    from arrowembed.store import Hit, Store

_STORE = click.argument("store", type=click.Path(file_okay=False, path_type=Path))
_FILTER = click.option(
    "--filter",
    "condition",
    metavar="JSON",
    help='Only entries whose metadata fulfil this, such as \'{"year": {"$gte": 2020}}\'.',
)


@click.group()
def index() -> None:
    """Keep texts in a store on disk and search them.

    \b
    arrowembed index build faq faq.jsonl --id-field id
    arrowembed index search faq "how do I return an article?" -k 3
    arrowembed index add faq more.jsonl --id-field id --on-duplicate replace
    arrowembed index info faq
    """


def _file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that say what stands where in files of entries."""
    for option in (
        click.option(
            "--metadata-field",
            "metadata",
            multiple=True,
            help="Field to keep with the text; may be given several times.  [default: all others]",
        ),
        click.option(
            "--vector-field", "vector", help="Field of vectors, which are then not computed."
        ),
        click.option(
            "--id-field",
            "id_field",
            help="Field of ids.  [default: none; the file's name and the line, faq.txt:12]",
        ),
        click.option(
            "--text-field", "text", default="text", show_default=True, help="Field of texts."
        ),
        click.option(
            "--format",
            "form",
            type=click.Choice(FORMS),
            help="Form of the files.  [default: as their names end, else a text in each line]",
        ),
        click.argument(
            "files",
            nargs=-1,
            required=True,
            type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
        ),
    ):
        command = option(command)
    return command


def _entries(options: dict[str, Any]) -> Iterator[Entry]:
    """The entries of the files that the options of `_file_options` name, which are taken out."""
    fields = Fields(
        options.pop("text"),
        options.pop("id_field"),
        options.pop("vector"),
        options.pop("metadata"),
    )
    return read_entries(options.pop("files"), options.pop("form"), fields)


@index.command()
@_STORE
@_file_options
@model_options
@click.option(
    "--no-model",
    is_flag=True,
    help="Make a store of the vectors in --vector-field alone, not to be searched by texts.",
)
@click.option("--backend", type=click.Choice(BACKENDS), help="Kind of the store.")
@click.option("--metric", type=click.Choice(METRICS), help="How vectors are compared.")
@click.option("--dtype", type=click.Choice(VECTOR_TYPES), help="As what vectors are stored.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
def build(
    store: Path,
    *,
    no_model: bool,
    backend: str | None,
    metric: str | None,
    dtype: str | None,
    resume: bool,
    **options: Any,
) -> None:
    """Make the store STORE of the entries in FILES: - is standard input.

    Files are read as lines, JSON lines (.jsonl), CSV (.csv, .tsv), Parquet or Arrow. An
    interrupted run has kept what it did: with --resume the same command goes on after it.

    \b
    arrowembed index build notes notes.txt
    arrowembed index build faq faq.jsonl --text-field answer --id-field id
    arrowembed index build papers papers.parquet --backend lancedb --dtype float16
    """
    from arrowembed.store import open_store  # noqa: PLC0415 - imports the engine

    entries = _entries(options)
    wanted: dict[str, Any] = {"backend": backend, "metric": metric, "dtype": dtype}
    if no_model:
        first = next(entries, None)
        if first is None or first.vector is None:
            raise click.UsageError(
                "--no-model: there are no vectors; name them with --vector-field"
            )
        wanted["dimension"] = len(first.vector)
        entries = _with_first(first, entries)
    else:
        wanted["model"] = open_model(**options)
    with open_store(store, **wanted) as opened:
        if len(opened) and not resume:
            raise InvalidArgumentError(
                f"the store at {str(store)!r} has {len(opened)} entries already; go on with "
                "--resume, or put more in with: arrowembed index add"
            )
        counts = fill(opened, entries, "skip" if resume else "error")
        opened.compact()
        _report(counts, opened)


@index.command()
@_STORE
@_file_options
@click.option(
    "--on-duplicate",
    type=click.Choice(ON_DUPLICATE),
    default="error",
    show_default=True,
    help="What is done with an entry whose id is in the store.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute on.")
def add(store: Path, *, on_duplicate: str, threads: int | None, **options: Any) -> None:
    """Put the entries in FILES into the store STORE, with the model that it was made with.

    \b
    arrowembed index add faq more.jsonl --id-field id --on-duplicate replace
    cat *.txt | arrowembed index add notes -
    """
    _set_threads(threads)
    with _opened(store) as opened:
        _report(fill(opened, _entries(options), on_duplicate), opened)


@index.command()
@_STORE
@click.argument("query")
@_FILTER
@click.option(
    "--top-k", "-k", type=click.IntRange(1, 10_000), default=5, show_default=True, help="How many."
)
@click.option(
    "--mode",
    type=click.Choice(("vector", "text", "hybrid")),
    help="By meaning, by words or by both; the latter two need LanceDB and an index of words.",
)
@click.option("--exact", is_flag=True, default=None, help="Pass over an index of vectors.")
@click.option("--nprobes", type=click.IntRange(min=1), help="Parts of the index to look at.")
@click.option(
    "--refine-factor", type=click.IntRange(min=1), help="Times as many to compare exactly."
)
@click.option("--ef", type=click.IntRange(min=1), help="Candidates in the graph of an HNSW index.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads to compute on.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "jsonl")),
    default="table",
    show_default=True,
    help="Form of the output.",
)
def search(
    store: Path,
    query: str,
    *,
    condition: str | None,
    top_k: int,
    threads: int | None,
    form: str,
    **options: Any,
) -> None:
    """Find the entries of STORE that are nearest in meaning to QUERY.

    \b
    arrowembed index search faq "how do I return an article?" -k 3
    arrowembed index search papers "graph theory" --filter '{"year": {"$gte": 2020}}'
    """
    _set_threads(threads)
    # By meaning searches every store; the others are options of LanceDB.
    given = {n: value for n, value in options.items() if value is not None and value != "vector"}
    with _opened(store) as opened:
        hits = opened.search(query, top_k, filter=_parsed(condition), **given)
    for hit in hits:
        _show(hit, form)


@index.command()
@_STORE
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def info(store: Path, *, as_json: bool) -> None:
    """Show what the store STORE was made for and how large it is."""
    with _opened(store) as opened:
        details = opened.info()
    if as_json:
        click.echo(json.dumps(details, ensure_ascii=False))
        return
    for key, value in details.items():
        shown = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value
        click.echo(f"{key:21} {shown}")


@index.command()
@_STORE
@click.argument("ids", nargs=-1)
@_FILTER
def delete(store: Path, ids: tuple[str, ...], *, condition: str | None) -> None:
    """Take the entries with these IDS, or those that fulfil a filter, out of STORE."""
    if not ids and condition is None:
        raise click.UsageError("name ids, or give --filter")
    with _opened(store) as opened:
        count = opened.delete(ids or None, filter=_parsed(condition))
    click.echo(f"{store}: {count} entries deleted")


@index.command()
@_STORE
def compact(store: Path) -> None:
    """Rewrite what is fragmented in STORE and drop what was deleted."""
    with _opened(store) as opened:
        opened.compact()
        click.echo(f"{store}: {len(opened)} entries, {opened.info()['bytes']} bytes")


@index.command("create-index")
@_STORE
@click.option(
    "--kind",
    type=click.Choice(("ivf_pq", "ivf_hnsw_sq", "ivf_sq", "ivf_flat", "text")),
    default="ivf_pq",
    show_default=True,
    help="Of vectors, for faster, approximate search; or of the words of the texts.",
)
def create_index(store: Path, *, kind: str) -> None:
    """Make an index in STORE, which must be one of LanceDB."""
    from arrowembed.store.lancedb import LanceStore  # noqa: PLC0415 - an extra

    with _opened(store) as opened:
        if not isinstance(opened, LanceStore):
            raise InvalidArgumentError(
                f"the store at {str(store)!r} is {opened.description.backend}, which needs no "
                "index; copy it with: arrowembed index migrate --backend lancedb"
            )
        if kind == "text":
            opened.create_text_index()
        else:
            opened.create_index(kind)


@index.command()
@click.argument("source", type=click.Path(file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--backend", type=click.Choice(BACKENDS), help="Of TARGET.  [default: as SOURCE]")
@click.option("--dtype", type=click.Choice(VECTOR_TYPES), help="Of TARGET.  [default: as SOURCE]")
def migrate(source: Path, target: Path, *, backend: Any, dtype: Any) -> None:
    """Copy the store SOURCE to TARGET, as another kind of store if that is wanted.

    Nothing is embedded again. TARGET appears when it is complete.

    \b
    arrowembed index migrate faq faq-lance --backend lancedb
    """
    from arrowembed.store.migrate import migrate as copy  # noqa: PLC0415 - imports the engine

    click.echo(f"{target}: {copy(source, target, backend=backend, dtype=dtype)} entries")


def _opened(path: Path) -> Store:
    from arrowembed.store import open_store  # noqa: PLC0415 - imports the engine

    try:
        return open_store(path)
    except StoreNotFoundError as error:
        raise StoreNotFoundError(
            f"no store at {str(path)!r}; make one: arrowembed index build {path} FILES"
        ) from error


def _set_threads(threads: int | None) -> None:
    from arrowembed import set_num_threads  # noqa: PLC0415 - imports the engine

    if threads is not None:
        set_num_threads(threads)


def _with_first(first: Entry, others: Iterator[Entry]) -> Iterator[Entry]:
    yield first
    yield from others


def _parsed(condition: str | None) -> Any:
    try:
        return None if condition is None else json.loads(condition)
    except ValueError as error:
        raise click.UsageError(f"--filter: no JSON ({error})") from error


def _report(counts: tuple[int, int], store: Store) -> None:
    put, skipped = counts
    passed_over = f", {skipped} were there already" if skipped else ""
    click.echo(f"{store.path}: {put} entries put in{passed_over}; {len(store)} in all")


def _show(hit: Hit, form: str) -> None:
    if form == "jsonl":
        record = {
            "score": round(hit.score, 6),
            "id": hit.id,
            "text": hit.text,
            "metadata": hit.metadata,
        }
        click.echo(json.dumps(record, ensure_ascii=False))
    else:
        click.echo(f"{hit.score:7.4f}  {shorten(hit.id, 24):24}  {shorten(hit.text or '', 80)}")
