"""Reads `pytorch_model.bin` without torch, and without running any of it.

A checkpoint is a zip archive: `NAME/data.pkl`, a pickle that says how tensors are cut from
storages (`torch_pickle`), and `NAME/data/KEY`, the storages' bytes.
"""

import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from arrowembed.errors import ModelFileError
from arrowembed.models import dense_without_weights
from arrowembed_converter.shards import read_weight_map
from arrowembed_converter.torch_pickle import Storage, TensorView, read_pickle

INDEX = "pytorch_model.bin.index.json"
WEIGHTS = "pytorch_model.bin"
MAX_PICKLE_BYTES = 16 << 20
"""A pickle of names and shapes; that of a model with a thousand tensors takes some 100 KiB."""


SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
"""What an engine reads; others may lie beside it, such as a shard of a download cut short."""


def convert_folder(source: Path, target: Path) -> None:
    """Writes a copy of the Hugging Face folder `source` with its torch weights as safetensors.

    Weights that are safetensors already, the model's or those of its modules, are linked where
    that is possible. `target` must not exist. Raises ModelFileError where the weights are not
    plain tensors, and FileNotFoundError.
    """
    shutil.copytree(source, target, ignore=_all_but_text)
    for module in dense_without_weights(source):
        if (module / WEIGHTS).is_file():
            convert_file(module / WEIGHTS, target / module.name / "model.safetensors")
    ready = [*source.glob("model*.safetensors"), *source.glob("*/model.safetensors")]
    for file in ready:
        _link(file, target / file.relative_to(source))
    if any((source / name).is_file() for name in SAFETENSORS):
        return
    index_path = source / INDEX
    if not index_path.is_file():
        convert_file(source / WEIGHTS, target / "model.safetensors")
        return
    weight_map = read_weight_map(index_path)
    renamed = {shard: f"{Path(shard).stem}.safetensors" for shard in weight_map.values()}
    for shard, name in sorted(renamed.items()):
        convert_file(source / shard, target / name)
    index = {"weight_map": {name: renamed[shard] for name, shard in weight_map.items()}}
    (target / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:
        # Windows lets only some users make them.
        shutil.copyfile(source, target)


def _all_but_text(folder: str, names: list[str]) -> list[str]:
    """What `copytree` leaves out: weights of all kinds."""
    return [
        name
        for name in names
        if not (Path(folder) / name).is_dir() and Path(name).suffix not in (".json", ".txt")
    ]


def convert_file(source: Path, target: Path) -> None:
    """Writes the tensors of a torch checkpoint as a safetensors file."""
    save_file(read_checkpoint(source), target, {"format": "pt"})


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a checkpoint by its name, bfloat16 as float32."""
    _refuse_other_formats(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(path, archive)
    except ModelFileError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError) as error:
        # Offsets that point nowhere and names that are no text end in the last two.
        raise ModelFileError(f"{path}: damaged zip archive: {error}") from error


def _refuse_other_formats(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"version https://git-lfs"):
        raise ModelFileError(f"{path} is a Git LFS pointer, not the weights; run `git lfs pull`")
    if not start.startswith(b"PK\x03\x04"):
        raise ModelFileError(
            f"{path} is not a zip archive; files of torch before 1.6 cannot be read safely: "
            "take the model's model.safetensors, or load it with torch and save it again"
        )


def _read_archive(path: Path, archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    entries = _entries(path, archive)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ModelFileError(f"{path} holds {len(pickles)} data.pkl; a checkpoint has one")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in entries and archive.read(order) != b"little":
        raise ModelFileError(f"{path} was written on a big-endian machine")
    if entries[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise ModelFileError(f"{path}: data.pkl is larger than {MAX_PICKLE_BYTES >> 20} MiB")

    views = read_pickle(path, archive.read(pickles[0]))
    _check_sizes(path, views)
    uses = Counter(view.storage for view in views.values())
    contents: dict[Storage, bytes] = {}
    tensors = {}
    for name, view in views.items():
        storage = view.storage
        if storage not in contents:
            contents[storage] = _read_storage(path, archive, f"{root}data/{storage.key}", storage)
        tensors[name] = _cut(view, contents[storage])
        uses[storage] -= 1
        if not uses[storage]:
            del contents[storage]
    return tensors


def _check_sizes(path: Path, views: dict[str, TensorView]) -> None:
    """Refuses what would take far more memory than the file's size.

    Two names may share one storage, as tied embeddings do. More than that has no honest use and
    would let a small file ask for any amount of memory.
    """
    limit = path.stat().st_size
    storages = sum(storage.num_bytes for storage in {view.storage for view in views.values()})
    tensors = sum(view.num_bytes for view in views.values())
    if storages > limit or tensors > 2 * limit:
        raise ModelFileError(
            f"{path}: its tensors would take {max(storages, tensors)} bytes, the file has {limit}"
        )


def _entries(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's entries by name, each stored as torch stores it: plain, once."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        if entry.filename in entries:
            raise ModelFileError(f"{path} holds {entry.filename!r} twice")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ModelFileError(
                f"{path}: {entry.filename!r} is compressed or encrypted; torch writes neither"
            )
        entries[entry.filename] = entry
    return entries


def _read_storage(path: Path, archive: zipfile.ZipFile, entry: str, storage: Storage) -> bytes:
    if entry not in archive.NameToInfo:
        raise ModelFileError(f"{path}: storage {storage.key!r} is missing")
    size = archive.getinfo(entry).file_size
    if size != storage.num_bytes:
        raise ModelFileError(
            f"{path}: storage {storage.key!r} has {size} bytes, "
            f"{storage.num_elements} elements of {storage.kind} were announced"
        )
    return archive.read(entry)


def _cut(view: TensorView, content: bytes) -> NDArray[Any]:
    """The tensor in an array of its own. `torch_pickle` has checked that its elements exist."""
    elements = np.frombuffer(content, view.storage.dtype)[view.offset :]
    strides = tuple(stride * elements.itemsize for stride in view.strides)
    tensor = np.lib.stride_tricks.as_strided(elements, view.shape, strides, writeable=False).copy()
    if view.storage.kind == "BFloat16Storage":
        return (tensor.astype(np.uint32) << 16).view(np.float32)
    return tensor
