"""Services to ask: in a thread of this process, or in one of their own, on free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import uvicorn

from arrowembed.server import create_app, read_settings

if TYPE_CHECKING:
    from pathlib import Path

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
def running(*, wait=True, **settings):
    """A service in a thread of this process; `wait` for the models that it loads at the start."""
    app = create_app(read_settings(port=0, **settings))
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, ws="none", proxy_headers=False)
    )
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
            if wait:
                service.wait_until_ready()
            yield service
    finally:
        server.should_exit = True
        thread.join()


@dataclass(frozen=True)
class Process:
    """A running `arrowembed serve`."""

    url: str
    popen: subprocess.Popen
    log: Path

    def get(self, path):
        """The answer on a connection of its own, or None if there is no server.

        `verify` is only off because it takes httpx longer than all else to read certificates.
        """
        try:
            return httpx.get(self.url + path, timeout=60, verify=False)
        except httpx.TransportError:
            return None

    def post(self, path, fields):
        """The answer to a request of JSON on a connection of its own."""
        return httpx.post(self.url + path, json=fields, timeout=60, verify=False)

    def wait_until(self, status):
        """Waits until `/ready` answers with a status; None is no answer."""
        wait_for(lambda: getattr(self.get("/ready"), "status_code", None) == status)

    def exit_status(self):
        """Waits for its end."""
        return self.popen.wait(60)


def wait_for(condition):
    """Waits until something holds, and gives it."""
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def start_process(log, *arguments, **environment):
    """Starts `arrowembed serve` with arguments and more of an environment."""
    port = free_port()
    command = [sys.executable, "-m", "arrowembed", "serve", "--port", port, *arguments]
    with log.open("wb") as stderr:
        popen = subprocess.Popen(
            list(map(str, command)), stderr=stderr, env={**os.environ, **environment}
        )
    return Process(f"http://127.0.0.1:{port}", popen, log)


def free_port():
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def replace_files(folder, source):
    """Puts another model into a folder, each file at once, as all of ours are written."""
    for file in filter(os.path.isfile, source.rglob("*")):
        new = folder / "new"
        shutil.copyfile(file, new)
        new.rename(folder / file.relative_to(source))
