"""What is wrong with a call's arguments: put right where only one thing can be meant, else said.

pydantic finds what is wrong; here it is told so that a language model can correct itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from arrowembed.tools.outcome import did_you_mean, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

_MAX_PROBLEMS = 5
"""Told of one call; whoever has more wrong will call again."""

_MAX_SHOWN = 60
"""Characters of a value that was given."""

_UNKNOWN = "is unknown"

_SUBJECT = re.compile(r"^(Input|String|List|Dictionary|Value error,) ")
"""Of pydantic's messages; the place says it better."""

_ABSENT = object()

Path = tuple[str | int, ...]


def repair(data: Any, errors: Sequence[ErrorDetails]) -> bool:
    """Puts some errors in `data` right, in place; whether there were any.

    - 5.0 for a whole number: JSON has no other numbers.
    - An object or a list written as JSON within a string.
    - null for what may be left out: strict forms of schemas have no other way to leave it out.
    """
    found = False
    for error in errors:
        path = _place(data, error)
        value, parent = _at(data, path), _at(data, path[:-1])
        if not path or value is _ABSENT or not isinstance(parent, (dict, list)):
            continue
        if error["type"].startswith("int_") and isinstance(value, float) and value.is_integer():
            parent[path[-1]] = int(value)  # type: ignore[index] # a place in the data
        elif isinstance(value, str) and _wants_structure(error):
            inner = _structure(value)
            if inner is None:
                continue
            parent[path[-1]] = inner  # type: ignore[index] # a place in the data
        elif value is None and isinstance(parent, dict):
            parent.pop(path[-1], None)
        else:
            continue
        found = True
    return found


def explained(given: Any, meant: Any, errors: Sequence[ErrorDetails], names: Sequence[str]) -> str:
    """What is wrong, where, what was given, and what there could be.

    Args:
        given: The arguments.
        meant: The arguments to which the errors belong, after repairs.
        errors: Of pydantic.
        names: Of all parameters.
    """
    problems: dict[Path, list[str]] = {}
    for error in errors:
        path = _place(meant, error)
        told = _told(path, error, names)
        if told not in problems.setdefault(path, []):
            problems[path].append(told)
    # Of the branches of a union, the one that got furthest is the one that was meant.
    paths = [
        path
        for path in problems
        if not any(len(other) > len(path) and other[: len(path)] == path for other in problems)
    ]
    lines = []
    for path in paths[:_MAX_PROBLEMS]:
        value, told = _at(given, path), " or ".join(problems[path])
        shown = "" if value is _ABSENT or _UNKNOWN in told else f", given {_shown(value)}"
        where = f"{_written(path)} " if path else ""
        lines.append(f"{where}{told}{shown}")
    if len(paths) > _MAX_PROBLEMS:
        lines.append(f"and {len(paths) - _MAX_PROBLEMS} more")
    return "; ".join(lines)


def _told(path: Path, error: ErrorDetails, names: Sequence[str]) -> str:
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            if len(path) > 1 or not path:
                return f"{_UNKNOWN}; leave it out"
            near = did_you_mean(str(path[0]), names)
            known = f"; known are {', '.join(names)}" if names else "; leave it out"
            return _UNKNOWN + (near or known)
    message = _SUBJECT.sub("", error["msg"]).removesuffix(f", not {_length(error['input'])}")
    return message.removesuffix(" after validation")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, dict)) else 0


def _place(data: Any, error: ErrorDetails) -> Path:
    """Where in the data an error is: its location without the names of a union's branches."""
    path: list[str | int] = []
    value = data
    steps = error["loc"]
    for number, step in enumerate(steps):
        inner = _at(value, (step,))
        if inner is not _ABSENT:
            value = inner
            path.append(step)
        elif number == len(steps) - 1 and error["type"] == "missing":
            path.append(step)
    return tuple(path)


def _at(data: Any, path: Path) -> Any:
    for step in path:
        known = step in data if isinstance(data, dict) else _is_index(data, step)
        if not known:
            return _ABSENT
        data = data[step]
    return data


def _is_index(data: Any, step: str | int) -> bool:
    return isinstance(data, list) and isinstance(step, int) and step < len(data)


def _written(path: Path) -> str:
    """A place as programmers write it: texts[3].name."""
    written = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return shortened(written.removeprefix("."), _MAX_SHOWN)


def _shown(value: Any) -> str:
    text = to_json(value).decode()
    if isinstance(value, str) and len(text) > _MAX_SHOWN:
        return f"{shortened(text, _MAX_SHOWN)} of {len(value)} characters"
    if isinstance(value, list) and len(text) > _MAX_SHOWN:
        return f"{shortened(text, _MAX_SHOWN)} of {len(value)} items"
    return shortened(text, _MAX_SHOWN)


def _wants_structure(error: ErrorDetails) -> bool:
    kinds = ("dict", "list", "tuple", "set", "frozen_set", "model", "dataclass", "typed_dict")
    return error["type"] in {f"{kind}_type" for kind in kinds} | {"model_attributes_type"}


def _structure(text: str) -> Any | None:
    """The object or list that a text is JSON of."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return from_json(text)
    except ValueError:
        return None
