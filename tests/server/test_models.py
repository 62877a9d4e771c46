"""Models of a running service: loaded, shared out, replaced and let go."""

import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from running import replace_files, running, wait_for

from arrowembed import Embedder
from arrowembed.server import variant

TEXT = "The cat sleeps on the mat."


@pytest.fixture
def vectors(bert_folder, bert_mean_folder):
    """The vector of `TEXT` by each of two models: "cls" and "mean"."""
    return {
        "cls": Embedder(bert_folder).encode(TEXT),
        "mean": Embedder(bert_mean_folder).encode(TEXT),
    }


@pytest.fixture
def openings(monkeypatch):
    """The sources of all models that the service opens."""
    opened = []

    def opening(source, **options):
        opened.append(source)
        return Embedder(source, **options)

    monkeypatch.setattr(variant, "Embedder", opening)
    return opened


@pytest.fixture
def folder(bert_folder, tmp_path):
    """A folder that a test may put another model into; "cls" at first."""
    return shutil.copytree(bert_folder, tmp_path / "model")


def embedded(service, **options):
    answer = service.post("/embed", {"texts": TEXT, **options})
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["embeddings"][0], np.float32)


def which(vector, vectors):
    """The name of the model that a vector is of."""
    (name,) = [name for name, expected in vectors.items() if np.array_equal(vector, expected)]
    return name


def state_of(service, name):
    (model,) = [m for m in service.client.get("/models").json()["models"] if m["name"] == name]
    return [one["state"] for one in model["variants"]]


def test_a_lazy_model_is_loaded_once_by_the_first_who_ask(openings, bert_folder, vectors):
    with running(models=[{"name": "late", "source": str(bert_folder)}], lazy=True) as service:
        assert state_of(service, "late") == ["unloaded"]
        assert openings == []
        barrier = threading.Barrier(8)

        def ask():
            barrier.wait()
            return which(embedded(service), vectors)

        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask) for _ in range(8)]
            assert [answer.result() for answer in answers] == ["cls"] * 8
        assert openings == [str(bert_folder)]
        assert state_of(service, "late") == ["loaded"]


def test_a_model_that_cannot_be_loaded_is_tried_again(bert_folder, tmp_path, caplog):
    folder = tmp_path / "absent"
    with running(models=[{"name": "late", "source": str(folder), "lazy": True}]) as service:
        answer = service.post("/embed", {"texts": "a"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert answer.json()["error"]["code"] == "model_unavailable"
        assert "absent" not in answer.text
        assert str(folder) in caplog.text
        assert state_of(service, "late") == ["failed"]
        shutil.copytree(bert_folder, folder)
        embedded(service)
        assert state_of(service, "late") == ["loaded"]


def test_it_is_not_ready_before_its_models_are_loaded(monkeypatch, bert_folder):
    go_on = threading.Event()

    def opening(source, **options):
        assert go_on.wait(60)
        return Embedder(source, **options)

    monkeypatch.setattr(variant, "Embedder", opening)
    with running(models=[str(bert_folder)], wait=False) as service:
        assert service.client.get("/health").status_code == 200
        answer = service.client.get("/ready")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "loading")
        assert state_of(service, "bert") == ["loading"]
        go_on.set()
        service.wait_until_ready()
        assert state_of(service, "bert") == ["loaded"]


def test_requests_are_shared_out_by_weight(bert_folder, bert_mean_folder, vectors):
    model = {
        "name": "both",
        "source": str(bert_folder),
        "variants": [
            {"name": "cls", "weight": 3},
            {"name": "mean", "weight": 1, "source": str(bert_mean_folder)},
        ],
    }
    with running(models=[model]) as service:
        shares = [v["share"] for v in service.client.get("/models").json()["models"][0]["variants"]]
        assert shares == [0.75, 0.25]
        chosen = Counter()
        for _ in range(400):
            answer = service.post("/embed", {"texts": TEXT})
            vector = np.array(answer.json()["embeddings"][0], np.float32)
            name = answer.headers["x-model-variant"]
            assert name == which(vector, vectors)
            chosen[name] += 1
        # 300 are expected; five standard deviations are 43.
        assert 257 <= chosen["cls"] <= 343
        for name in vectors:
            pinned = service.post("/embed", {"texts": TEXT, "model": f"both@{name}"})
            assert pinned.headers["x-model-variant"] == name


def test_options_of_variants_and_models_go_before_those_of_all(bert_folder):
    model = {
        "name": "one",
        "source": str(bert_folder),
        "max_seq_length": 10,
        "prompts": {"query": "q: "},
        "variants": [
            {"name": "a"},
            {"name": "b", "max_seq_length": 12, "prompts": {"query": "Q: "}},
        ],
    }
    other = {"source": str(bert_folder), "name": "other"}
    with running(models=[model, other], max_seq_length=14, truncate_dim=8) as service:
        info = service.client.get("/models").json()["models"]
        lengths = [v["max_seq_length"] for m in info for v in m["variants"]]
        assert lengths == [10, 12, 14]
        assert embedded(service, model="other").shape == (8,)
        for name, length, prompt in (("one@a", 10, "q: "), ("one@b", 12, "Q: ")):
            alone = Embedder(bert_folder, truncate_dim=8, max_seq_length=length)
            vector = embedded(service, model=name, prompt_name="query")
            np.testing.assert_array_equal(vector, alone.encode(TEXT, prompt=prompt))


def test_reloading_under_load_fails_no_request(folder, bert_mean_folder, vectors):
    with running(models=[{"name": "one", "source": str(folder)}]) as service:
        stop, begun = threading.Event(), threading.Barrier(5)

        def ask():
            seen = [which(embedded(service), vectors)]
            begun.wait()
            while not stop.is_set():
                seen.append(which(embedded(service), vectors))
            return seen

        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(ask) for _ in range(4)]
            begun.wait()
            try:
                for _ in range(5):
                    assert service.client.post("/models/one/reload").status_code == 200
                assert which(embedded(service), vectors) == "cls"
                replace_files(folder, bert_mean_folder)
                assert service.client.post("/models/one/reload").status_code == 200
                assert which(embedded(service), vectors) == "mean"
            finally:
                stop.set()
            for answer in answers:
                seen = answer.result()
                assert seen == sorted(seen)
                assert seen[0] == "cls"


