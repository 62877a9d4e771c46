"""Free memory of the service goes back to the system."""

import asyncio
import platform

import pytest

from arrowembed.server import memory


def run_until(condition):
    async def run():
        task = asyncio.create_task(memory.give_back_regularly())
        async with asyncio.timeout(60):
            while not condition(task):
                await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(run())


def test_free_memory_is_given_back_again_and_again(monkeypatch):
    kept = []
    monkeypatch.setattr(memory, "_INTERVAL", 0.001)
    monkeypatch.setattr(memory, "_trim", lambda: kept.append)
    run_until(lambda _: len(kept) >= 3)
    assert set(kept) == {0}


def test_nothing_is_done_where_the_system_does_not_know_how(monkeypatch):
    monkeypatch.setattr(memory, "_trim", lambda: None)
    run_until(lambda task: task.done())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has it")
def test_glibc_knows_how():
    assert memory._trim()(0) in (0, 1)
