"""The Python examples of the guides to stores, and of docstrings, run as they are written."""

import doctest
import re
from pathlib import Path

import pytest

from arrowembed import store
from arrowembed.store import base, factory

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


@pytest.mark.parametrize(("guide", "count"), [("search.md", 5), ("search-lancedb.md", 4)])
def test_the_examples_run_one_after_the_other(guide, count, minilm_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (GUIDES / guide).read_text("utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == count
    names = {}
    for example in examples:
        exec(compile(example, guide, "exec"), names)


@pytest.mark.parametrize("module", [store, base, factory])
def test_the_examples_in_docstrings(module, minilm_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0
