"""The Python examples of the guide to stores, and of docstrings, run as they are written."""

import doctest
import re
from pathlib import Path

import pytest

from arrowembed import store
from arrowembed.store import base, factory

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "search.md"


def test_the_examples_run_one_after_the_other(minilm_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    examples = re.findall(
        r"^```python\n(.*?)^```", GUIDE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(examples) == 5
    names = {}
    for example in examples:
        exec(compile(example, GUIDE.name, "exec"), names)


@pytest.mark.parametrize("module", [store, base, factory])
def test_the_examples_in_docstrings(module, minilm_source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0
