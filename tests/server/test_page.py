"""How the built-in page is served; what it does is tested in a browser, see `browser`."""

import re

import pytest
from running import running

from arrowembed.server.security.keys import new_key


@pytest.fixture(scope="module")
def page(service):
    return service.client.get("/")


def test_the_page_needs_nothing_from_elsewhere(service, page):
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert {"page/page.js", "page/page.css", "page/icon.svg", "docs"} == set(wanted)
    kinds = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    for path in wanted:
        answer = service.client.get(f"/{path}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kinds.get(path[-3:].strip("."), "text/"))
    modules = set(re.findall(r'from "./(\w+.js)"', service.client.get("/page/page.js").text))
    assert modules == {"search.js", "service.js"}
    for file in ("page.js", "page.css", *modules):
        answer = service.client.get(f"/page/{file}")
        assert answer.status_code == 200
        assert not re.search(r"https?:|//[a-z]", answer.text)


def test_nothing_that_is_written_into_it_is_run(service, page):
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script>|<style|\son[a-z]+=|style=", page.text)
    assert page.headers["x-content-type-options"] == "nosniff"
    assert service.client.head("/").status_code == 200
    answer = service.client.put("/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert service.client.get("/page/../app.py").status_code == 404
    assert service.client.get("/page/%2e%2e/app.py").status_code == 404


def test_the_page_is_for_everybody_and_what_it_asks_for_is_not(bert_mean_folder):
    _, kept = new_key("client", ["embed"])
    with running(models=[str(bert_mean_folder)], api_keys=kept.entry()) as service:
        assert service.client.get("/").status_code == 200
        assert service.client.get("/page/page.js").status_code == 200
        assert service.client.get("/info").status_code == 401
        # The same path, for clients of text-embeddings-inference.
        assert service.post("/", {"inputs": "a"}).status_code == 401
