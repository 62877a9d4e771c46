"""Models from the hub: the real client against a server on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import HF, Command
from hub_server import HubServer, Repository, files_of
from safetensors.numpy import load
from torch_files import checkpoint_of

from arrowembed import Embedder

NAME = "sentence-transformers/tiny"
MAIN = files_of(HF / "bert")
OTHER = files_of(HF / "bert-mean")
TOKEN = "hf_averysecrettoken"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    repositories = {
        NAME: Repository({"main": MAIN, "v2": OTHER}),
        "someone/gated": Repository({"main": MAIN}, gated=True),
    }
    with HubServer(repositories, token=TOKEN) as server:
        yield server


def assert_vectors_of(folder: str, target: Path) -> None:
    """The model in `target` computes what the fixture `folder` says."""
    texts = json.loads((HF / folder / "texts.json").read_text(encoding="utf-8"))["texts"]
    with np.load(HF / folder / "expected.npz") as expected:
        vectors = Embedder(target).encode(texts)
        np.testing.assert_allclose(vectors, expected["embeddings"], rtol=0, atol=2e-6)


def assert_one_clear_error(result: object, *parts: str) -> None:
    status, output, errors = (getattr(result, n) for n in ("returncode", "stdout", "stderr"))
    assert status == 1
    assert output == ""
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    for part in parts:
        assert part in errors


def test_downloads_converts_and_encodes(hub: HubServer, command: Command, tmp_path: Path) -> None:
    target = tmp_path / "tiny"
    result = command("convert", NAME, target, "--dtype", "float32", HF_ENDPOINT=hub.endpoint)
    assert result.returncode == 0, result.stderr
    assert_vectors_of("bert", target)
    fetched = {request.path.rpartition("/")[2] for request in hub.requests}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    assert not {"expected.npz", "texts.json", "meta.json"} & fetched


def test_short_name_goes_to_sentence_transformers_and_into_the_home(
    hub: HubServer, command: Command, tmp_path: Path
) -> None:
    result = command("convert", "tiny", "--json", HF_ENDPOINT=hub.endpoint)
    assert result.returncode == 0, result.stderr
    target = tmp_path / "home" / "models" / "tiny"
    assert json.loads(result.stdout)["target"] == str(target)
    assert json.loads((target / "metadata.json").read_text(encoding="utf-8"))["name"] == "tiny"


def test_second_time_comes_from_the_cache(hub: HubServer, command: Command, tmp_path: Path) -> None:
    first = command("convert", NAME, tmp_path / "a", HF_ENDPOINT=hub.endpoint)
    assert first.returncode == 0, first.stderr
    hub.requests.clear()
    again = command("convert", NAME, tmp_path / "b", HF_ENDPOINT=hub.endpoint)
    assert again.returncode == 0, again.stderr
    assert hub.requests == []
    hub.stop()
    offline = command("convert", NAME, tmp_path / "c", HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr


def test_offline_never_asks(hub: HubServer, command: Command) -> None:
    result = command("convert", NAME, "--local-files-only", HF_ENDPOINT=hub.endpoint)
    assert_one_clear_error(result, "not asked", NAME)
    assert hub.requests == []


def test_revision(hub: HubServer, command: Command, tmp_path: Path) -> None:
    for revision, folder in (("main", "bert"), ("v2", "bert-mean")):
        target = tmp_path / revision
        result = command(
            *("convert", NAME, target, "--revision", revision, "--dtype", "float32"),
            HF_ENDPOINT=hub.endpoint,
        )
        assert result.returncode == 0, result.stderr
        assert_vectors_of(folder, target)


def test_unknown_revision(hub: HubServer, command: Command) -> None:
    result = command("convert", NAME, "--revision", "v9", HF_ENDPOINT=hub.endpoint)
    assert_one_clear_error(result, "has no revision 'v9'")


def test_unknown_repository(hub: HubServer, command: Command) -> None:
    result = command("convert", "someone/nothing", HF_ENDPOINT=hub.endpoint)
    assert_one_clear_error(result, "no such repository", "someone/nothing")


@pytest.mark.parametrize("given", ["option", "variable"])
def test_token_opens_a_gated_repository_and_stays_secret(
    hub: HubServer, command: Command, tmp_path: Path, given: str
) -> None:
    arguments = ["--token", TOKEN] if given == "option" else []
    variables = {"HF_TOKEN": TOKEN} if given == "variable" else {}
    result = command(
        *("convert", "someone/gated", tmp_path / "gated", *arguments),
        HF_ENDPOINT=hub.endpoint,
        HF_DEBUG="1",
        **variables,
    )
    assert result.returncode == 0, result.stderr
    asked = [request for request in hub.requests if "someone/gated" in request.path]
    own = [request for request in asked if request.host.startswith("127.0.0.1")]
    others = [request for request in asked if not request.host.startswith("127.0.0.1")]
    assert {request.authorization for request in own} == {f"Bearer {TOKEN}"}
    assert others, "the weights are redirected to another host"
    assert {request.authorization for request in others} == {None}
    assert TOKEN not in result.stdout + result.stderr
    written = (path for path in tmp_path.rglob("*") if path.is_file())
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)


def test_gated_without_token(hub: HubServer, command: Command) -> None:
    result = command("convert", "someone/gated", HF_ENDPOINT=hub.endpoint)
    assert_one_clear_error(result, "access is restricted", "token")


def test_wrong_token_is_not_shown(hub: HubServer, command: Command) -> None:
    result = command(
        *("--debug", "convert", "someone/gated", "--token", "hf_wrongtoken"),
        HF_ENDPOINT=hub.endpoint,
    )
    assert result.returncode != 0
    assert "access is restricted" in result.stderr
    assert "hf_wrongtoken" not in result.stdout + result.stderr


def test_hub_is_gone(hub: HubServer, command: Command) -> None:
    hub.stop()
    result = command("convert", NAME, HF_ENDPOINT=hub.endpoint)
    assert_one_clear_error(result, "could not be reached")


def test_hub_is_out_of_order(hub: HubServer, command: Command) -> None:
    hub.broken = True
    result = command("convert", NAME, HF_ENDPOINT=hub.endpoint)
    assert_one_clear_error(result, "could not be reached", "500")


def test_pickled_weights_only_where_there_are_no_others(
    hub: HubServer, command: Command, tmp_path: Path
) -> None:
    pickled = checkpoint_of(load(MAIN["model.safetensors"])).write(tmp_path / "x.bin").read_bytes()
    both = MAIN | {"pytorch_model.bin": b"never fetched"}
    only = {name: content for name, content in MAIN.items() if name != "model.safetensors"}
    hub.repositories["someone/both"] = Repository({"main": both})
    hub.repositories["someone/only"] = Repository({"main": only | {"pytorch_model.bin": pickled}})
    for name in ("both", "only"):
        target = tmp_path / name
        result = command(
            *("convert", f"someone/{name}", target, "--dtype", "float32"), HF_ENDPOINT=hub.endpoint
        )
        assert result.returncode == 0, result.stderr
        assert_vectors_of("bert", target)
    asked = {request.path for request in hub.requests if "pytorch_model" in request.path}
    assert len(asked) > 0
    assert all("only" in path for path in asked)


def test_pickled_weights_of_a_dense_module(
    hub: HubServer, command: Command, tmp_path: Path
) -> None:
    files = files_of(HF / "gemma3-embedding")
    dense = load(files.pop("2_Dense/model.safetensors"))
    pickled = checkpoint_of(dense).write(tmp_path / "x.bin").read_bytes()
    files |= {"2_Dense/pytorch_model.bin": pickled, "pytorch_model.bin": b"never fetched"}
    hub.repositories["someone/dense"] = Repository({"main": files})
    target = tmp_path / "target"
    result = command(
        *("convert", "someone/dense", target, "--dtype", "float32"), HF_ENDPOINT=hub.endpoint
    )
    assert result.returncode == 0, result.stderr
    assert_vectors_of("gemma3-embedding", target)
    asked = {request.path for request in hub.requests if "pytorch_model" in request.path}
    assert len(asked) > 0
    assert all("2_Dense" in path for path in asked)


@pytest.mark.parametrize("missing", ["tokenizer.json", "modules.json"])
def test_what_a_cache_lacks_is_fetched(
    hub: HubServer, command: Command, tmp_path: Path, missing: str
) -> None:
    """A download was broken off, or another library fetched only what it needed."""
    first = command("convert", NAME, tmp_path / "a", HF_ENDPOINT=hub.endpoint)
    assert first.returncode == 0, first.stderr
    [snapshot] = (tmp_path / "hf" / "hub").glob("models--*/snapshots/*")
    (snapshot / missing).unlink()
    again = command("convert", NAME, tmp_path / "b", "--dtype", "float32", HF_ENDPOINT=hub.endpoint)
    assert again.returncode == 0, again.stderr
    assert_vectors_of("bert", tmp_path / "b")
