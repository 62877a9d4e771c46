"""Writes `pytorch_model.bin` as torch does, without torch, for the tests to read."""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

KINDS = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
Reduced = tuple[Callable[..., object], tuple[object, ...]]


@dataclass
class Storage:
    """A run of elements; what torch calls a typed storage."""

    kind: str
    key: str
    content: bytes
    num_elements: int


@dataclass
class Tensor:
    """Pickles as a torch tensor does."""

    storage: Storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    parameter: bool = False

    def __reduce__(self) -> Reduced:
        utils: Any = sys.modules["torch._utils"]
        hooks: OrderedDict[str, object] = OrderedDict()
        tensor = (self.storage, self.offset, self.shape, self.strides, False, hooks)
        if self.parameter:
            plain = Tensor(self.storage, self.shape, self.strides, self.offset)
            return utils._rebuild_parameter, (plain, True, hooks)
        return utils._rebuild_tensor_v2, tensor


@dataclass
class Checkpoint:
    """What goes into the zip archive; tests spoil single fields."""

    state: object
    storages: list[Storage] = field(default_factory=list)
    byteorder: bytes = b"little"
    compression: int = zipfile.ZIP_STORED

    def write(self, path: Path) -> Path:
        with zipfile.ZipFile(path, "w", self.compression) as archive:
            archive.writestr("archive/data.pkl", pickled(self.state))
            archive.writestr("archive/byteorder", self.byteorder)
            for storage in self.storages:
                archive.writestr(f"archive/data/{storage.key}", storage.content)
            archive.writestr("archive/version", b"3\n")
        return path


def storage_of(key: str, values: NDArray[Any]) -> Storage:
    return Storage(KINDS[values.dtype.name], key, values.tobytes(), values.size)


def checkpoint_of(tensors: dict[str, NDArray[Any]]) -> Checkpoint:
    """A state dict with a storage for each tensor and torch's `_metadata` attribute."""
    state: OrderedDict[str, Tensor] = OrderedDict()
    storages = []
    for i, (name, values) in enumerate(tensors.items()):
        storages.append(storage_of(str(i), values))
        strides = tuple(stride // values.itemsize for stride in values.strides)
        state[name] = Tensor(storages[-1], values.shape, strides)
    state._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    return Checkpoint(state, storages)


def pickled(value: object) -> bytes:
    """Protocol 2 with torch's persistent ids for storages."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: object) -> object:
            if isinstance(thing, Storage):
                kind = getattr(sys.modules["torch"], thing.kind)
                return "storage", kind, thing.key, "cpu", thing.num_elements
            return None

    buffer = io.BytesIO()
    with _names_of_torch():
        Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


@contextmanager
def _names_of_torch() -> Iterator[None]:
    """Pickle writes a class by its name only where that name can be imported."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    for kind in (*KINDS.values(), "BFloat16Storage", "QInt8Storage"):
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_device_tensor"):

        def function() -> None: ...

        function.__module__, function.__qualname__, function.__name__ = "torch._utils", name, name
        setattr(utils, name, function)
    before = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
