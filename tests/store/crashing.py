"""Kills writers of a store, and looks at what is left; run as a program of its own.

    python crashing.py FOLDER lines|times [KILLS]

A forked child writes and says over a pipe what it begins and what is acknowledged. It is killed:
with `lines` by itself at each line of the store's own code in turn, with `times` by its parent at
random times. After each kill the store must open, hold what was acknowledged, and of the write
that was not, all or nothing. Prints how many were killed, and how many of them while they wrote.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from slow_store import SlowStore, agree

from arrowembed import store
from arrowembed.store import open_store

CODE = str(Path(store.__file__).parent)
DIMENSION = 4


def operation(number):
    """A change, from its number alone: what to do with a store and with the slow one."""
    rng = np.random.default_rng(number)
    kind = ("add", "upsert", "upsert", "delete", "delete_filter", "compact")[number % 6]
    ids = [f"{number} {i}" for i in range(rng.integers(1, 4))]
    if kind != "add":
        ids = [f"{rng.integers(max(1, number - 8), number + 1)} {i}" for i in range(4)]
    vectors = rng.normal(size=(len(ids), DIMENSION)).astype(np.float32)
    metadata = [{"number": number, "odd": bool(i % 2)} for i in range(len(ids))]
    texts = [f"text {number} {name}" for name in ids]
    if kind in ("add", "upsert"):
        return (
            lambda store: getattr(store, kind)(ids, texts, vectors=vectors, metadata=metadata),
            lambda slow: slow.put(ids, texts, vectors, metadata),
        )
    if kind == "delete":
        return lambda store: store.delete(ids), lambda slow: slow.delete(ids)
    if kind == "delete_filter":
        where = {"odd": True, "number": {"$lt": number - 5}}
        return lambda store: store.delete(filter=where), lambda slow: slow.delete(where=where)
    return lambda store: store.compact(), lambda slow: None


def die_at_line(wanted):
    """Ends this process as a kill would, at so many lines of the store's code from now."""
    left = wanted

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(CODE):
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


def child(folder, first, pipe, line):
    """Writes without end, or one change only if a line is given."""
    store = open_store(folder)
    number = first
    while True:
        os.write(pipe, b"b")
        if line:
            die_at_line(line)
        operation(number)[0](store)
        sys.settrace(None)
        os.write(pipe, b"a")
        number += 1
        if line:
            os._exit(0)


def run(folder, first, line=0, seconds=0.0):
    """Lets a child write. Returns whether it was killed, and what it said."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        try:
            child(folder, first, writing, line)
        except BaseException as error:  # noqa: BLE001 - told to the parent
            os.write(writing, repr(error).encode())
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        said = pipe.read(1)
        if not line:
            time.sleep(seconds)
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        said = (said + pipe.readall()).decode()
    if said.strip("ab") or (status and not os.WIFSIGNALED(status)):
        raise SystemExit(f"the writer failed: {said}")
    return os.WIFSIGNALED(status), said


def check(store, slow, number, said):
    """Compares with what must be there; returns what is, and whether the last write is in it."""
    acknowledged = said.count("a")
    for done in range(number, number + acknowledged):
        operation(done)[1](slow)
    number += acknowledged
    if said.endswith("b"):
        after = slow.copy()
        operation(number)[1](after)
        held = {record.id: record.text for record in store.get(include=["text"])}
        if held == {name: entry[0] for name, entry in after.entries.items()}:
            slow, number = after, number + 1
    agree(store, slow, [np.ones(DIMENSION)], k=5)
    store.verify()
    return slow, number


def warm_up():
    """Imports what the first writes import, so that not each child does."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder) / "store", dimension=DIMENSION)
        for number in range(6):
            operation(number)[0](store)


def main(folder, how, kills):
    warm_up()
    slow, number, killed, writing, line = SlowStore(), 0, 0, 0, 1
    store = open_store(folder, dimension=DIMENSION)
    rng = random.Random(1)
    while killed < kills:
        if how == "lines":
            dead, said = run(folder, number, line=line)
            line += rng.randint(1, 60)
        else:
            dead, said = run(folder, number, seconds=rng.uniform(0, 0.02))
        before = number
        slow, number = check(store, slow, number, said)
        killed += dead
        writing += dead and said.endswith("b")
        if not dead or number > before:
            line = 1
    store.delete(["nowhere"])
    files = sorted(path.name for path in store.path.glob("segments/*") if path.is_file())
    entries = json.loads((store.path / "manifest.json").read_text())["segments"]
    if len(files) != sum(3 if entry["live"] else 2 for entry in entries):
        raise SystemExit(f"the last writer left {files}")
    print(killed, writing)  # noqa: T201 - its answer


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
