"""Kills writers of a store in LanceDB, and looks at what is left; run as a program of its own.

    python crashing_lance.py FOLDER KILLS

As `crashing.py` does, with one difference: LanceDB's threads are in no child, so that this process
only imports it, and whatever uses a store is a child. Prints how many were killed while they wrote.
"""

import os
import random
import signal
import sys
import time
import traceback
import warnings

import lancedb  # noqa: F401 - imported once, not in each child
import numpy as np
from crashing import DIMENSION, operation
from slow_store import SlowStore, agree

from arrowembed.store import open_store

WITHOUT, WITH = 10, 11
"""Exit statuses of the child that looks: the write that was not acknowledged is there or not."""


def in_child(action):
    """Runs something in a child that ends itself if it takes a minute."""
    process = os.fork()
    if not process:
        signal.alarm(60)
        try:
            os._exit(action() or 0)
        except BaseException:  # noqa: BLE001 - told, then the end
            traceback.print_exc()
            os._exit(1)
    return process


def write(folder, number, pipe):
    store = open_store(folder)
    os.write(pipe, b"r")
    while True:
        os.write(pipe, b"b")
        operation(number)[0](store)
        os.write(pipe, b"a")
        number += 1


def look(folder, slow, after):
    store = open_store(folder)
    held = {record.id: record.text for record in store.get(include=["text"])}
    there = held == {name: entry[0] for name, entry in after.entries.items()}
    agree(store, after if there else slow, [np.ones(DIMENSION)], k=5)
    return WITH if there else WITHOUT


def main(folder, kills):
    warnings.simplefilter("ignore", RuntimeWarning)  # LanceDB's, of forks
    rng, slow, number, writing = random.Random(2), SlowStore(), 0, 0
    made = in_child(lambda: open_store(folder, dimension=DIMENSION, backend="lancedb").close())
    assert os.waitpid(made, 0)[1] == 0
    for _ in range(kills):
        reading_end, writing_end = os.pipe()
        process = in_child(lambda first=number, pipe=writing_end: write(folder, first, pipe))
        os.close(writing_end)
        with os.fdopen(reading_end, "rb", buffering=0) as pipe:
            ready = pipe.read(1)
            said = b""
            # Some writes first, however slow the disk is.
            enough = rng.randrange(3)
            while said.count(b"a") < enough:
                more = pipe.read(1)
                assert more, "the writer failed"
                said += more
            time.sleep(rng.uniform(0, 0.15))
            os.kill(process, signal.SIGKILL)
            status = os.waitpid(process, 0)[1]
            said = (said + pipe.readall()).decode()
        assert ready == b"r", "the writer failed"
        assert os.WTERMSIG(status) == signal.SIGKILL
        for done in range(number, number + said.count("a")):
            operation(done)[1](slow)
        number += said.count("a")
        after = slow.copy()
        if said.endswith("b"):
            writing += 1
            operation(number)[1](after)
        seen = os.waitpid(in_child(lambda one=slow, other=after: look(folder, one, other)), 0)[1]
        assert os.waitstatus_to_exitcode(seen) in (WITHOUT, WITH), f"after {number} changes"
        if os.waitstatus_to_exitcode(seen) == WITH:
            number += said.endswith("b")
            slow = after
    print(writing, number)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
