"""An engine's process as its driver sees it."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BENCHES = Path(__file__).parents[1]
LIMIT = 300.0
"""Seconds that an answer may take."""


class WorkerError(Exception):
    """An engine failed; says how in one line."""


class Worker:
    """An engine in its own process, which stands still between requests.

    Threads of an engine that wait by spinning would otherwise take the cores from the others.
    """

    def __init__(
        self,
        python: Path,
        settings: dict[str, Any],
        log: Path,
        *,
        module: str = "peers.worker",
        variables: Mapping[str, str] | None = None,
        without: Collection[str] = (),
    ) -> None:
        """Starts `module`, in an environment with `variables` too, but nothing of `without`."""
        self._log = log
        self._threads: int = settings["threads"]
        environment = {
            **{name: value for name, value in os.environ.items() if name not in without},
            "PYTHONPATH": str(BENCHES),
            "OMP_NUM_THREADS": str(self._threads),
            "RAYON_NUM_THREADS": str(self._threads),
            # NumPy's part is small, and its threads would only get in the way.
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "true",
            "HF_HUB_OFFLINE": "1",
            **(variables or {}),
        }
        command = [str(python), "-m", module, json.dumps(settings)]
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def __enter__(self) -> Self:
        # Its threads inherit this: nobody uses more cores than the others.
        cores = sorted(os.sched_getaffinity(0))[: self._threads]
        os.sched_setaffinity(self._process.pid, cores)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ready(self) -> dict[str, Any]:
        """What it says after its first vector.

        Raises:
            WorkerError: It could not open its model.
        """
        return self._read()

    def ask(self, **request: object) -> dict[str, Any]:
        """Lets it go on until it has answered.

        Raises:
            WorkerError: It failed, ended, or took too long.
        """
        self._process.send_signal(signal.SIGCONT)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._ending()) from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        output = self._process.stdout
        assert output is not None
        if not select.select([output], [], [], LIMIT)[0]:
            raise WorkerError(f"no answer within {LIMIT:.0f} seconds")
        line = output.readline()
        if not line:
            raise WorkerError(self._ending())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        self._process.send_signal(signal.SIGSTOP)
        return answer

    def _ending(self) -> str:
        status = self._process.wait()
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return f"the process ended {how} (see {self._log})"
