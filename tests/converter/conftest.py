"""What the converter's tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import HF, Command

# Signals and limits of POSIX.
collect_ignore = ["test_interruption.py"] if sys.platform == "win32" else []


@pytest.fixture
def bert() -> Path:
    """A tiny BERT with random weights, pooled by its first token."""
    return HF / "bert"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables for a command that sees nothing of this user's models, caches and tokens."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING", "ARROWEMBED_"))
    }
    return kept | {
        "HOME": str(tmp_path / "user"),
        "HF_HOME": str(tmp_path / "hf"),
        "ARROWEMBED_HOME": str(tmp_path / "home"),
        "NO_PROXY": "*",
    }


@pytest.fixture
def command(environment: dict[str, str]) -> Command:
    """Runs `arrowembed ARGUMENTS`, with further variables as keywords."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "arrowembed_converter", *map(str, arguments)],
            env=environment | variables,
            capture_output=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )

    return run
