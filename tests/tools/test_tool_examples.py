"""The examples of agents run as they are written, without a key and without a network."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def printed(minilm_folder, monkeypatch, capsys):
    """Runs an example and gives what it printed."""
    monkeypatch.syspath_prepend(EXAMPLES)
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(variable, raising=False)

    def printed(name):
        monkeypatch.setattr(sys, "argv", [name, "--model", str(minilm_folder)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return printed


def test_an_agent_with_a_memory(printed):
    output = printed("agent_memory.py")
    assert "agent: You told me: I am allergic to peanuts." in output
    assert "agent: You told me: My cat is called Miez and sleeps all day." in output
    # The model's wrong calls were told how to put them right.
    assert "query is missing; question is unknown" in output
    assert "search: 4 calls" in output


def test_the_tools_of_an_operating_system(printed):
    output = printed("ai_os_registry.py")
    assert "Anna is on leave" in output
    for code in ("permission_denied", "unknown_tool", "invalid_arguments", "timeout"):
        assert code in output
    assert "memory_remember" not in output.split("for guests:")[1].splitlines()[0]


def test_an_agent_of_langchain(printed):
    output = printed("langchain_agent.py")
    assert '"text": "The user\'s cat is called Miez."' in output
    assert output.endswith("Your pet is called Miez.\n")


# LlamaIndex looks at all attributes of pydantic's models.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_agent_of_llamaindex(printed):
    output = printed("llamaindex_agent.py")
    assert '"text": "The user\'s cat is called Miez."' in output
    assert output.endswith("Your pet is called Miez.\n")
