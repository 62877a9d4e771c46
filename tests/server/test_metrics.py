"""Metrics count what was done, in one process and in several."""

import os
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest
from exposition import Exposition, scrape
from prometheus_client.mmap_dict import MmapedDict
from running import running, wait_for

from arrowembed.server.errors import TABLE

EXPECTED = {
    "embedding_batch_texts": "histogram",
    "embedding_batch_tokens": "histogram",
    "embedding_cache_hits": "counter",
    "embedding_cache_misses": "counter",
    "embedding_errors": "counter",
    "embedding_memory_usage_bytes": "gauge",
    "embedding_model_load_seconds": "histogram",
    "embedding_model_memory_bytes": "gauge",
    "embedding_queue_depth": "gauge",
    "embedding_queue_tokens": "gauge",
    "embedding_queue_wait_seconds": "histogram",
    "embedding_rate_limit_store_failures": "counter",
    "embedding_rate_limited": "counter",
    "embedding_request": "counter",
    "embedding_request_duration_seconds": "histogram",
    "embedding_requests_in_progress": "gauge",
    "embedding_search_seconds": "histogram",
    "embedding_texts": "counter",
    "embedding_tokens": "counter",
    "embedding_truncated": "counter",
}


@pytest.fixture
def fresh(bert_mean_folder):
    """A service that nobody has asked for anything."""
    with running(models=[{"name": "tiny", "source": str(bert_mean_folder)}]) as service:
        yield service


def test_all_metrics_are_there_before_the_first_request(fresh):
    families = {
        family.name: family.type
        for family in scrape(fresh.client).families.values()
        if not family.name.endswith("_created")
    }
    assert families == EXPECTED


def test_texts_tokens_and_cache_are_counted(fresh, texts):
    usages = [fresh.post("/embed", {"texts": part}).json()["usage"] for part in (texts, texts[:4])]
    assert [usage["cached"] for usage in usages] == [0, 4]
    assert usages[0]["truncated"] > 0
    seen = scrape(fresh.client)
    for name, field in (
        ("embedding_texts_total", "texts"),
        ("embedding_tokens_total", "tokens"),
        ("embedding_truncated_total", "truncated"),
        ("embedding_cache_hits_total", "cached"),
    ):
        assert seen.total(name, model="tiny") == sum(usage[field] for usage in usages), name
    assert seen.total("embedding_cache_misses_total", model="tiny") == len(texts)
    # The second request waited for nothing.
    assert seen.total("embedding_queue_wait_seconds_count", model="tiny") == 1
    assert seen.total("embedding_request_duration_seconds_count", route="/embed") == 2
    assert seen.total("embedding_request_total", route="/embed", model="tiny", status="200") == 2


def test_batches_are_those_of_the_scheduler(fresh, texts):
    usage = fresh.post("/embed", {"texts": texts}).json()["usage"]
    seen = scrape(fresh.client)
    assert seen.total("embedding_batch_texts_sum", model="tiny") == len(texts)
    assert seen.total("embedding_batch_tokens_sum", model="tiny") == usage["tokens"]
    batches = seen.total("embedding_batch_texts_count", model="tiny")
    assert 1 <= batches <= len(texts)
    assert seen.total("embedding_batch_tokens_count", model="tiny") == batches


def test_loading_and_memory(fresh):
    weights = fresh.app.state.models.default.variants[0].current.embedder.info()["weights_bytes"]
    fresh.post("/embed", {"texts": "a"})
    seen = scrape(fresh.client)
    assert seen.total("embedding_model_load_seconds_count", model="tiny") == 1
    assert seen.total("embedding_model_memory_bytes", model="tiny") == weights
    assert seen.total("embedding_memory_usage_bytes", kind="cache") > 0
    assert seen.total("embedding_memory_usage_bytes", kind="anonymous") > 1_000_000
    assert seen.total("embedding_requests_in_progress") == 1
    fresh.client.post("/models/tiny/reload")
    fresh.client.post("/models/tiny/unload")
    seen = scrape(fresh.client)
    assert seen.total("embedding_model_load_seconds_count", model="tiny") == 2
    assert seen.total("embedding_model_memory_bytes", model="tiny") == 0
    assert seen.total("embedding_memory_usage_bytes", kind="cache") == 0


def test_errors_are_counted_by_their_code(fresh):
    for path, fields, code in (
        ("/embed", {"texts": 7}, "invalid_request"),
        ("/embed", {"texts": ["a"] * 101}, "too_many_texts"),
        ("/embed", {"texts": "a", "model": "other"}, "unknown_model"),
        ("/nowhere", {}, "not_found"),
    ):
        before = scrape(fresh.client).total("embedding_errors_total", code=code)
        assert fresh.error(path, fields)[1]["code"] == code
        after = scrape(fresh.client).total("embedding_errors_total", code=code)
        assert (before, after) == (0, 1)


