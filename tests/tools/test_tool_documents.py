"""What the documents of tools say holds, and their examples run as they are written."""

import re
from pathlib import Path

from model_endpoint import endpoint

from arrowembed.tools import EmbeddingTool
from arrowembed.tools.definition import Traits
from arrowembed.tools.forms import FORMS
from arrowembed.tools.outcome import HINTS

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "api" / "tool-api.md").read_text("utf-8")
GUIDE = (DOCS / "guides" / "integration.md").read_text("utf-8")


def run(document):
    examples = re.findall(r"^```python\n(.*?)^```", document, re.MULTILINE | re.DOTALL)
    assert examples
    names = {}
    for example in examples:
        exec(compile(example, "document", "exec"), names)  # as a reader would, one after the other


def section(document, title):
    return document.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(text):
    return [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)]


def test_the_examples_of_the_reference_run(minilm_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(REFERENCE)


def test_the_examples_of_the_guide_run(minilm_source, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    remember = [("remember", {"texts": ["The user's cat is called Miez."]})]
    search = [("search", {"query": "the name of the cat"})]
    turns = [remember, "I will.", search, "Miez.", search, "Miez it is."]
    with endpoint(*turns) as model:
        for name, address in (("OPENAI", f"{model.url}/v1"), ("ANTHROPIC", model.url)):
            monkeypatch.setenv(f"{name}_API_KEY", "none")
            monkeypatch.setenv(f"{name}_BASE_URL", address)
        run(GUIDE)
    assert capsys.readouterr().out == "I will.\nMiez.\nMiez it is.\n"
    assert "cat is called Miez" in str(model.requests[-1])


def test_every_action_and_parameter_is_in_the_reference(model, tmp_path):
    actions = section(REFERENCE, "`EmbeddingTool`")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*)$", actions, re.MULTILINE))
    for tool in EmbeddingTool(model, tmp_path).tools():
        scope, parameters, result = rows[tool.name].split(" | ")
        assert scope == tool.traits.scope
        schema = tool.parameters.schema()
        assert set(schema["properties"]) <= set(re.findall(r"`(\w+)`", parameters))
        for name in tool.returns.schema()["properties"]:
            assert f"`{name}`" in result


def test_codes_forms_and_traits_are_in_the_reference():
    documented = {code for row in first_cells(section(REFERENCE, "Outcomes")) for code in row}
    own = {
        *("invalid_json", "invalid_arguments", "invalid_argument", "unknown_tool"),
        *("unknown_action", "unknown_handle", "permission_denied", "result_too_large", "timeout"),
        *("busy", "cancelled", "no_store", "internal", "invalid_result"),
    }
    assert documented == own
    assert own <= HINTS.keys()
    assert [row[0] for row in first_cells(section(REFERENCE, "Schemas"))] == list(FORMS)
    traits = [name for row in first_cells(section(REFERENCE, "Tools of your own")) for name in row]
    assert traits == list(Traits.__slots__)
