"""Vectors handed on without a copy, within a process and between processes.

Within a process one buffer is seen as NumPy, Arrow or DLPack: `to_arrow`, `to_numpy`.

Between processes a result is written once into memory that all processes of the user can map.
What is passed on is a small handle, which can travel as JSON:

>>> from arrowembed.tools.sharing import open_shared, release, share, to_numpy
>>> handle = share(model.encode(["many", "texts"]), ids=["a", "b"])
>>> table = open_shared(handle)             # in any process of the same user
>>> to_numpy(table["vector"]).shape         # still the same memory
(2, 384)
>>> release(handle)
True

A shared result lives until it is released, until it expires, or until the process that shared it
ends. Whoever has it open by then goes on reading; the memory is given back after the last of them.
After a crash the next process that shares something, or calls `clean_shared`, tidies up.
"""

from arrowembed.tools.sharing.buffers import to_arrow, to_numpy
from arrowembed.tools.sharing.handles import Handle
from arrowembed.tools.sharing.reader import open_shared
from arrowembed.tools.sharing.shelf import clean_shared, release, share

__all__ = [
    "Handle",
    "clean_shared",
    "open_shared",
    "release",
    "share",
    "to_arrow",
    "to_numpy",
]