def test_labels_take_few_values_whatever_is_asked(fresh):
    for number in range(20):
        fresh.client.get(f"/path-{number}")
        fresh.client.post(f"/models/name-{number}/load")
        fresh.client.get(f"/embed?query={number}")
        fresh.post("/embed", {"texts": "a", "model": f"model-{number}"})
        fresh.client.request(f"METHOD{number}", "/embed")
    seen = scrape(fresh.client)
    assert seen.values("model") == {"", "tiny"}
    assert seen.values("code") == set(TABLE)
    assert seen.values("kind") == {"anonymous", "cache"}
    assert seen.values("route") <= {
        "none",
        "/ready",
        "/metrics",
        "/embed",
        "/models/{name:path}/load",
    }
    assert seen.values("status") <= {"200", "400", "404", "405", "422", "503"}


def test_a_client_that_does_not_wait_is_counted_as_such(fresh):
    host, port = fresh.client.base_url.host, fresh.client.base_url.port
    with socket.create_connection((host, port)) as client:
        client.sendall(
            b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        wait_for(lambda: scrape(fresh.client).total("embedding_requests_in_progress") == 2)
    wait_for(lambda: scrape(fresh.client).total("embedding_requests_in_progress") == 1)
    seen = scrape(fresh.client)
    statuses = {
        sample.labels["status"]: sample.value
        for sample in seen.samples
        if sample.name == "embedding_request_total" and sample.labels["route"] == "/embed"
    }
    assert statuses == {"499": 1}


def test_variants_are_told_apart(bert_folder, bert_mean_folder):
    variants = [
        {"name": "a", "source": str(bert_folder)},
        {"name": "b", "source": str(bert_mean_folder)},
    ]
    model = {"name": "both", "source": str(bert_folder), "variants": variants}
    with running(models=[model]) as service:
        for name in ("both@a", "both@b", "both@b"):
            assert service.post("/embed", {"texts": ["a", "b"], "model": name}).status_code == 200
        seen = scrape(service.client)
        assert seen.total("embedding_texts_total", model="both@a") == 2
        assert seen.total("embedding_texts_total", model="both@b") == 4
        assert seen.total("embedding_model_load_seconds_count") == 2


def test_openmetrics_is_spoken_too(fresh):
    answer = fresh.client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    plain = fresh.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=")


def counted_by(folder, process):
    """Requests for vectors that one worker has written down."""
    path = folder / f"counter_{process}.db"
    if not path.exists():
        return 0
    values = MmapedDict.read_all_values_from_file(str(path))
    return sum(value for key, value, *_ in values if re.search(r'"/embed".*"200"', key))


def children_of(process):
    return set(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def metrics_folder(process):
    try:
        environment = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return None  # it has just ended
    prefix = b"PROMETHEUS_MULTIPROC_DIR="
    return next(
        (Path(e[len(prefix) :].decode()) for e in environment if e.startswith(prefix)), None
    )


def two_workers_of(service):
    """The processes that answer, with their folder for metrics, once there are two."""
    found = {child: metrics_folder(child) for child in children_of(service.popen.pid)}
    workers = {
        child: folder
        for child, folder in found.items()
        if folder is not None and (folder / f"counter_{child}.db").exists()
    }
    return workers if len(workers) == 2 else None


def test_several_workers_are_one_service_and_a_dead_one_is_forgotten(process, bert_mean_folder):
    service = process("--workers", 2, f"tiny={bert_mean_folder}")
    workers = wait_for(lambda: two_workers_of(service))
    (folder,) = set(workers.values())
    sent = 0
    while not all(counted_by(folder, worker) for worker in workers):
        assert service.post("/embed", {"texts": ["a", "b"]}).status_code == 200
        sent += 1
        assert sent < 1000
    for _ in range(5):
        # Whichever worker answers.
        seen = Exposition(service.get("/metrics").text)
        assert seen.total("embedding_request_total", route="/embed", status="200") == sent
        assert seen.total("embedding_texts_total", model="tiny") == 2 * sent
        assert seen.total("embedding_request_duration_seconds_count", route="/embed") == sent
        assert seen.total("embedding_model_load_seconds_count", model="tiny") == 2
    weights = seen.total("embedding_model_memory_bytes", model="tiny")
    # The weights are mapped once, whoever looks at them.
    assert 0 < weights < 1_000_000
    dead = next(iter(workers))
    os.kill(dead, signal.SIGKILL)
    wait_for(lambda: dead not in (two_workers_of(service) or {dead}))
    wait_for(lambda: service.get("/metrics") and not list(folder.glob(f"gauge_*_{dead}.db")))
    seen = Exposition(service.get("/metrics").text)
    # What it did is still counted, what it held is not.
    assert seen.total("embedding_texts_total", model="tiny") == 2 * sent
    assert seen.total("embedding_model_memory_bytes", model="tiny") == weights
    assert seen.total("embedding_requests_in_progress") == 1
    service.popen.terminate()
    assert service.exit_status() == 0
    assert not folder.exists()


def test_a_service_of_one_worker_needs_no_folder(process, bert_mean_folder):
    service = process(f"tiny={bert_mean_folder}")
    assert metrics_folder(service.popen.pid) is None
    assert httpx.get(service.url + "/metrics").status_code == 200
