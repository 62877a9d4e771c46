"""From a source to a model folder: find it, check it, have it written, report."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from huggingface_hub.utils.tqdm import disable_progress_bars
from tqdm import tqdm

from arrowembed import _core, models
from arrowembed.errors import InvalidArgumentError
from arrowembed_converter import sources

if TYPE_CHECKING:
    from arrowembed._core import ConversionReport  # only in the stub

DType = Literal["float32", "float16", "bfloat16", "int16", "int8"]
Layout = Literal["packed", "row_major"]
Format = Literal["arrow", "parquet"]
Compression = Literal["none", "lz4", "zstd"]


@dataclass(frozen=True)
class Conversion:
    """What a conversion did."""

    source: Path
    target: Path
    report: ConversionReport

    @property
    def saved_percent(self) -> float:
        """By how much the weights are smaller than the source's."""
        return 100 * (1 - self.report["bytes"] / self.report["source_bytes"])

    @property
    def fallbacks(self) -> dict[str, str]:
        """Tensors kept in float32 against the dtype asked for, and why."""
        return {t["name"]: t["fallback"] for t in self.report["tensors"] if t["fallback"]}

    @property
    def worst(self) -> list[tuple[str, float]]:
        """The three tensors that lost most by rounding, with their relative errors."""
        errors = [(tensor["name"], tensor["relative_error"]) for tensor in self.report["tensors"]]
        lossy = [pair for pair in errors if pair[1] > 0]
        return sorted(lossy, key=lambda pair: -pair[1])[:3]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "source": str(self.source),
            "target": str(self.target),
            "saved_percent": round(self.saved_percent, 2),
            **self.report,
        }

    def __str__(self) -> str:
        report = self.report
        before, after = report["source_bytes"] / 1e6, report["bytes"] / 1e6
        lines = [
            f"{self.target}",
            f"  from     {self.source}",
            f"  sha256   {report['source_sha256']}",
            f"  size     {after:.1f} MB from {before:.1f} MB, {self.saved_percent:.1f} % saved",
            f"  tensors  {len(report['tensors'])}, {len(self.fallbacks)} kept in float32",
        ]
        lines += [f"    {name}: {reason}" for name, reason in self.fallbacks.items()]
        lines.append(f"  largest relative rounding errors{'' if self.worst else ': none'}")
        lines += [f"    {error:.1e}  {name}" for name, error in self.worst]
        return "\n".join(lines)


def convert_model(
    source: str,
    target: str | Path | None = None,
    *,
    dtype: DType = "float16",
    layout: Layout = "packed",
    format: Format = "arrow",  # noqa: A002 - the file format's only name
    compression: Compression = "none",
    name: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    sha256: str | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Conversion:
    """Writes a model folder.

    The target is made beside its place and renamed at the end: it is whole or not there at all,
    whatever happens.

    Args:
        source: See `sources.locate`.
        target: The folder to write; None is `ARROWEMBED_HOME/models/NAME`, where models are found
            by name.
        dtype: What matrices and tables are stored in.
        layout: `packed` for the CPU kernels, `row_major` for interchange.
        format: Format of the weights file.
        compression: Of the weights file; a compressed one is unpacked when it is first opened.
        name: Name of the model; None takes the source's.
        revision: Branch, tag or commit on the hub.
        token: Access token for the hub.
        local_files_only: Never ask the hub.
        sha256: What the source's weights must hash to.
        force: Replace a target that exists.
        quiet: Show no progress.

    Raises:
        ArrowEmbedError: The source is not found, cannot be read safely, is not the one expected, or
            is of an unsupported kind; or the target is in the way or cannot be written.
    """
    name = name or sources.default_name(source)
    target = Path(target) if target is not None else models.home_path(name)
    if target.exists() and not force:
        raise InvalidArgumentError(f"{target} exists already; --force replaces it")
    if quiet or not sys.stderr.isatty():
        disable_progress_bars()
    found = sources.locate(
        source, token=token, revision=revision, local_files_only=local_files_only
    )
    if sha256 is not None:
        sources.check_sha256(found, sha256)
    bar = tqdm(unit=" tensors", disable=quiet or None, delay=1.0, leave=False)
    with sources.readable(found) as folder, bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = _core.convert(
            str(folder),
            str(target),
            dtype=dtype,
            layout=layout,
            format=format,
            compression=compression,
            name=name,
            on_progress=show,
        )
    return Conversion(found, target, report)
