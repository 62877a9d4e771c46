"""Models for the tests, and isolation from the user's own files and settings."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

# Read when NumPy is first imported. The reference's matrices are small: on a busy machine, BLAS
# threads that wait for each other make it ten times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from arrowembed import Embedder, _core, models

DATA = Path(__file__).parent / "data"
HF = DATA / "hf"

# What other platforms do not have: /proc, os.fork, POSIX signals.
collect_ignore = []
if sys.platform != "linux":
    collect_ignore += ["test_memory.py", "test_peers.py"]
if sys.platform == "win32":
    collect_ignore += ["test_fork.py", "test_interrupt.py"]


@pytest.fixture(autouse=True)
def _isolated(tmp_path, monkeypatch):
    """No test sees or changes the user's models, caches or settings, or asks the network."""
    monkeypatch.setenv("ARROWEMBED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ARROWEMBED_SHARED_DIR", str(tmp_path / "shared"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "ARROWEMBED_MODEL"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory):
    """A tiny random BERT, CLS pooling, converted in float32."""
    return _convert(HF / "bert", tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def bert_mean_folder(tmp_path_factory):
    """A tiny random BERT, mean pooling, converted in float32."""
    return _convert(HF / "bert-mean", tmp_path_factory.mktemp("models") / "bert-mean")


@pytest.fixture(scope="session")
def prompted_folder(tmp_path_factory):
    """The same with prompts."""
    source = tmp_path_factory.mktemp("source") / "prompted"
    shutil.copytree(HF / "bert-mean", source)
    configuration = source / "config_sentence_transformers.json"
    settings = json.loads(configuration.read_text())
    settings["prompts"] = {"query": "query: ", "passage": "passage: ", "empty": ""}
    configuration.write_text(json.dumps(settings))
    return _convert(source, tmp_path_factory.mktemp("models") / "prompted")


@pytest.fixture(scope="session")
def model(bert_mean_folder):
    """The tiny mean-pooling model; its cache is off so that every call computes."""
    return Embedder(bert_mean_folder, cache_size=0)


@pytest.fixture(scope="session")
def minilm_source():
    """The real all-MiniLM-L6-v2 as Hugging Face has it, from the installed package."""
    return models.find("all-MiniLM-L6-v2", local_files_only=True)


@pytest.fixture(scope="session")
def minilm_folder(minilm_source, tmp_path_factory):
    """The real model, converted in float16, which is the default."""
    target = tmp_path_factory.mktemp("models") / "all-MiniLM-L6-v2"
    _core.convert(str(minilm_source), str(target), name="all-MiniLM-L6-v2")
    return target


@pytest.fixture
def copy_of(tmp_path):
    """Copies a model's folder, so that a test may damage it."""

    def copy(folder):
        return Path(shutil.copytree(folder, tmp_path / "copies" / folder.name))

    return copy


@pytest.fixture(scope="session")
def texts():
    """Fifteen texts of many kinds: empty, accents, CJK, emoji, too long, special tokens."""
    return json.loads((HF / "bert-mean" / "texts.json").read_text("utf-8"))["texts"]


def _convert(source: Path, target: Path) -> Path:
    _core.convert(str(source), str(target), dtype="float32")
    return target
