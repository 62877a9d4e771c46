"""What the tests of commands share."""

import subprocess
from collections.abc import Callable
from pathlib import Path

HF = Path(__file__).parent.parent / "data" / "hf"
"""Tiny models with random weights and expected vectors."""

Command = Callable[..., subprocess.CompletedProcess[str]]
"""`command(*arguments, **variables)`: see the fixture."""
