"""Real servers on free ports: in a thread for most tests, in a process for those of the process."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn

from arrowembed.server import create_app, read_settings

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    app: FastAPI
    client: httpx.Client

    def wait_until_ready(self):
        """Waits for the models that are loaded at the start."""
        while self.client.get("/ready").status_code != 200:
            pass

    def post(self, path, fields, **options):
        """The answer to a request of JSON."""
        return self.client.post(path, json=fields, **options)

    def error(self, path, fields, **options):
        """The status and the error of the answer to a request of JSON."""
        answer = self.post(path, fields, **options)
        error = answer.json()["error"]
        assert error.pop("request_id") == answer.headers["x-request-id"]
        return answer.status_code, error


@contextmanager
def running(**settings):
    """A service in a thread of this process."""
    app = create_app(read_settings(port=0, **settings))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    started = threading.Event()
    startup = server.startup

    async def start_and_tell(sockets=None):
        await startup(sockets)
        started.set()

    server.startup = start_and_tell
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert started.wait(60)
        host, port = server.servers[0].sockets[0].getsockname()
        url = f"http://{host}:{port}"
        with httpx.Client(base_url=url, timeout=60) as client:
            service = Service(url, app, client)
            service.wait_until_ready()
            yield service
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serve():
    """`running`, for tests that need settings of their own."""
    return running


@pytest.fixture(scope="module")
def service(bert_mean_folder, prompted_folder):
    """One service with two models, for all tests of a module."""
    with running(
        models=[
            {"name": "tiny", "source": str(bert_mean_folder), "aliases": ["small"]},
            {"name": "prompted", "source": str(prompted_folder)},
        ]
    ) as service:
        yield service
