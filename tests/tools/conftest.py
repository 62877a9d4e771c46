"""Tools for the tests."""

import pytest
from dictionary_store import DictionaryStore

from arrowembed.tools import EmbeddingTool, ToolRegistry


@pytest.fixture
def store(model, tmp_path):
    """An empty store for texts."""
    return DictionaryStore.of(model, tmp_path)


@pytest.fixture
def embedding(model, store):
    """The tool with all of its actions."""
    return EmbeddingTool(model, store)


@pytest.fixture
def registry():
    """One without tools."""
    return ToolRegistry()
