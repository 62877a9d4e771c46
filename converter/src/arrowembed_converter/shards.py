"""The index of weights that are split into several files."""

import json
from pathlib import Path

from arrowembed.errors import ModelFileError


def read_weight_map(index: Path) -> dict[str, str]:
    """Which file holds which tensor, by the tensors' names.

    Raises:
        ModelFileError: The index is no such map, or names a file outside its folder.
    """
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{index} is not an index of weights: {error!r}") from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFileError(f"{index}: weight_map names no tensors")
    for shard in weight_map.values():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise ModelFileError(f"{index}: shard {shard!r} is not a plain file name")
    return weight_map
