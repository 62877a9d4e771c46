"""From what a user names to a local Hugging Face folder whose weights can be read safely."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arrowembed import models
from arrowembed.errors import InvalidArgumentError, ModelFileError
from arrowembed_converter import torch_checkpoint
from arrowembed_converter.shards import read_weight_map

SAFETENSORS = "model.safetensors"


def locate(
    source: str,
    *,
    token: str | bool | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder or file of a model, fetched from the hub where it is nowhere on this machine.

    Args:
        source: A Hugging Face or sentence-transformers folder, a model folder or file, the name of
            an installed package that carries a model, or a model's name on the hub.
        token: Access token for the hub.
        revision: Branch, tag or commit on the hub.
        local_files_only: Never ask the hub.

    Raises:
        ModelNotFoundError: Nowhere; the message lists the places.
        ModelIOError: The hub has it, but it could not be fetched.
    """
    if not Path(source).expanduser().exists():
        for model in models.in_packages():
            if source.replace("-", "_") in model.path.parts:
                return model.path
    return models.find(
        source,
        token=token,
        revision=revision,
        local_files_only=local_files_only,
        search_home=False,
        pickled=True,
    )


def default_name(source: str) -> str:
    """The name under which a converted model is kept."""
    path = Path(source).expanduser()
    if path.exists():
        # A model file is called after its folder.
        return (path if path.is_dir() else path.parent).resolve().name
    for model in models.in_packages():
        if source.replace("-", "_") in model.path.parts:
            return model.name
    return models.short_name(source)


def weights_files(path: Path) -> list[Path]:
    """The files of a model's weights: one, or several shards in the order of their names.

    Raises:
        ModelFileError: A folder holds none, or an index names what is not a plain file.
    """
    if not path.is_dir():
        return [path]
    for name in ("model.arrow", "model.parquet", SAFETENSORS):
        if (path / name).is_file():
            return [path / name]
    for name in (f"{SAFETENSORS}.index.json", torch_checkpoint.INDEX):
        if (path / name).is_file():
            shards = set(read_weight_map(path / name).values())
            return [path / shard for shard in sorted(shards)]
    if (path / torch_checkpoint.WEIGHTS).is_file():
        return [path / torch_checkpoint.WEIGHTS]
    raise ModelFileError(f"{path} holds no weights")


def sha256(path: Path) -> str:
    """Of a model's weights, shards one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for file in weights_files(path):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Compares a model's weights with the hash that the user knows.

    Raises:
        InvalidArgumentError: `expected` is not a SHA-256.
        ModelFileError: The weights are other ones.
    """
    expected = expected.lower()
    if len(expected) != 64 or not set(expected) <= set("0123456789abcdef"):
        raise InvalidArgumentError("sha256 is not 64 hexadecimal digits")
    found = sha256(path)
    if found != expected:
        raise ModelFileError(
            f"{path}: not the weights expected: their SHA-256 is {found}, not {expected}"
        )


def _pickled_dense(path: Path) -> list[Path]:
    dense = models.dense_without_weights(path)
    files = [module / torch_checkpoint.WEIGHTS for module in dense]
    return [file for file in files if file.is_file()]


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A folder with the same model whose weights the engine reads: `path` itself, unless pickled.

    Weights pickled by torch, the model's or those of Dense modules behind it, are written to a
    temporary folder as safetensors.
    """
    if not any(
        file.name.endswith(".bin") for file in (*weights_files(path), *_pickled_dense(path))
    ):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="arrowembed-") as temporary:
        folder = Path(temporary) / path.resolve().name
        torch_checkpoint.convert_folder(path, folder)
        yield folder
