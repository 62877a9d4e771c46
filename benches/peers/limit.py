"""Has engines believe that the processor has AVX2 and nothing newer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from peers.environments import SetupError, run

SOURCE = Path(__file__).with_name("avx2.c")


def library(home: Path) -> Path:
    """What `LD_PRELOAD` loads into their processes.

    Raises:
        SetupError: It could not be compiled, or this processor cannot be limited.
    """
    made = home.absolute() / "avx2.so"
    if set(" :") & set(str(made)):
        raise SetupError(f"engines cannot be limited to AVX2 by {made}: a space or a colon")
    compiler = shutil.which("cc")
    if not compiler:
        raise SetupError("engines cannot be limited to AVX2 without a C compiler, cc")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(SOURCE)]
    run(command, home / "logs" / "avx2.log")
    # What cannot be preloaded is passed over, with a warning of the loader's.
    tried = subprocess.run(
        [sys.executable, "-c", "from arrowembed import _core; print(_core.isa())"],
        check=False,
        env=unlimited() | {"LD_PRELOAD": str(made)},
        capture_output=True,
        text=True,
    )
    if tried.returncode != 0 or tried.stdout.strip() not in {"avx2", "scalar"}:
        why = tried.stderr.strip() or f"status {tried.returncode}, {tried.stdout.strip()}"
        raise SetupError(f"engines cannot be limited to AVX2 here: {why}")
    return made


def unlimited() -> dict[str, str]:
    """The environment, without what chooses our kernels or takes the signal from the library."""
    without = ("ARROWEMBED_ISA", "PYTHONFAULTHANDLER", "PYTHONDEVMODE", "LD_PRELOAD")
    return {name: value for name, value in os.environ.items() if name not in without}
