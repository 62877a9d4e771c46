"""Dashboard, alerts and documentation name metrics, labels and tests that exist."""

import json
import re
from pathlib import Path

import promql_parser
import pytest
import yaml

from arrowembed.server.errors import TABLE
from arrowembed.server.observe.metrics import Metrics

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
RULES = yaml.safe_load((ROOT / "deploy/grafana/alerts.yaml").read_text())["groups"][0]["rules"]
MONITORING = (ROOT / "docs/operations/monitoring.md").read_text()
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

QUERIES = [
    *((panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]),
    *((rule["alert"], rule["expr"]) for rule in RULES),
]


def series():
    """Labels of each series, by its name."""
    suffixes = {
        "counter": ("_total",),
        "gauge": ("",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    known = {}
    for metric in vars(Metrics()).values():
        for suffix in suffixes.get(getattr(metric, "_type", None), ()):
            labels = {*metric._labelnames, *({"le"} if suffix == "_bucket" else ())}
            known[f"{metric._name}{suffix}"] = labels
    return known


SERIES = series()


def parsed(query):
    """The syntax tree of a query, with Grafana's variables filled in."""
    return promql_parser.parse(query.replace("$__rate_interval", "5m").replace("$model", ".*"))


def nodes(query):
    """All nodes of a query's syntax tree."""
    found = []
    promql_parser.walk(parsed(query), found.append)
    return found


def selectors(query):
    return [node for node in nodes(query) if isinstance(node, promql_parser.VectorSelector)]


def test_there_is_something_to_check():
    assert len(SERIES) > 25
    assert len(PANELS) > 10
    assert len(RULES) > 5


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_queries_name_series_and_labels_that_exist(title, query):
    assert selectors(query)
    for selector in selectors(query):
        assert selector.name in SERIES
        for matcher in selector.matchers.matchers:
            assert matcher.name in SERIES[selector.name]
            if matcher.name == "code":
                assert matcher.value in TABLE
    every_label = set().union(*(SERIES[selector.name] for selector in selectors(query)))
    for node in nodes(query):
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            assert set(node.modifier.labels) <= every_label


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_tell_what_is_wrong_by_labels_that_their_query_keeps(rule):
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    grouped = [
        n.modifier for n in nodes(rule["expr"]) if isinstance(n, promql_parser.AggregateExpr)
    ]
    kept = {label for modifier in grouped if modifier is not None for label in modifier.labels}
    summary = rule["annotations"]["summary"]
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= kept
    assert f"`{rule['alert']}`" in MONITORING


def test_panels_lie_side_by_side():
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_metric_is_documented_and_no_other():
    documented = set(re.findall(r"^\| `(embedding_\w+)", MONITORING, re.MULTILINE))
    exported = {re.sub("_(bucket|sum|count)$", "", name) for name in SERIES}
    assert documented == exported


def test_the_audit_names_tests_that_exist():
    audit = (ROOT / "docs/operations/security.md").read_text().partition("## Audit")[2]
    rows = [line for line in audit.splitlines() if line.startswith("|") and line.count("`test_")]
    assert len(rows) > 20
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", audit):
        assert f"def {name}(" in tests, name
