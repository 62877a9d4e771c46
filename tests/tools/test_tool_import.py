"""What importing the tools takes, and what is said where a package is missing."""

import subprocess
import sys

import pytest

import arrowembed.tools


def test_every_name_is_there():
    assert dir(arrowembed.tools) == arrowembed.tools.__all__
    for name in arrowembed.tools.__all__:
        assert getattr(arrowembed.tools, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        arrowembed.tools.nothing  # noqa: B018


def test_nothing_is_imported_before_it_is_used():
    program = (
        "import sys, arrowembed.tools; "
        "print([name for name in ('asyncio', 'numpy', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("package", ["pydantic", "docstring_parser", "typing_extensions"])
def test_a_missing_package_is_named_with_its_extra(package):
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from arrowembed.errors import MissingDependencyError\n"
        "try:\n"
        "    from arrowembed.tools import ToolRegistry\n"
        "    ToolRegistry().register(print)\n"
        "except MissingDependencyError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert f'needs {package}: pip install "arrowembed[tools]"' in done.stdout
