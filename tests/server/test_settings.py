"""Settings of the service: where they come from, and what is wrong with them."""

import pickle
import re

import pytest
from click.testing import CliRunner

from arrowembed.cli.app import app
from arrowembed.errors import InvalidArgumentError
from arrowembed.server import ServerSettings, read_settings
from arrowembed.server.settings import flag_of, variable_of


@pytest.fixture
def file(tmp_path):
    """Writes a file of settings."""

    def write(text):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return path

    return write


def test_arguments_go_before_variables_and_these_before_the_file(file, monkeypatch):
    config = file("port = 1\nmax_texts = 2\nmax_text_chars = 3\n")
    monkeypatch.setenv("ARROWEMBED_PORT", "4")
    monkeypatch.setenv("ARROWEMBED_MAX_TEXTS", "5")
    settings = read_settings(config=config, port="6")
    assert (settings.port, settings.max_texts, settings.max_text_chars) == (6, 5, 3)
    monkeypatch.setenv("ARROWEMBED_CONFIG", str(config))
    assert read_settings().max_text_chars == 3


def test_without_models_it_is_the_default_one(monkeypatch):
    (model,) = read_settings().models
    assert (model.name, model.source) == ("all-MiniLM-L6-v2", "all-MiniLM-L6-v2")
    monkeypatch.setenv("ARROWEMBED_MODEL", "/models/mine")
    assert read_settings().models[0].source == "/models/mine"


def test_models_are_named(tmp_path, monkeypatch):
    folder, file, odd = tmp_path / "folder", tmp_path / "model.q4.gguf", tmp_path / "a=b"
    folder.mkdir()
    odd.mkdir()
    file.touch()
    for given, name, source in (
        (str(folder), "folder", str(folder)),
        (f"{folder}/", "folder", f"{folder}/"),
        (str(file), "model.q4", str(file)),
        ("organisation/model", "organisation/model", "organisation/model"),
        ("sentence-transformers/model", "model", "sentence-transformers/model"),
        (f"mine={folder}", "mine", str(folder)),
        ({"name": "mine"}, "mine", "mine"),
        ({"source": str(file)}, "model.q4", str(file)),
    ):
        (model,) = read_settings(models=[given]).models
        assert (model.name, model.source) == (name, source)
    monkeypatch.setenv("ARROWEMBED_MODELS", f"{folder}, mine={file}")
    assert [model.name for model in read_settings().models] == ["folder", "mine"]
    monkeypatch.setenv("ARROWEMBED_MODELS", '[{"name": "one", "aliases": ["two"]}]')
    assert read_settings().models[0].aliases == ["two"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": "http"}, r"^port: .*integer.* \(--port, ARROWEMBED_PORT\)$"),
        ({"port": 65536}, "^port: .*65535"),
        ({"request_seconds": 0}, "^request_seconds: .*greater than 0"),
        ({"request_seconds": "nan"}, "^request_seconds: .*finite"),
        ({"compute": "int4"}, "^compute: .*'int8'"),
        ({"no_such": 1}, "^no_such: there is no such setting$"),
        ({"config": "no/such/file"}, "^config: .*file.* ARROWEMBED_CONFIG"),
        ({"models": []}, "^models: none is given$"),
        ({"models": ["a b"]}, "^models.0.name: .*pattern"),
        ({"models": [{}]}, "^models.0.name: Field required"),
        ({"models": [{"name": "a", "no_such": 1}]}, "^models.0.no_such: Extra"),
        ({"models": ["a=x", "a=y"]}, "^models: 'a' is the name or alias of more than one$"),
        ({"models": [{"name": "a", "aliases": ["b"]}, "b"]}, "^models: 'b' is the name"),
        ({"models": ["a"], "default_model": "b"}, "^default_model: 'b' is none of a$"),
        (
            {"models": [{"name": "a", "variants": [{"name": "x"}, {"name": "x"}]}]},
            "two variants of 'a' have the same name",
        ),
        (
            {"models": [{"name": "a", "variants": [{"name": "x", "weight": 0}]}]},
            "^models.0.variants.0.weight: .*greater than 0",
        ),
    ],
    ids=str,
)
def test_wrong_settings_are_named(given, message):
    with pytest.raises(InvalidArgumentError, match=message):
        read_settings(**given)


def test_wrong_files_are_named(file, monkeypatch):
    with pytest.raises(InvalidArgumentError, match=r"^config: no TOML: .*line 1"):
        read_settings(config=file("port 8080"))
    with pytest.raises(InvalidArgumentError, match=r"^prt: there is no such setting"):
        read_settings(config=file("prt = 8080"))
    monkeypatch.setenv("ARROWEMBED_MODELS", "[")
    with pytest.raises(InvalidArgumentError, match=r"^models: "):
        read_settings()


def test_help_shows_every_setting():
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"})
    assert "Undefined" not in shown.output
    assert shown.exit_code == 0
    text = re.sub(r"\s+", " ", shown.output)
    for name, field in ServerSettings.model_fields.items():
        if name == "models":
            continue
        assert f"{flag_of(name)} " in text
        assert f"[{variable_of(name)}" in text
        assert re.sub(r"\s+", " ", field.description) in text


def test_wrong_options_are_named():
    result = CliRunner().invoke(app, ["serve", "--port", "http"])
    assert result.exit_code == 1
    assert result.output.startswith("error: port: ")
    result = CliRunner().invoke(app, ["serve", "--no-such"])
    assert result.exit_code == 2


def test_settings_can_be_handed_to_other_processes():
    settings = read_settings(models=[{"name": "a", "variants": [{"name": "x"}]}], lazy=True)
    assert pickle.loads(pickle.dumps(settings)) == settings
