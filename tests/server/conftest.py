"""Services that tests of several modules ask."""

from dataclasses import replace

import pytest
from running import running, start_process


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


@pytest.fixture
def process(tmp_path):
    """Starts `arrowembed serve` with arguments, waits until it is ready, and stops it."""
    started = []

    def start(*arguments, ready=True, **environment):
        service = start_process(tmp_path / f"log-{len(started)}", *arguments, **environment)
        started.append(service)
        if ready:
            service.wait_until(200)
        return service

    yield start
    for service in started:
        service.popen.terminate()
        service.exit_status()


@pytest.fixture
def with_scheduler(monkeypatch):
    """Puts a scheduler in the place of that of a service's first model."""

    def put(service, scheduler):
        variant = next(iter(service.app.state.models)).variants[0]
        monkeypatch.setattr(variant, "current", replace(variant.current, scheduler=scheduler))
        return scheduler

    return put
