"""A conversion that is broken off leaves nothing that a loader would take."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import HF

from arrowembed import Embedder, _core, models

# Runs with the place to write to; sends itself a signal when so many tensors are done.
AT_TENSOR = """
import os, sys
from arrowembed import _core
from arrowembed_converter import conversion

source, target, number, when = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
convert = _core.convert

def interrupted(*arguments, on_progress, **options):
    def report(done, total):
        on_progress(done, total)
        if done == max(1, int(when * total)):
            os.kill(os.getpid(), number)
    return convert(*arguments, on_progress=report, **options)

conversion._core.convert = interrupted
conversion.convert_model(source, target, force=True)
"""

# No file may grow beyond 10 MB: what a full disk looks like to a writer.
ON_A_FULL_DISK = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
from arrowembed.cli import main
main()
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def assert_whole(target: Path) -> None:
    assert _core.verify(str(target)) > 0
    assert Embedder(target).encode("a text").shape == (384,)


@pytest.mark.parametrize("when", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_signal_between_tensors(minilm_source: Path, number: signal.Signals, when: float) -> None:
    target = models.home_path("interrupted")
    result = run(AT_TENSOR, minilm_source, target, number.value, when)
    assert result.returncode != 0
    assert not target.exists()
    assert "interrupted" not in [model.name for model in models.list_models()]
    if number is signal.SIGINT:
        assert "KeyboardInterrupt" in result.stderr
        assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_old_model_stays(
    minilm_source: Path, minilm_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    target = tmp_path / "target"
    _core.convert(str(minilm_folder), str(target))
    before = (target / "model.arrow").read_bytes()
    assert run(AT_TENSOR, minilm_source, target, number.value, 0.5).returncode != 0
    assert (target / "model.arrow").read_bytes() == before


def test_killed_at_random_moments(minilm_source: Path, tmp_path: Path) -> None:
    moments = random.Random(7)
    command = [sys.executable, "-m", "arrowembed_converter", "convert", str(minilm_source)]
    whole = float("inf")
    # The shorter of two: one may have shared the machine with other tests.
    for name in ("first", "second"):
        started = time.perf_counter()
        subprocess.run([*command, str(tmp_path / name), "--quiet"], check=True, timeout=120)
        whole = min(whole, time.perf_counter() - started)
    finished = 0
    for i in range(8):
        target = tmp_path / f"target{i}"
        process = subprocess.Popen([*command, str(target), "--quiet"], stderr=subprocess.DEVNULL)
        # The conversion itself is the last part of the process's life.
        time.sleep(whole * moments.uniform(0.4, 1.0))
        process.send_signal(moments.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
        process.wait(timeout=120)
        if target.exists():
            finished += 1
            assert_whole(target)
    assert finished < 8


def test_again_after_a_kill(minilm_source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    run(AT_TENSOR, minilm_source, target, signal.SIGKILL.value, 0.5)
    assert not target.exists()
    _core.convert(str(minilm_source), str(target))
    assert_whole(target)


def test_full_disk(minilm_source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "target"
    result = run(ON_A_FULL_DISK, "convert", minilm_source, target)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    assert str(target.parent) in result.stderr
    assert list(target.parent.iterdir()) == []


def test_full_disk_keeps_the_old_model(minilm_source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "target"
    _core.convert(str(HF / "bert"), str(target))
    result = run(ON_A_FULL_DISK, "convert", minilm_source, target, "--force")
    assert result.returncode == 1
    assert _core.verify(str(target)) > 0
    assert [path.name for path in target.parent.iterdir()] == ["target"]
