"""How the service has the C library lay out its memory."""

import os
import platform
import subprocess
import sys

import pytest

from arrowembed.server.memory import CHOICES

MAPPED_BLOCKS = """
import ctypes
from arrowembed.server.memory import keep_compact

class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.mallinfo2.restype = Mallinfo2
keep_compact()
# Once one of that size was freed, glibc places the next among small blocks, unless told not to.
libc.free(libc.malloc(8 << 20))
before = libc.mallinfo2().hblks
libc.malloc(4 << 20)
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators are left alone")
@pytest.mark.parametrize(
    ("chosen", "mapped"), [({}, "1"), ({"MALLOC_ARENA_MAX": "1"}, "0")], ids=["own", "operator's"]
)
def test_large_blocks_do_not_stand_between_small_ones(chosen, mapped):
    command = [sys.executable, "-c", MAPPED_BLOCKS]
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    answer = subprocess.run(
        command, env=environment | chosen, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == mapped
