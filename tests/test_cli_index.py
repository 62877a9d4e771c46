"""`arrowembed index`: from files to stores, and what is found in them."""

import datetime as dt
import decimal
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from arrowembed.cli.app import app
from arrowembed.cli.entries import Fields, read_entries
from arrowembed.store import open_store

TEXTS = ["the cat sleeps", "taxes are due in May", "a dog barks"]


@pytest.fixture
def run(bert_mean_folder, monkeypatch, tmp_path):
    """Runs a command of `index` in a folder of its own, on the tiny model."""
    monkeypatch.setenv("ARROWEMBED_MODEL", str(bert_mean_folder))
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments, stdin=None, status=0):
        result = CliRunner().invoke(app, ["index", *map(str, arguments)], input=stdin)
        assert result.exit_code == status, result.output
        return result.output

    return invoke


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Writes a file and reads its entries."""
    monkeypatch.chdir(tmp_path)

    def entries(name, content, form=None, **fields):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_entries([file.relative_to(tmp_path)], form, Fields(**fields)))

    return entries


def content(folder):
    with open_store(folder) as store:
        return {record.id: (record.text, record.metadata) for record in store.get()}


def refused(read, *arguments, **fields):
    with pytest.raises(ValueError, match=r".") as caught:
        read(*arguments, **fields)
    return str(caught.value)


@pytest.mark.parametrize("backend", ["lightweight", "lancedb"])
def test_from_a_file_to_what_is_found(run, backend):
    lines = [{"id": i, "text": text, "year": 2000 + i} for i, text in enumerate(TEXTS)]
    Path("f.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = run("build", "st", "f.jsonl", "--id-field", "id", "--backend", backend)
    assert "3 entries put in; 3 in all" in out
    assert content("st")["1"] == (TEXTS[1], {"year": 2001})
    (best, *_) = run("search", "st", TEXTS[2], "-k", 2).splitlines()
    assert best.split(maxsplit=2) == ["1.0000", "2", TEXTS[2]]
    assert run("search", "st", TEXTS[2], "-k", 1, "--mode", "vector").splitlines() == [best]
    out = run("search", "st", TEXTS[2], "--filter", '{"year": {"$lt": 2002}}', "--format", "jsonl")
    found = [json.loads(line) for line in out.splitlines()]
    assert {hit["id"] for hit in found} == {"0", "1"}
    assert found[0]["metadata"]["year"] in (2000, 2001)
    info = json.loads(run("info", "st", "--json"))
    assert (info["backend"], info["count"]) == (backend, 3)
    assert f"backend               {backend}" in run("info", "st")
    assert "1 entries deleted" in run("delete", "st", "0", "nowhere")
    assert "1 entries deleted" in run("delete", "st", "--filter", '{"year": 2001}')
    assert "1 entries" in run("compact", "st")
    other = "lancedb" if backend == "lightweight" else "lightweight"
    assert "other: 1 entries" in run("migrate", "st", "other", "--backend", other)
    assert content("other") == {"2": (TEXTS[2], {"year": 2002})}


def test_ids_are_places_and_adding_takes_care_of_them(run):
    Path("t.txt").write_text("one\n\n two \r\nthree")
    run("build", "st", "t.txt")
    assert content("st") == {
        "t.txt:1": ("one", {}),
        "t.txt:3": (" two ", {}),
        "t.txt:4": ("three", {}),
    }
    assert "is in the store already" in run("add", "st", "t.txt", status=1).replace(
        "more are", "is"
    )
    Path("t.txt").write_text("eins\n\n zwei\nthree\nfour\n")
    out = run("add", "st", "t.txt", "--on-duplicate", "skip")
    assert "1 entries put in, 3 were there already; 4 in all" in out
    assert content("st")["t.txt:1"][0] == "one"
    assert "4 entries put in; 4 in all" in run("add", "st", "t.txt", "--on-duplicate", "replace")
    assert content("st")["t.txt:1"][0] == "eins"
    run("add", "st", "-", stdin="piped\n")
    assert content("st")["-:1"][0] == "piped"


def test_building_where_there_is_a_store(run):
    Path("t.txt").write_text("".join(f"text {i}\n" for i in range(30)))
    run("build", "st", "t.txt")
    message = run("build", "st", "t.txt", status=1)
    assert "has 30 entries already; go on with --resume" in message
    run("delete", "st", "t.txt:7", "t.txt:30")
    out = run("build", "st", "t.txt", "--resume")
    assert "2 entries put in, 28 were there already; 30 in all" in out
    assert "make one: arrowembed index build no" in run("search", "no", "x", status=1)
    assert "make one: arrowembed index build no" in run("add", "no", "t.txt", status=1)


def test_vectors_that_are_there_are_not_computed(run, model):
    vectors = model.encode(TEXTS)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({"text": TEXTS, "embedding": column}), "v.parquet")
    run("build", "st", "v.parquet", "--vector-field", "embedding")
    assert run("search", "st", TEXTS[1], "-k", 1).startswith(" 1.0000  v.parquet:2")
    run("build", "vectors", "v.parquet", "--vector-field", "embedding", "--no-model")
    with open_store("vectors") as store:
        assert store.description.model is None
        assert store.search(vectors[2], 1)[0].text == TEXTS[2]
    Path("short.jsonl").write_text(json.dumps({"v": [1, 2]}))
    message = run("add", "st", "short.jsonl", "--vector-field", "v", status=1)
    assert "short.jsonl, line 1: a vector of 2 numbers; those of the store have" in message
    assert "no vectors; name them" in run("build", "x", "v.parquet", "--no-model", status=2)


def test_an_index_is_made_where_it_can_be(run):
    Path("t.txt").write_text("".join(f"text of a number, {i}\n" for i in range(300)))
    run("build", "plain", "t.txt")
    assert "which needs no index" in run("create-index", "plain", status=1)
    run("migrate", "plain", "st", "--backend", "lancedb")
    run("create-index", "st", "--kind", "ivf_flat")
    run("create-index", "st", "--kind", "text")
    query = ("search", "st", "text of a number, 77", "-k", 1)
    for options in (["--exact"], ["--nprobes", 99], ["--mode", "hybrid"]):
        assert "t.txt:78 " in run(*query, *options)
    assert "t.txt:78 " in run("search", "st", "77", "--mode", "text", "-k", 1)
    assert "no such option" in run("search", "plain", "x", "--nprobes", 3, status=1)


def test_wrong_filters_are_told(run):
    Path("t.txt").write_text("one\n")
    run("build", "st", "t.txt")
    assert "--filter: no JSON" in run("search", "st", "x", "--filter", "{", status=2)
    assert "filter.a.$like: unknown" in run(
        "search", "st", "x", "--filter", '{"a": {"$like": 1}}', status=1
    )
    assert "name ids, or give --filter" in run("delete", "st", status=2)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_that_is_killed_goes_on(tmp_path, bert_mean_folder):
    with (tmp_path / "t.txt").open("w") as file:
        file.writelines(f"text number {i}, and some more words\n" for i in range(10_000))
    command = [sys.executable, "-m", "arrowembed", "index", "build", "st", "t.txt"]
    command += ["--model", str(bert_mean_folder)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "st" / "store.json").exists():
        time.sleep(0.01)
    while process.poll() is None and len(open_store(tmp_path / "st")) < 3 * 1024:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    there = len(open_store(tmp_path / "st"))
    assert 3 * 1024 <= there < 10_000
    done = subprocess.run(
        [*command, "--resume"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (
        f"{10_000 - there} entries put in, {there} were there already; 10000 in all" in done.stdout
    )
    assert len(content(tmp_path / "st")) == 10_000


def test_lines_csv_and_json_lines_are_read(read):
    assert [entry.text for entry in read("a.txt", "a\r\n \nb")] == ["a", "b"]
    (first, second) = read("t.csv", '\ufeffkey,text,lang\nx,"a ""b""\n c",en\n\ny,d,', id="key")
    assert (first.id, first.text, first.metadata) == ("x", 'a "b"\n c', {"lang": "en"})
    assert (second.id, second.metadata) == ("y", {"lang": ""})
    (entry,) = read("t.tsv", "text\tn\n" + "x" * 200_000 + "\t1\n", metadata=("n",))
    assert (len(entry.text), entry.metadata) == (200_000, {"n": "1"})
    lines = '{"text": "é", "a": {"b": [1, null]}, "c": null}\n\n{"text": "2", "id": 7}'
    (first, second) = read("t.jsonl", lines)
    assert (first.id, first.metadata) == ("t.jsonl:1", {"a": {"b": [1, None]}})
    assert (second.id, second.metadata) == ("t.jsonl:3", {"id": 7})
    (_, second) = read("t.jsonl", '{"text": "1", "id": "a"}\n{"text": "2", "id": 7}', id="id")
    assert (second.id, second.metadata) == ("7", {})
    (entry,) = read("other", '{"body": "x", "n": 1, "m": 2}', "jsonl", text="body", metadata=("m",))
    assert (entry.text, entry.metadata) == ("x", {"m": 2})


def test_parquet_and_arrow_are_read(read, tmp_path):
    table = pa.table(
        {
            "text": ["a", "b"],
            "day": [dt.date(2020, 1, 2), None],
            "price": [decimal.Decimal("1.50"), None],
            "n": pa.array([1, None], pa.int64()),
            "x": [float("nan"), 0.5],
            "tags": [["p", "q"], []],
            "point": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(str(tmp_path / "s.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("t.parquet", "t.arrow", "s.arrow"):
        (first, second) = read(name, None)
        assert (first.id, second.id) == (f"{name}:1", f"{name}:2")
        assert first.metadata == {
            "day": "2020-01-02",
            "price": "1.50",
            "n": 1,
            "tags": ["p", "q"],
            "point": [1.0, 2.0],
        }
        assert second.metadata == {"x": 0.5, "tags": [], "point": [3.0, 4.0]}
        vectors = [entry.vector for entry in read(name, None, vector="point")]
        np.testing.assert_array_equal(vectors, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("name", "text", "fields", "message"),
    [
        ("a.txt", b"ok\n\xff\n", {}, "a.txt, line 2: not UTF-8"),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": 1}',
            {},
            "line 2: the field 'text' holds no text but int",
        ),
        ("a.jsonl", '{"body": "a"}', {}, "line 1: no text in the field 'text', only 'body'"),
        ("a.jsonl", "{}", {}, "line 1: no text in the field 'text', only nothing"),
        ("a.jsonl", '{"text": "a"', {}, "a.jsonl, line 1: no JSON"),
        ("a.jsonl", "[" * 100_000, {}, "a.jsonl, line 1: no JSON"),
        ("a.jsonl", "[1]", {}, "line 1: expected an object"),
        ("a.jsonl", '{"text": "a"}', {"id": "key"}, "line 1: no id in the field 'key'"),
        ("a.jsonl", '{"text": "a", "key": [1]}', {"id": "key"}, "holds no id but list"),
        ("a.jsonl", '{"text": "a", "key": ""}', {"id": "key"}, "line 1: an id has 1 to 1024 bytes"),
        ("a.jsonl", '{"text": "a", "$x": 1}', {}, "line 1: .* a key is a non-empty string"),
        ("a.jsonl", '{"text": "a", "x": 99999999999999999999}', {}, "line 1: x: an integer beyond"),
        ("a.jsonl", '{"text": "a", "v": "x"}', {"vector": "v"}, "the field 'v' holds no vector"),
        ("a.jsonl", '{"text": "a"}', {"vector": "v"}, "the field 'v' holds no"),
        ("a.jsonl", '{"v": [1, [2]]}', {"vector": "v"}, "the field 'v' holds no vector"),
        ("a.jsonl", '{"v": [1, NaN]}', {"vector": "v"}, "no list of finite numbers"),
        ("a.csv", "text,n\na,1\nb\n", {}, "a.csv, line 3: 1 fields, and 2 in the first line"),
        ("a.csv", 'text\n"a', {}, "a.csv, line 2: unexpected end of data"),
        ("a.csv", "body\na\n", {}, "line 2: no text in the field 'text', only 'body'"),
        ("a.parquet", "no parquet", {}, "a.parquet: "),
        ("a.arrow", "no arrow at all", {}, "a.arrow: "),
    ],
)
def test_what_is_wrong_in_a_file_is_told_with_its_place(read, name, text, fields, message):
    import re

    assert re.search(message, refused(read, name, text, **fields))


def test_an_id_that_comes_twice_is_told_with_both_places(run):
    Path("t.jsonl").write_text('{"text": "a", "id": 1}\n{"text": "b", "id": "1"}\n')
    message = run("build", "st", "t.jsonl", "--id-field", "id", status=1)
    assert "t.jsonl, line 2: the id '1' comes twice, first in t.jsonl, line 1" in message


def test_tables_are_not_read_from_standard_input(run):
    message = run("build", "st", "-", "--format", "parquet", stdin="x", status=1)
    assert "cannot be read from standard input" in message
