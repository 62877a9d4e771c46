"""Servers to ask by the official client: in this process, or as a host starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from arrowembed.tools.mcp.offer import Offer

if TYPE_CHECKING:
    from pathlib import Path


# POSIX signals.
collect_ignore = ["test_stdio.py"] if sys.platform == "win32" else []


@dataclass(frozen=True)
class Host:
    """Starts `arrowembed mcp` as a host does, and keeps what it says on standard error."""

    arguments: tuple[str, ...]
    log_file: Path

    @property
    def log(self):
        """What it said on standard error."""
        return self.log_file.read_text()

    @asynccontextmanager
    async def client(self, *more, mode="auto", **environment):
        """A client of a new process, connected."""
        parameters = StdioServerParameters(
            command=sys.executable,
            args=["-m", "arrowembed", "mcp", *self.arguments, *map(str, more)],
            env={**os.environ, **environment},
        )
        with self.log_file.open("a") as errors:
            transport = stdio_client(parameters, errlog=errors)
            async with Client(transport, mode=mode, read_timeout_seconds=60) as client:
                yield client

    @contextmanager
    def process(self, *more, **environment):
        """A process whose pipes the test has in its own hands."""
        command = [sys.executable, "-m", "arrowembed", "mcp", *self.arguments, *map(str, more)]
        with (
            self.log_file.open("ab") as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
            ) as popen,
        ):
            try:
                yield popen
            finally:
                if popen.poll() is None:
                    popen.kill()

    @contextmanager
    def listening(self, *more, **environment):
        """The address of a process that listens, which is told to stop at the end."""
        start = len(self.log) if self.log_file.exists() else 0
        with self.process("--transport", "http", "--port", 0, *more, **environment) as popen:
            deadline = time.monotonic() + 60
            while "MCP at " not in (said := self.log[start:]):
                assert popen.poll() is None, said
                assert time.monotonic() < deadline
                time.sleep(0.01)
            yield said.partition("MCP at ")[2].split()[0], popen
            if popen.poll() is None:
                popen.send_signal(signal.SIGTERM)
                assert popen.wait(60) == 0


@pytest.fixture
def host_of(tmp_path):
    """Makes one that gives `arrowembed mcp` these arguments."""
    return lambda *arguments: Host(tuple(map(str, arguments)), tmp_path / "log")


@pytest.fixture
def host(host_of, bert_mean_folder):
    """One with the tiny model and no store."""
    return host_of("--model", bert_mean_folder)


@pytest.fixture
def host_with_store(host_of, bert_mean_folder, tmp_path):
    """One with the tiny model and a store of its own."""
    return host_of("--model", bert_mean_folder, "--store", tmp_path / "store")


@pytest.fixture
def offer(bert_mean_folder):
    """What a server in this process offers: the tiny model and no store."""
    with Offer(str(bert_mean_folder)) as offer:
        yield offer


@pytest.fixture
def offer_with_store(bert_mean_folder, tmp_path):
    """The same with a store."""
    with Offer(str(bert_mean_folder), tmp_path / "store") as offer:
        yield offer


@pytest.fixture
def result_of():
    """What a tool gives; the client has compared it with the tool's output schema."""

    async def ask(client, name, arguments):
        result = await client.call_tool(name, arguments)
        assert not result.is_error, result
        (content,) = result.content
        assert json.loads(content.text) == result.structured_content
        return result.structured_content

    return ask


@pytest.fixture
def error_of():
    """The error that a call ends with, as a model reads it."""

    async def ask(client, name, arguments):
        result = await client.call_tool(name, arguments)
        assert result.is_error
        assert result.structured_content is None
        (content,) = result.content
        return json.loads(content.text)

    return ask
