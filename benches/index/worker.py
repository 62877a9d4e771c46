"""One engine in a process of its own, in its own environment, driven over its standard input.

    python -m index.worker '{"engine": "faiss float32", "folder": "PATH", "threads": 2}'

A line of JSON comes when the vectors are there, and one for each line that is read:
`{"count": 64, "k": 10}` searches with the first 64 queries, and answers with the seconds that it
took and the rows that it found.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from index.engines import ENGINES


def main(settings: dict[str, Any]) -> None:
    # An engine may print; the answers have a channel to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    folder = Path(settings["folder"])
    try:
        search = ENGINES[settings["engine"]](folder, settings["threads"])
    except Exception as error:  # noqa: BLE001 - an engine may raise anything
        send({"error": f"{type(error).__name__}: {error}"})
        return
    queries = np.load(folder / "queries.npy")
    send({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        some = queries[: request["count"]]
        try:
            # What the last pause has let go cold is not the engine's.
            search(some[:1], 1)
            started = time.perf_counter()
            rows = search(some, request["k"])
            seconds = time.perf_counter() - started
        except Exception as error:  # noqa: BLE001 - an engine may raise anything
            send({"error": f"{type(error).__name__}: {error}"})
        else:
            send({"seconds": seconds, "rows": rows.tolist()})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
