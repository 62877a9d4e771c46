"""One engine in a process of its own, in its own environment, driven over its standard input.

    python -m peers.worker '{"engine": "ctranslate2", "model": "PATH", "threads": 2, …}'

A line of JSON comes when the first vector has been computed, and one for each line that is read:

- `{"vectors": [text, …], "batch": 8}`: the vectors, and the token ids where the engine tells them;
- `{"texts": [text, …], "batch": 8}`: the seconds that all texts together took;
- `{"texts": [text, …], "each": true}`: the seconds that each text took, one after the other;
- `{"memory": true}`: resident and private bytes of the process, and how many were resident at most;
- `{"about": true}`: versions, and what else is worth telling.

An engine's error is answered as `{"error": "…"}`.
"""

import importlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

FIRST_TEXT = "The first text."


def memory() -> dict[str, int]:
    """Of this process; private is what it shares with no other one."""
    sizes = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        key, size, *_ = line.split()
        sizes[key] = 1024 * int(size)
    status = Path("/proc/self/status").read_text()
    return {
        "resident": sizes["Rss:"],
        "private": sizes["Private_Clean:"] + sizes["Private_Dirty:"],
        "peak": 1024 * int(status.split("VmHWM:")[1].split()[0]),
    }


def numbers(vectors: Any) -> list[list[float]]:
    return [[float(x) for x in vector] for vector in vectors]


class Session:
    """An engine that has computed its first vector."""

    def __init__(
        self, engine: str, model: str, threads: int, *, one: bool, options: dict[str, Any]
    ) -> None:
        module = importlib.import_module(f"peers.engines.{engine.replace('-', '_')}")
        self._encode = module.load(Path(model), threads, one=one, **options)
        # Pages of 4 KiB; the exact way takes longer, within what is measured as the start.
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.loaded = pages * os.sysconf("SC_PAGE_SIZE")
        self._encode([FIRST_TEXT], 1)
        self._module = module

    def about(self) -> dict[str, str]:
        versions = {name: importlib.metadata.version(name) for name in self._module.PACKAGES}
        return versions | getattr(self._module, "ABOUT", {})

    def vectors(self, texts: list[str], batch: int) -> dict[str, Any]:
        """All in one call; one by one, None for those that fail, where that call fails."""
        token_ids = getattr(self._module, "token_ids", None)
        ids: dict[str, Any] = {}
        try:
            if token_ids is not None:
                ids["ids"] = token_ids(texts)
            return {"vectors": numbers(self._encode(texts, batch)), **ids}
        except Exception as error:  # noqa: BLE001 - an engine may raise anything
            together = describe(error)
        rows: list[list[float] | None] = []
        for text in texts:
            try:
                rows += numbers(self._encode([text], 1))
            except Exception:  # noqa: BLE001 - counted by who asked
                rows.append(None)
        return {"vectors": rows, "together": together, **ids}

    def seconds(self, texts: list[str], batch: int, *, each: bool) -> list[float]:
        # What the last pause has let go cold is not the engine's.
        self._encode(texts[:1], 1)
        calls = [[text] for text in texts] if each else [texts]
        seconds = []
        for call in calls:
            started = time.perf_counter()
            self._encode(call, batch)
            seconds.append(time.perf_counter() - started)
        return seconds

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "memory" in request:
            return memory()
        if "about" in request:
            return self.about()
        if "vectors" in request:
            return self.vectors(request["vectors"], request["batch"])
        return {
            "seconds": self.seconds(
                request["texts"], request.get("batch", 1), each=request.get("each", False)
            )
        }


def describe(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def main(settings: dict[str, Any]) -> None:
    # An engine may print; the answers have a channel to themselves.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        session = Session(**settings)
    except Exception as error:  # noqa: BLE001 - an engine may raise anything
        send({"error": describe(error)})
        return
    send({"loaded": session.loaded})
    for line in sys.stdin:
        try:
            send(session.answer(json.loads(line)))
        except Exception as error:  # noqa: BLE001 - an engine may raise anything
            send({"error": describe(error)})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
