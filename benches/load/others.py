"""Other services that embed texts, as their users run them."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peers import environments
from peers.models import Models

from arrowembed_converter import sources
from load.clients import REQUIREMENTS
from load.service import CORES, Service, running


@dataclass(frozen=True)
class Other:
    """A service that answers POSTs to /embed."""

    name: str
    field: str
    """Where in a body it looks for the texts; ours takes them from there, too."""
    running: Callable[[Path], AbstractContextManager[Service]]
    """Runs it, with a file for what it prints."""


def others(home: Path, tei: Path | None) -> Iterator[Other]:
    """Those that there are: text-embeddings-inference only if its program is given."""
    source = sources.locate("all-MiniLM-L6-v2")
    model = Models(home, {"source": source}).find("onnx/fused")
    yield _fastembed(home, model)
    if tei is not None:
        yield _tei(home, tei.absolute(), model)


def _fastembed(home: Path, model: Path) -> Other:
    python = environments.python(home, "fastembed-service", REQUIREMENTS)
    command = [str(python), "-m", "uvicorn", "load.fastembed_service:app", "--port", "{port}"]
    command += ["--log-level", "warning"]
    variables = {
        "FASTEMBED_MODEL": str(model),
        "FASTEMBED_THREADS": str(CORES),
        "HF_HUB_OFFLINE": "1",
    }
    return Other("FastAPI and fastembed", "texts", partial(running, command, variables=variables))


def _tei(home: Path, program: Path, model: Path) -> Other:
    """Its settings are its own, but for the pooling, which these files do not tell.

    A build with the feature `ort`, which is what its image takes for a model with an ONNX file. One
    that opens ONNX Runtime when it starts is given that which `make bench-peers` installed.
    """
    command = [str(program), "--model-id", str(model), "--pooling", "mean"]
    command += ["--hostname", "127.0.0.1", "--port", "{port}"]
    variables = {}
    library = next(home.glob("environments/onnxruntime/**/libonnxruntime.so.*"), None)
    if library is not None and "ORT_DYLIB_PATH" not in os.environ:
        variables["ORT_DYLIB_PATH"] = str(library)
    return Other(
        "text-embeddings-inference",
        "inputs",
        partial(running, command, ready="/health", variables=variables),
    )
