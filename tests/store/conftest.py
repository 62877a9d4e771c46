"""Stores for the tests."""

import sys

import numpy as np
import pytest
from backends import BACKENDS

from arrowembed.store import open_store

collect_ignore = []
if sys.platform == "win32":  # os.fork, POSIX signals and limits
    collect_ignore += ["test_crashes.py", "test_refused_writes.py"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    """Each backend: what is tested with it holds of all."""
    return request.param


@pytest.fixture
def make(tmp_path, backend):
    """Makes stores of three dimensions, or opens them again."""
    opened = []

    def make(name="store", **options):
        if not (tmp_path / name / "store.json").exists():
            options = {"dimension": 3, "backend": backend, **options}
        opened.append(open_store(tmp_path / name, **options))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(make):
    """An empty store of vectors of three numbers."""
    return make()


@pytest.fixture
def rng():
    """Random numbers, the same in each run."""
    return np.random.default_rng(7)
