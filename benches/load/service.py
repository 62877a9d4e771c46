"""A service in a process of its own."""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

BENCHES = Path(__file__).parents[1]
CORES = len(os.sched_getaffinity(0))
TICKS = os.sysconf("SC_CLK_TCK")
LIMIT = 60.0
"""Seconds that a start may take."""


@dataclass(frozen=True)
class Service:
    """A running service."""

    port: int
    process: "subprocess.Popen[bytes]"
    start_seconds: float
    """From the start of the process until it was ready."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resident(self, kind: str = "Pss") -> int:
        """Bytes of memory of its processes, what they share counted once.

        Of the kinds of /proc/PID/smaps_rollup, "Pss_Anon" is what belongs to no file.
        """
        pids = [self.process.pid, *children(self.process.pid)]
        return sum(proportional(pid, kind) for pid in pids)

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time that its process has taken, by what it was for."""
        taken = {"computing": 0.0, "event loop": 0.0, "other threads": 0.0}
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            name, seconds = of_thread(task)
            taken[name] += seconds
        return taken


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def of_thread(task: Path) -> tuple[str, float]:
    """What a thread is for, and the seconds that it has taken."""
    _, name, numbers = re.split(r"[(](.*)[)]", (task / "stat").read_text(), maxsplit=1)
    user, system = numbers.split()[11:13]
    kind = "other threads"
    if re.fullmatch(r"arrowembed-\d+", name):
        kind = "computing"
    elif task.name == task.parents[1].name:
        kind = "event loop"
    return kind, (int(user) + int(system)) / TICKS


def proportional(pid: int, kind: str) -> int:
    """Bytes of a process, of those that it shares its part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"/proc/{pid}/smaps_rollup has no {kind}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def is_ready(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def running(
    command: list[str],
    log: Path,
    *,
    ready: str = "/ready",
    variables: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """Runs a program with `{port}` replaced by a free port, until it is no longer needed."""
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in command]
    environment = os.environ | {"PYTHONPATH": str(BENCHES), **(variables or {})}
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        while not is_ready(port, ready):
            if process.poll() is not None or time.perf_counter() - started > LIMIT:
                raise SystemExit(f"the service did not start; see {log}")
            time.sleep(0.005)
        yield Service(port, process, time.perf_counter() - started)
    finally:
        process.terminate()
        process.wait()


def own(model: Path, log: Path, *arguments: str) -> AbstractContextManager[Service]:
    """`arrowembed serve`."""
    command = [sys.executable, "-m", "arrowembed", "serve", str(model), "--port", "{port}"]
    return running([*command, *arguments], log)
