"""Has engines believe that the processor has AVX2 and nothing newer."""

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
    made = home / "avx2.so"
    compiler = shutil.which("cc")
    if not compiler:
        raise SetupError("engines cannot be limited to AVX2 without a C compiler, cc")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(made), str(SOURCE)]
    run(command, home / "logs" / "avx2.log")
    tried = subprocess.run(
        [sys.executable, "-c", ""],
        check=False,
        env={"LD_PRELOAD": str(made)},
        capture_output=True,
        text=True,
    )
    if tried.returncode != 0:
        why = tried.stderr.strip() or f"status {tried.returncode}"
        raise SetupError(f"engines cannot be limited to AVX2 here: {why}")
    return made
