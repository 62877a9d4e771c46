"""Has clients put a service under load, and reads what they measured.

They share the machine with the service, so what they take of it is missing to the service. wrk is
written in C and takes some hundredths of what locust does; locust is there because it comes with
pip, and because clients of other kinds are quickly written for it.
"""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peers import environments

FOLDER = Path(__file__).parent
REQUIREMENTS = FOLDER / "requirements"
PATH = "/embed"


@dataclass(frozen=True)
class Load:
    """What clients send: each the next request when the last one is answered."""

    clients: int
    texts: int
    """In each request."""


@dataclass(frozen=True)
class Measured:
    """What clients saw."""

    requests_per_second: float
    p50: float
    """Milliseconds, as the next."""
    p99: float
    failures: int
    cpu_seconds: float
    """Processor time that they took themselves."""


Send = Callable[[str, Load, Path, int], Measured]
"""Puts the service at an address under a load of bodies from a file, for some seconds."""


def generator(name: str, home: Path) -> Send:
    """What sends requests: "wrk" or "locust"."""
    if name == "locust":
        return partial(_locust, environments.python(home, "locust", REQUIREMENTS))
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk, or take --clients locust")
    return _wrk


def _wrk(url: str, load: Load, bodies: Path, seconds: int) -> Measured:
    command = ["wrk", "-t", "1", "-c", str(load.clients), "-d", f"{seconds}s"]
    command += ["--timeout", "60s", "-s", str(FOLDER / "wrk.lua"), url]
    output, cpu_seconds = _run(command, bodies)
    stats = json.loads(output.splitlines()[-1])
    rate = stats["requests"] / stats["seconds"]
    return Measured(rate, stats["p50"], stats["p99"], stats["failures"], cpu_seconds)


def _locust(python: Path, url: str, load: Load, bodies: Path, seconds: int) -> Measured:
    """In one process of clients, as the machine is small."""
    command = [str(python), "-m", "locust", "-f", str(FOLDER / "locustfile.py"), "--headless"]
    command += ["--json", "--host", url, "-u", str(load.clients), "-r", str(load.clients)]
    command += ["-t", f"{seconds}s", "--reset-stats", "--loglevel", "ERROR"]
    output, cpu_seconds = _run(command, bodies)
    [stats] = json.loads(output)
    times = {float(time): number for time, number in stats["response_times"].items()}
    took = stats["last_request_timestamp"] - stats["start_time"]
    return Measured(
        stats["num_requests"] / took,
        _percentile(times, 0.5),
        _percentile(times, 0.99),
        stats["num_failures"],
        cpu_seconds,
    )


def _run(command: list[str], bodies: Path) -> tuple[str, float]:
    """What a program writes, and the processor time that it took."""
    variables = {"BODIES": str(bodies), "REQUEST_PATH": PATH}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | variables
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not done.stdout.strip():
        raise SystemExit(f"{command[0]} failed with status {done.returncode}: {done.stderr}")
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, cpu_seconds


def _percentile(times: dict[float, int], share: float) -> float:
    """Of a histogram."""
    left = share * sum(times.values())
    for value in sorted(times):
        left -= times[value]
        if left <= 0:
            return value
    return 0.0