def test_a_failed_reload_leaves_the_old_files(folder, vectors):
    with running(models=[{"name": "one", "source": str(folder)}]) as service:
        broken = folder / "new"
        broken.write_bytes(b"no model")
        broken.rename(folder / "model.arrow")
        answer = service.client.post("/models/one/reload")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
        assert which(embedded(service), vectors) == "cls"
        assert state_of(service, "one") == ["loaded"]


def test_changed_files_are_noticed(folder, bert_mean_folder, vectors, openings):
    with running(models=[{"name": "one", "source": str(folder)}], watch_seconds=0.02) as service:
        assert which(embedded(service), vectors) == "cls"
        replace_files(folder, bert_mean_folder)
        wait_for(lambda: which(embedded(service), vectors) == "mean")
        opened = len(openings)
        broken = folder / "new"
        broken.write_bytes(b"no model")
        broken.rename(folder / "model.arrow")
        wait_for(lambda: len(openings) > opened)
        assert which(embedded(service), vectors) == "mean"
        shutil.copyfile(bert_mean_folder / "model.arrow", broken)
        broken.rename(folder / "model.arrow")
        wait_for(lambda: len(openings) > opened + 1)
        # The broken file was tried once.
        assert len(openings) == opened + 2


def test_a_link_that_is_pointed_elsewhere_is_noticed(
    tmp_path, bert_folder, bert_mean_folder, vectors
):
    link, new = tmp_path / "current", tmp_path / "next"
    link.symlink_to(bert_folder)
    with running(models=[{"name": "one", "source": str(link)}], watch_seconds=0.02) as service:
        assert which(embedded(service), vectors) == "cls"
        new.symlink_to(bert_mean_folder)
        new.rename(link)
        wait_for(lambda: which(embedded(service), vectors) == "mean")


def test_models_are_loaded_and_unloaded_on_request(bert_folder, vectors):
    models = [{"name": "org/one", "source": str(bert_folder), "aliases": ["1"], "lazy": True}]
    with running(models=models) as service:

        def do(what, name="org/one"):
            answer = service.client.post(f"/models/{name}/{what}")
            assert answer.status_code == 200, answer.text
            return [one["state"] for one in answer.json()["variants"]]

        assert do("unload") == ["unloaded"]
        assert do("reload") == ["unloaded"]
        assert do("load") == ["loaded"]
        assert do("load", "1") == ["loaded"]
        assert do("reload") == ["loaded"]
        assert do("unload") == ["unloaded"]
        assert which(embedded(service), vectors) == "cls"
        assert state_of(service, "org/one") == ["loaded"]
        for what in ("load", "unload", "reload"):
            answer = service.client.post(f"/models/none/{what}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_model")


def test_an_unloaded_model_answers_what_it_was_asked(bert_folder, texts):
    with running(models=[{"name": "one", "source": str(bert_folder)}], max_texts=10_000) as service:
        many = [f"{number} {text}" for number in range(50) for text in texts]
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(service.post, "/embed", {"texts": many}) for _ in range(4)]
            while not all(answer.done() for answer in answers):
                assert service.client.post("/models/one/unload").status_code == 200
            assert [answer.result().status_code for answer in answers] == [200] * 4
