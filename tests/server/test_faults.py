"""What goes wrong around a service that is at work: files, disks, clients and signals."""

import os
import selectors
import shutil
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest
from running import replace_files, running, start_process, wait_for

from arrowembed import Embedder

TEXT = "The cat sleeps on the mat."


def test_a_model_file_that_is_cut_short_ends_no_process(bert_folder, bert_mean_folder, tmp_path):
    folder = shutil.copytree(bert_folder, tmp_path / "model")
    models = [
        {"name": "cut", "source": str(folder)},
        {"name": "sound", "source": str(bert_mean_folder)},
    ]
    with running(models=models, cache_entries=0) as service:
        assert service.post("/embed", {"texts": TEXT, "model": "cut"}).status_code == 200
        os.truncate(folder / "model.arrow", 40_000)
        status, error = service.error("/embed", {"texts": TEXT, "model": "cut"})
        assert status >= 500
        assert str(tmp_path) not in error["message"]
        assert service.post("/embed", {"texts": TEXT, "model": "sound"}).status_code == 200
        # Whole again, and opened again.
        replace_files(folder, bert_mean_folder)
        assert service.post("/models/cut/reload", {}).status_code == 200
        answer = service.post("/embed", {"texts": TEXT, "model": "cut"})
        vector = np.array(answer.json()["embeddings"][0], np.float32)
        np.testing.assert_array_equal(vector, Embedder(bert_mean_folder).encode(TEXT))


def test_of_many_clients_that_come_at_once_none_waits_for_the_others(process, bert_mean_folder):
    service = process(bert_mean_folder)
    url = httpx.URL(service.url)
    request = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    answers = dict.fromkeys(range(200), 0)
    with selectors.DefaultSelector() as selector, ExitStack() as clients:
        for number in answers:
            client = clients.enter_context(socket.create_connection((url.host, url.port)))
            client.sendall(request)
            selector.register(client, selectors.EVENT_READ, number)
        while min(answers.values()) == 0:
            for key, _ in selector.select(timeout=60):
                if not key.fileobj.recv(65536).endswith(b'{"status":"ok"}'):
                    continue  # the head alone
                answers[key.data] += 1
                # Each goes on at once, so that the service never has nothing to do.
                key.fileobj.sendall(request)
    assert max(answers.values()) < 20


def test_clients_that_do_not_read_their_answers_hold_up_nobody(service):
    body = httpx.Request(
        "POST", service.url, json={"texts": [f"{TEXT} {i}" for i in range(100)]}
    ).content
    request = (
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body
    url = httpx.URL(service.url)
    clients = []
    for _ in range(8):
        client = socket.create_connection((url.host, url.port), timeout=60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(request * 4)
        clients.append(client)
    for _ in range(20):
        assert service.post("/embed", {"texts": TEXT}).status_code == 200
    for client in clients:
        client.close()
    assert service.post("/embed", {"texts": TEXT}).status_code == 200


def test_clients_that_leave_in_the_middle_leave_nothing_behind(service):
    url = httpx.URL(service.url)
    body = httpx.Request("POST", service.url, json={"texts": [TEXT * 50] * 100}).content
    for sent in (b"POST /em", b"", body[:10], body):
        with socket.create_connection((url.host, url.port), timeout=60) as client:
            head = b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            complete = sent in (body[:10], body)
            head = head + b"content-length: %d\r\n\r\n" % len(body) if complete else b""
            client.sendall(head + sent)
    assert service.post("/embed", {"texts": TEXT}).status_code == 200
    scheduler = next(iter(service.app.state.models)).variants[0].current.scheduler
    wait_for(lambda: scheduler.info()["queued_texts"] == 0)
    wait_for(lambda: scheduler.info()["running_batches"] == 0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_to_stop_under_load_loses_nothing_that_was_accepted(
    process, workers, bert_folder, bert_mean_folder
):
    service = process(bert_mean_folder, "--workers", workers, "--cache-entries", 0)
    expected = Embedder(bert_mean_folder).encode(TEXT)
    answered = threading.Semaphore(0)

    def client(_):
        """Statuses of answers, and how it ended: until nobody takes connections any more."""
        statuses = []
        with httpx.Client(base_url=service.url, timeout=60) as connection:
            while True:
                try:
                    answer = connection.post("/embed", json={"texts": [TEXT] * 4})
                except httpx.TransportError as error:
                    return statuses, error
                statuses.append(answer.status_code)
                if answer.status_code == 200:
                    vectors = np.array(answer.json()["embeddings"], np.float32)
                    np.testing.assert_array_equal(vectors, [expected] * 4)
                answered.release()

    with ThreadPoolExecutor(8) as pool:
        clients = [pool.submit(client, number) for number in range(8)]
        for _ in range(40):
            assert answered.acquire(timeout=60)
        service.popen.send_signal(signal.SIGTERM)
        ended = [done.result() for done in clients]
    statuses = [status for answers, _ in ended for status in answers]
    assert service.exit_status() == 0
    # What came after the signal may have been refused, and was told so.
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 40
    # Refused, or on a connection that was closed while it was idle. An answer that has begun comes
    # to its end.
    for _, error in ended:
        assert isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError)
        assert "incomplete" not in str(error)


def test_a_full_disk_stops_no_answers(bert_mean_folder):
    # All that is written there fails with "no space left on device".
    service = start_process(Path("/dev/full"), bert_mean_folder, "--cache-entries", 0)
    try:
        service.wait_until(200)
        for _ in range(5):
            assert service.post("/embed", {"texts": TEXT}).status_code == 200
        assert service.post("/embed", {"texts": None}).status_code == 422
    finally:
        service.popen.send_signal(signal.SIGTERM)
    assert service.exit_status() == 0
