"""Has locust put a service under load, and reads what it measured."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
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


def percentile(times: dict[float, int], share: float) -> float:
    """Of a histogram."""
    left = share * sum(times.values())
    for value in sorted(times):
        left -= times[value]
        if left <= 0:
            return value
    return 0.0


def send(python: Path, url: str, load: Load, bodies: Path, seconds: int) -> Measured:
    """Puts a service under load, in one process of clients, as the machine is small."""
    command = [str(python), "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--json"]
    command += ["--host", url, "-u", str(load.clients), "-r", str(load.clients)]
    command += ["-t", f"{seconds}s", "--reset-stats", "--loglevel", "ERROR"]
    variables = {"BODIES": str(bodies), "REQUEST_PATH": PATH}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | variables
    )
    [stats] = json.loads(done.stdout)
    times = {float(time): number for time, number in stats["response_times"].items()}
    took = stats["last_request_timestamp"] - stats["start_time"]
    return Measured(
        stats["num_requests"] / took,
        percentile(times, 0.5),
        percentile(times, 0.99),
        stats["num_failures"],
    )
