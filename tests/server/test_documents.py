"""What the reference of the service says holds."""

import re
from pathlib import Path

import numpy as np
import pytest
from running import running

from arrowembed import Embedder, errors
from arrowembed.errors import ArrowEmbedError
from arrowembed.server import read_settings
from arrowembed.server.errors import TABLE, code_of, told

API = Path(__file__).parents[2] / "docs" / "api"
REFERENCE = (API / "http-api.md").read_text("utf-8")
DIALECTS = (API / "dialects.md").read_text("utf-8")


def examples(language, document=REFERENCE):
    return re.findall(rf"^```{language}\n(.*?)^```", document, re.MULTILINE | re.DOTALL)


def test_every_error_stands_in_the_reference_with_its_status():
    documented = {
        code: int(status)
        for status, codes in re.findall(r"^\| (\d{3}) \| (.*?) \|", REFERENCE, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert documented == {code: kind.http for code, kind in TABLE.items()}


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_of_the_package_is_answered_as_itself(name):
    kind = getattr(errors, name)
    assert told(kind("what went wrong")).code == kind.code


def test_narrower_and_unknown_errors_are_answered_as_the_nearest():
    error = errors.ModelFileError("damaged")
    error.code = "checksum_mismatch"
    assert code_of(error) == "invalid_file"
    assert code_of(ArrowEmbedError("anything")) == "error"
    assert code_of(ZeroDivisionError()) == "internal"


def test_statuses_of_grpc_are_known():
    grpc = {
        *("INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "CANCELLED"),
        *("FAILED_PRECONDITION", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"),
        *("UNAVAILABLE", "INTERNAL"),
    }
    assert {kind.grpc for kind in TABLE.values()} == grpc


def test_the_examples_of_settings_are_some(tmp_path):
    models, stores = examples("toml")
    file = tmp_path / "settings.toml"
    file.write_text(f"{models}\n{stores}")
    settings = read_settings(config=file)
    (store,) = settings.stores
    assert store.model == "search"
    first, second = settings.models
    assert first.aliases == ["small", "text-embedding-3-small"]
    assert [variant.weight for variant in second.variants] == [9, 1]


def test_the_example_in_python_runs(bert_mean_folder):
    (code,) = examples("python")
    with running(models=[str(bert_mean_folder)]) as service:
        exec(code.replace("http://127.0.0.1:8080", service.url), {})


def test_the_examples_of_other_clients_run(bert_mean_folder, monkeypatch):
    # Else Hugging Face's client does not even ask this machine.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    model = {"name": "all-MiniLM-L6-v2", "source": str(bert_mean_folder)}
    codes = examples("python", DIALECTS)
    assert len(codes) == 3
    with running(models=[model]) as service:
        for code in codes:
            names = {}
            exec(code.replace("http://127.0.0.1:8080", service.url), names)
            assert np.shape(names["vectors"]) == (2, Embedder(bert_mean_folder).dimension)
            names["client"].close()
