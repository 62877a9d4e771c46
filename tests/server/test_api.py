"""The service does what its OpenAPI document says, and nothing that is sent to it breaks it."""

import os
import subprocess
import sysconfig
from pathlib import Path
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from running import running

from arrowembed import Embedder
from arrowembed.server.security.keys import new_key
from arrowembed.store import open_store

CONFIG = Path(__file__).with_name("openapi")
EXAMPLES = os.environ.get("ARROWEMBED_TEST_EXAMPLES", "3")
"""Of made-up requests for each route; `make test-api` asks for more."""


@pytest.fixture(scope="module")
def tiny(bert_mean_folder):
    return Embedder(bert_mean_folder)


def test_the_service_does_what_its_document_says(bert_mean_folder, tiny, tmp_path):
    with open_store(tmp_path / "store", model=tiny) as store:
        store.add(["a", "b"], ["A first text.", "A second one."], metadata=[{"year": 2024}, {}])
    key, kept = new_key("schemathesis", ["embed", "search", "admin"])
    prompts = {"query": "query: ", "passage": "passage: "}
    source = str(bert_mean_folder)
    models = [
        {"name": "tiny", "source": source, "prompts": prompts, "aliases": ["small"]},
        # The name in the document's examples.
        {"name": "all-MiniLM-L6-v2", "source": source, "prompts": prompts},
    ]
    command = [
        str(Path(sysconfig.get_path("scripts")) / "schemathesis"),
        *("--no-color", "--config-file", str(CONFIG / "schemathesis.toml"), "run"),
        *("--checks", "all", "--max-examples", EXAMPLES),
        *("--seed", "1") * (EXAMPLES == "3"),
    ]
    vocabulary = str(tiny.info()["vocab_size"])
    hooks = str(CONFIG / "hooks.py")
    environment = {
        "API_KEY": key,
        "VOCABULARY": vocabulary,
        "DIMENSION": str(tiny.dimension),
        "SCHEMATHESIS_HOOKS": hooks,
    }
    with running(models=models, api_keys=kept.entry(), stores=[str(tmp_path / "store")]) as service:
        operations = sum(map(len, service.app.openapi()["paths"].values()))
        ran = subprocess.run(
            [*command, f"{service.url}/openapi.json"],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
            text=True,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"Tested: {operations}\n" in ran.stdout


NAUGHTY = [
    "",
    " ",
    "\t\r\n",
    "\0",
    "a\0b",
    "\x01\x02\x1b[31m\x7f\x80\x9f",
    "\ufeff\ufffe\uffff\U0010ffff",
    "\u200b\u200c\u200d\u2060\u00ad\u180e",
    "\u202eright to left\u202c \u2066isolated\u2069",
    "\u0628\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea",
    "Z\u0351\u036b\u0343\u036a\u0302a\u0346\u0365lgo" * 3,
    "e\u0301 \u00e9 \ufb01 \u017f \u0131 \u0130 \u1e9e \u00df",
    "\uff21\uff22\uff23 \u2460 \u00bd \u2167 \u33a5",
    "\u4e2d\u6587 \u65e5\u672c\u8a9e \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22 \u0939\u093f\u0928",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308",
    "\U0001f1fa\U0001f1f3 \U0001f44d\U0001f3fd 1\ufe0f\u20e3",
    "\U00020000\U0002a6d6\U000e0001",
    "\ue000\uf8ff\U000f0000",
    "[CLS] [SEP] [PAD] [MASK] [UNK] <s> </s> ##ing \u2581",
    "NaN Infinity -0 1e999 0x7fffffff 9223372036854775808",
    "null undefined None nil true",
    "'; DROP TABLE users; -- \" OR 1=1",
    "<script>alert(1)</script>&lt;&#0;",
    "../../../etc/passwd %00 %n%s%d {0} ${HOME} $(id) `id` {{7*7}}",
    '\\ \\\\ \\u0000 \\ud800 "quoted" {"json": [1]}',
    "\u2028\u2029\u0085\x0b\x0c",
    "a" * 5_000,
    "\u0301" * 5_000,
    "a " * 3_000,
    "\U0001f600" * 2_000,
]


@pytest.fixture(scope="module")
def routes():
    """A request with texts for every route that takes some, by path."""
    return {
        "/embed": lambda texts: {"texts": texts},
        "/": lambda texts: {"inputs": texts, "truncate": True},
        "/tokenize": lambda texts: {"texts": texts},
        "/similarity": lambda texts: {"source": texts[0], "targets": texts},
        "/v1/embeddings": lambda texts: {"model": "tiny", "input": texts, "truncate": True},
        "/api/embed": lambda texts: {"model": "tiny", "input": texts},
        "/api/embeddings": lambda texts: {"model": "tiny", "prompt": texts[0]},
    }


def vectors_in(answer):
    """All vectors of an answer, in any dialect."""
    if isinstance(answer, list):
        return answer
    if "data" in answer:
        return [each["embedding"] for each in answer["data"]]
    return answer.get("embeddings") or [answer.get("embedding", [])]


def test_naughty_texts(service, routes, tiny):
    for path, request in routes.items():
        for text in NAUGHTY:
            answer = service.post(path, request([text]))
            if path == "/v1/embeddings" and text == "":
                assert answer.status_code == 400
                continue
            assert answer.status_code == 200, (path, text[:40], answer.text)
            if path in ("/embed", "/", "/v1/embeddings", "/api/embed") and text:
                (vector,) = vectors_in(answer.json())
                expected = tiny.encode(text, normalize=None if path == "/embed" else "l2")
                np.testing.assert_array_equal(np.float32(vector), expected)
    together = service.post("/embed", {"texts": NAUGHTY})
    np.testing.assert_array_equal(np.float32(vectors_in(together.json())), tiny.encode(NAUGHTY))


def test_naughty_names(service):
    for name in NAUGHTY:
        short = name[:200]
        for path, fields in (
            ("/embed", {"texts": "a", "model": short}),
            ("/embed", {"texts": "a", "prompt_name": short}),
            ("/embed", {"texts": "a", short: short}),
            ("/v1/embeddings", {"model": short, "input": "a"}),
            ("/api/show", {"model": short}),
        ):
            answer = service.post(path, fields)
            assert answer.status_code in (400, 404, 422), (path, short, answer.text)
            assert answer.json()["error"]
        answer = service.client.get(f"/v1/models/{quote(short, safe='')}")
        assert answer.status_code == 404, short


MALFORMED = {
    "alone": b"\x80",
    "cut": b"\xe2\x82",
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "Latin-1": b"\xfcber",
    "no byte of UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("broken", MALFORMED.values(), ids=MALFORMED)
def test_malformed_utf8(service, routes, broken):
    known = service.client.get("/openapi.json").json()["paths"]
    taking_bodies = {
        path for path, kinds in known.items() if "requestBody" in kinds.get("post", {})
    }
    assert taking_bodies > set(routes)
    headers = {"content-type": "application/json"}
    for path in taking_bodies:
        for body in (
            b'{"texts": "' + broken + b'"}',
            b'{"model": "tiny", "input": ["a", "' + broken + b'"]}',
            b'{"' + broken + b'": 1}',
            broken,
        ):
            answer = service.client.post(path, content=body, headers=headers)
            assert answer.status_code == 400, (path, body)
            assert "not UTF-8 at byte" in answer.text


def test_other_encodings_and_malformed_heads(service):
    headers = {"content-type": "application/json; charset=utf-16"}
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        body = '{"texts": "a"}'.encode(encoding)
        answer = service.client.post("/embed", content=body, headers=headers)
        assert answer.status_code == 400, encoding
    for name in ("content-type", "accept", "authorization", "x-api-key", "x-request-id"):
        for value in (b"\xff\xfe", b"a" * 4_000, b""):
            answer = service.client.post(
                "/embed", content=b'{"texts": "a"}', headers=[(name.encode(), value)]
            )
            assert answer.status_code in (200, 415), (name, value)
    for path in (b"/v1/models/%ff%fe", b"/%00", b"/v1/models/..%2f..%2f", b"/page/%2e%2e/app.py"):
        url = httpx.URL(service.url).copy_with(raw_path=path)
        assert service.client.get(url).status_code == 404, path
    url = httpx.URL(service.url).copy_with(raw_path=b"/embed?prompt=%ff&model=tiny")
    assert service.client.post(url, json={"texts": "a"}).status_code == 200
