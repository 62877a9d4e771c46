"""Reads the pickle of a torch checkpoint as data.

A pickle is a program, and `pickle.load` runs it. Here its instructions are only read
(`pickletools.genops`) and a stack of plain values is kept: nothing is imported and nothing is
called, and whatever tensors do not need is refused by its name.
"""

import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from arrowembed.errors import ModelFileError

MAX_DIMENSIONS = 8

STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
"""The storage classes of module `torch` and NumPy's names for their elements.

NumPy has no bfloat16: its bits are read here and widened to float32, of which it is the upper half.
"""

ALLOWED_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}" for name in STORAGES),
}


@dataclass(frozen=True)
class Global:
    """A name in the pickle; never looked up."""

    name: str


@dataclass(frozen=True)
class Storage:
    """A run of elements of one type in the archive."""

    kind: str
    """One of STORAGES."""
    key: str
    num_elements: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements as they are in the archive."""
        return np.dtype(STORAGES[self.kind])

    @property
    def num_bytes(self) -> int:
        """Size in the archive."""
        return self.num_elements * self.dtype.itemsize


@dataclass(frozen=True)
class TensorView:
    """How a tensor is cut from its storage, in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the tensor once it is cut out."""
        return math.prod(self.shape) * self.storage.dtype.itemsize


def read_pickle(path: Path, content: bytes) -> dict[str, TensorView]:
    """The tensors that a checkpoint's pickle describes, by their names."""
    machine = _StackMachine(path)
    try:
        for opcode, argument, _ in pickletools.genops(content):
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: damaged pickle: {error}") from error
    return machine.tensors()


class _StackMachine:
    """The part of pickle's stack machine that torch's writer of state dicts uses (protocol 2)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:  # noqa: C901, PLR0912 - a case each
        """Executes one instruction; none of them calls or imports anything."""
        stack = self.stack
        match opcode:
            case "PROTO" | "STOP":
                pass
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
            case "GLOBAL":
                stack.append(self._allowed(argument))
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._pop(int(opcode[-1]))))
            case "TUPLE":
                stack.append(tuple(self._pop_mark()))
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS":
                self._extend(self._pop_mark())
            case "SETITEM":
                self._update(self._pop(2))
            case "SETITEMS":
                self._update(self._pop_mark())
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "BINPERSID":
                stack.append(self._storage(*self._pop(1)))
            case "REDUCE":
                stack.append(self._rebuild(*self._pop(2)))
            case "BUILD":
                # Attributes of a state dict (`_metadata`: versions of torch modules).
                self._pop(1)
            case _:
                raise ModelFileError(
                    f"{self.path}: pickle instruction {opcode} has no place in a checkpoint"
                )

    def tensors(self) -> dict[str, TensorView]:
        """What the finished program left: one dict of tensors."""
        if len(self.stack) != 1 or not isinstance(self.stack[0], dict):
            raise ModelFileError(f"{self.path} does not hold a state dict")
        for name, value in self.stack[0].items():
            if not isinstance(value, TensorView):
                raise ModelFileError(
                    f"{self.path}: {name!r} is no tensor but {type(value).__name__}; "
                    "a state dict of tensors is read, not a training checkpoint"
                )
        return self.stack[0]

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("stack underflow")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _pop_mark(self) -> list[Any]:
        mark = self.marks.pop()
        taken = self.stack[mark:]
        del self.stack[mark:]
        return taken

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("appending to what is not a list")  # noqa: TRY004 - of the file
        self.stack[-1].extend(values)

    def _update(self, values: list[Any]) -> None:
        # Only text as keys: hashing nested tuples from a hostile file can take for ever.
        if not isinstance(self.stack[-1], dict) or len(values) % 2:
            raise ValueError("setting items of what is not a dict")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str):
                raise ModelFileError(
                    f"{self.path}: a key is no text but {type(key).__name__}; "
                    "a state dict of tensors is read, not a training checkpoint"
                )
            self.stack[-1][key] = value

    def _allowed(self, name: str) -> Global:
        if name not in ALLOWED_GLOBALS:
            raise ModelFileError(
                f"{self.path} refers to {name.replace(' ', '.')!r}, which could run code; "
                "only plain tensors are read"
            )
        return Global(name)

    def _storage(self, reference: object) -> Storage:
        """Of `("storage", class, key, device, number of elements)`."""
        match reference:
            case ("storage", Global(name), str(key), str(), int(count)) if count >= 0:
                kind = name.removeprefix("torch ")
                if kind in STORAGES:
                    return Storage(kind, key, count)
        raise ValueError("a persistent id is no storage")

    def _rebuild(self, function: object, arguments: object) -> object:
        match function, arguments:
            case Global("collections OrderedDict"), ():
                return {}
            case Global("torch._utils _rebuild_parameter"), (TensorView() as view, *_):
                return view
            case Global("torch._utils _rebuild_tensor_v2"), (
                Storage() as storage,
                int(offset),
                tuple(shape),
                tuple(strides),
                *_,
            ):
                return self.view(storage, offset, shape, strides)
        raise ValueError("a call with arguments that torch does not write")

    def view(
        self, storage: Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
    ) -> TensorView:
        """A tensor within its storage; Python's integers cannot overflow."""
        if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
            raise ValueError(f"a tensor with {len(shape)} sizes and {len(strides)} strides")
        if not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
            raise ValueError("a tensor's sizes, strides and offset must be integers from 0 up")
        elements = math.prod(shape)
        last = offset + sum((s - 1) * stride for s, stride in zip(shape, strides, strict=True))
        end = last + 1 if elements else offset
        if end > storage.num_elements or elements > storage.num_elements:
            raise ModelFileError(
                f"{self.path}: a tensor of shape {shape}, strides {strides} and offset {offset} "
                f"reaches beyond its storage {storage.key!r} of {storage.num_elements} elements"
            )
        return TensorView(storage, offset, shape, strides)
