"""One module for each engine, imported only in that engine's environment.

Each has `PACKAGES`, the distributions whose versions are reported, possibly `ABOUT`, more to tell
that is known once the model is open, and

    load(model: Path, threads: int, *, one: bool, **options) -> Encode

which opens the file or folder `model` to compute on so many threads; `one` says that texts will
come one at a time, where an engine is set up differently for that.

Where it can be asked for them, `token_ids(texts)` are the ids that the model sees, once it is open.
"""

from collections.abc import Callable
from typing import Any

Encode = Callable[[list[str], int], Any]
"""Texts and a batch size (0: the engine's own choice) to one row of numbers for each text."""
