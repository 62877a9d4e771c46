"""Tools of installed packages: real ones, in a folder of their own, sound and broken."""

import subprocess
import sys

import pytest

from arrowembed.tools import ToolRegistry

MODULE = '''
"""A package of somebody else."""

from arrowembed.tools import EmbeddingTool, Tool, tool


@tool(scope="read")
def forecast(city: str) -> str:
    """Tells the weather."""
    return f"sunny in {city}"


@tool
def embed(text: str) -> str:
    """Has a name that is taken."""
    return text


class Sensors:
    """Several tools."""

    def tools(self):
        return [Tool(self.warm), Tool(self.wet)]

    def warm(self) -> bool:
        """Tells whether it is warm."""
        return True

    def wet(self) -> bool:
        """Tells whether it is wet."""
        return False


def both():
    return [forecast_of_tomorrow, Tool(forecast, name="forecast_of_today")]


@tool
def forecast_of_tomorrow() -> str:
    """Tells the weather of tomorrow."""
    return "rain"


def fails():
    raise RuntimeError("it is broken")


nothing = 3
'''

ENTRY_POINTS = {
    "a-function": "weather_tools:forecast",
    "b-class": "weather_tools:Sensors",
    "c-list": "weather_tools:both",
    "d-taken": "weather_tools:embed",
    "e-fails": "weather_tools:fails",
    "f-nothing": "weather_tools:nothing",
    "g-no-module": "weather_tools_that_are_not_there:tool",
    "h-no-name": "weather_tools:not_there",
    "i-ends": "weather_tools_that_end:tool",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with tools."""
    site = tmp_path / "site"
    metadata = site / "weather_tools-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "weather_tools.py").write_text(MODULE)
    (site / "weather_tools_that_end.py").write_text("raise SystemExit('no licence')")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: weather-tools\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in ENTRY_POINTS.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[arrowembed.tools]", *lines, ""]))
    monkeypatch.syspath_prepend(site)
    yield site
    sys.modules.pop("weather_tools", None)


def test_tools_of_packages_are_found_and_the_broken_ones_told(package, registry, embedding):
    registry.register(embedding)
    found = {
        entry.entry_point: entry
        for entry in registry.discover()
        if entry.package == "weather-tools"
    }
    assert {name: entry.tools for name, entry in found.items() if entry.tools} == {
        "a-function": ("forecast",),
        "b-class": ("warm", "wet"),
        "c-list": ("forecast_of_tomorrow", "forecast_of_today"),
    }
    errors = {name: entry.error for name, entry in found.items() if entry.error}
    assert errors.keys() == ENTRY_POINTS.keys() - {"a-function", "b-class", "c-list"}
    for name, part in {
        "d-taken": "a tool 'embed' already",
        "e-fails": "RuntimeError: it is broken",
        "f-nothing": "found int",
        "g-no-module": "No module named 'weather_tools_that_are_not_there'",
        "h-no-name": "has no attribute 'not_there'",
        "i-ends": "SystemExit: no licence",
    }.items():
        assert part in errors[name]
    assert registry.call("forecast", {"city": "Ulm"})["result"] == "sunny in Ulm"
    assert registry.call("wet")["result"] is False


def test_they_are_found_in_a_fresh_process(package):
    program = (
        "from arrowembed.tools import ToolRegistry\n"
        "registry = ToolRegistry()\n"
        "registry.discover()\n"
        "print(registry.call('forecast', {'city': 'Ulm'})['result'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(package)!r})\n{program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "sunny in Ulm\n"


def test_the_tools_of_this_package_are_offered_too(bert_mean_folder, monkeypatch, tmp_path):
    monkeypatch.setenv("ARROWEMBED_MODEL", str(bert_mean_folder))
    registry = ToolRegistry()
    (found,) = [entry for entry in registry.discover() if entry.package == "arrowembed"]
    assert (found.entry_point, found.tools) == ("embedding", ("embed", "similarity"))
    assert registry.call("embed", {"texts": ["a"]})["ok"]
    monkeypatch.setenv("ARROWEMBED_STORE", str(tmp_path / "store"))
    registry = ToolRegistry()
    registry.discover()
    assert len(registry) == 5
