"""The Python examples of the guides run as they are written."""

import re
from pathlib import Path

import pytest

GUIDES = Path(__file__).parent.parent / "docs" / "guides"


@pytest.mark.parametrize("guide", ["many-callers.md", "memory-and-registry.md", "sharing.md"])
def test_the_examples_of_a_guide_run(guide, minilm_source):
    examples = re.findall(
        r"^```python\n(.*?)^```", (GUIDES / guide).read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert examples
    names = {}
    for example in examples:
        exec(compile(example, guide, "exec"), names)  # as a reader would, one after the other
