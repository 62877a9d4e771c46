"""Tools as those of agent frameworks: the same names, schemas and outcomes."""

import asyncio
import json
import sys

import pytest
from langchain_core.utils.function_calling import convert_to_openai_tool

from arrowembed.errors import MissingDependencyError
from arrowembed.tools.adapters import langchain_tools, llama_index_tools

CALLS = [
    {"a": ["a cat"], "b": ["a dog", "a tax"]},
    {"a": ["a cat"]},
    {"a": ["a cat"], "b": 3},
]


@pytest.fixture
def tools(registry, embedding):
    registry.register(embedding)
    return registry


def similarity_of(tools):
    return next(tool for tool in tools if "similarity" in (getattr(tool, "name", ""), name(tool)))


def name(tool):
    return getattr(getattr(tool, "metadata", None), "name", None)


@pytest.mark.parametrize("arguments", CALLS)
def test_langchain(tools, arguments):
    made = similarity_of(langchain_tools(tools))
    expected = tools.call("similarity", arguments)
    call = {"type": "tool_call", "id": "1", "name": "similarity", "args": arguments}
    assert json.loads(made.invoke(call).content) == expected
    assert json.loads(asyncio.run(made.ainvoke(call)).content) == expected
    told = convert_to_openai_tool(made)["function"]
    assert told["name"] == "similarity"
    assert told["description"] == tools.get("similarity").description
    assert told["parameters"]["required"] == ["a", "b"]


@pytest.mark.parametrize("arguments", CALLS)
def test_llama_index(tools, arguments):
    made = similarity_of(llama_index_tools(tools))
    expected = tools.call("similarity", arguments)
    assert json.loads(made.call(**arguments).content) == expected
    assert json.loads(asyncio.run(made.acall(**arguments)).content) == expected
    told = made.metadata.to_openai_tool()["function"]
    assert told["name"] == "similarity"
    assert told["description"] == tools.get("similarity").description
    assert told["parameters"]["required"] == ["a", "b"]


@pytest.mark.parametrize("made", [langchain_tools, llama_index_tools])
def test_callers_have_the_tools_that_they_may_use(tools, made):
    names = [getattr(tool, "name", None) or name(tool) for tool in made(tools, ["read"])]
    assert names == ["embed", "similarity", "search"]


@pytest.mark.parametrize(
    ("module", "package", "made"),
    [
        ("langchain_core.tools", "langchain-core", langchain_tools),
        ("llama_index.core.tools", "llama-index-core", llama_index_tools),
    ],
)
def test_a_missing_framework_is_named(tools, monkeypatch, module, package, made):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
        made(tools)
