"""Every engine's own virtual environment, under `.peers`, made once from its lock file."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from peers.lines import OWN

REQUIREMENTS = Path(__file__).parent / "requirements"


class SetupError(Exception):
    """An environment or a model could not be made; says why in one line."""


def run(command: list[str], log: Path, **variables: str) -> None:
    """Runs a program whose output goes to a file.

    Raises:
        SetupError: It failed; has its last line.
    """
    with log.open("w") as output:
        done = subprocess.run(
            command,
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
        )
    if done.returncode != 0:
        lines = log.read_text().strip().splitlines()
        raise SetupError(f"{lines[-1] if lines else f'status {done.returncode}'} (see {log})")


def python(home: Path, name: str, requirements: Path = REQUIREMENTS) -> Path:
    """The interpreter of an environment, which is made where there is none yet.

    Its lock file is in `requirements`.

    Raises:
        SetupError: It could not be made.
    """
    if name == OWN:
        return Path(sys.executable)
    lock = requirements / f"{name}.lock"
    folder = home / "environments" / name
    # Made again when another version of anything is wanted.
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    stamp = folder / "made-from"
    interpreter = folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    print(f"{name}: installing", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    log = home / "logs" / f"install-{name}.log"
    run([sys.executable, "-m", "venv", str(folder)], log)
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run([*pip, "install", "-r", str(lock)], log)
    stamp.write_text(wanted)
    return interpreter
