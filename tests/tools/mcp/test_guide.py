"""What the guide tells people to configure can be read, and starts what it should."""

import json
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from arrowembed.cli.app import app
from arrowembed.tools.mcp.http import PATH

GUIDE = (Path(__file__).parents[3] / "docs" / "guides" / "mcp.md").read_text("utf-8")


def blocks(language):
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", GUIDE, re.MULTILINE | re.DOTALL)
    assert found
    return [text for _, text in found]


def servers(value):
    """Every server that a configuration names."""
    (servers,) = value.values()
    return list(servers.values())


CONFIGURED = [server for text in blocks("json") for server in servers(json.loads(text))] + [
    server for text in blocks("toml") for server in servers(tomllib.loads(text))
]


def starts(words):
    """Reads the words of a command, from `arrowembed` on, as the command does."""
    program, name, *arguments = words[words.index("arrowembed") :]
    assert program == "arrowembed"
    context = app.make_context(program, [name, *arguments])
    command = app.get_command(context, name)
    with command.make_context(name, arguments, parent=context) as made:
        return name, made.params


@pytest.mark.parametrize("server", CONFIGURED, ids=lambda server: server.get("command", "url"))
def test_a_configuration_starts_the_server(server, monkeypatch):
    if "url" in server:
        assert server["url"].endswith(f":8765{PATH}")
        return
    for name, value in server.get("env", {}).items():
        monkeypatch.setenv(name, value)
    name, given = starts([server["command"], *server["args"]])
    assert name == "mcp"
    assert given["transport"] == "stdio"
    assert str(given["store"]) == "~/memory"


def test_the_commands_can_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "keys.txt").touch()
    lines = [
        shlex.split(line.partition(" >> ")[0], comments=True)
        for text in blocks("sh")
        for line in text.splitlines()
        if "arrowembed mcp" in line or "arrowembed keys" in line
    ]
    read = [starts(words) for words in lines if words[:2] != ["arrowembed", "keys"]]
    assert [params["transport"] for _, params in read] == ["stdio", "http", "http"]
    assert all(str(params["store"]).endswith("/memory") for _, params in read)
    assert [words[:2] for words in lines].count(["arrowembed", "keys"]) == 1


def test_the_options_that_the_guide_names_are_there():
    context = app.make_context("arrowembed", ["mcp"])
    known = {opt for param in app.get_command(context, "mcp").params for opt in param.opts}
    named = set(re.findall(r"`(--[a-z-]+)", GUIDE))
    assert named
    assert named <= known | {"--scope"}


def test_the_example_of_an_agent_runs(minilm_folder, monkeypatch):
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (example,) = blocks("python")
    model = f'args=["mcp", "--model", {str(minilm_folder)!r}]'
    assert 'args=["mcp"]' in example
    exec(compile(example.replace('args=["mcp"]', model), "mcp.md", "exec"), {})
