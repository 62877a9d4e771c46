"""The registry: names, permissions, limits in time, numbers; threads, event loops and forks."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time

import pytest

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools import Tool, ToolError, ToolRegistry, is_cancelled, tool

SOON = 0.05
"""Seconds: the limit of calls that are to be given up."""


@tool(scope="read", example={"a": 1, "b": 2})
def plus(a: int, b: int = 1) -> int:
    """Adds."""
    return a + b


@tool(scope="write")
def clear() -> str:
    """Clears all."""
    return "cleared"


class Gate:
    """Tools that wait until they are let go."""

    def __init__(self):
        self.entered, self.open, self.left = (threading.Event() for _ in range(3))
        self.was_cancelled = None

    @tool(scope="read")
    def wait(self) -> bool:
        """Waits."""
        self.entered.set()
        assert self.open.wait(60)
        self.was_cancelled = is_cancelled()
        self.left.set()
        return True

    @tool(scope="read")
    async def wait_async(self) -> bool:
        """Waits in an event loop."""
        self.entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.left.set()
        return True


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.open.set()


def error(outcome):
    assert not outcome["ok"], outcome
    return outcome["error"]


def test_functions_and_all_that_has_tools_can_be_registered(registry, embedding):
    assert registry.register(plus, Tool(clear, name="wipe")) == ["plus", "wipe"]
    names = registry.register(embedding)
    assert names == ["embed", "similarity", "search", "remember", "forget"]
    assert registry.register(embedding.combined()) == ["embedding"]
    assert registry.register(embedding, prefix="memory_")[0] == "memory_embed"
    assert "plus" in registry
    assert len(registry) == 13
    assert registry.call("memory_embed", {"texts": ["a"]})["ok"]
    assert error(registry.call("memory_embed"))["message"] == "memory_embed: texts is missing"
    registry.unregister("plus")
    registry.unregister("plus")
    assert "plus" not in registry
    assert registry.get("plus") is None


def test_a_name_is_given_once(registry, embedding):
    registry.register(plus)
    with pytest.raises(InvalidArgumentError, match="a tool 'plus' already; pass prefix"):
        registry.register(clear, plus)
    assert "clear" not in registry  # all or none
    with pytest.raises(InvalidArgumentError, match="letters"):
        registry.register(plus, prefix="no spaces ")
    with pytest.raises(InvalidArgumentError, match="got int"):
        registry.register(3)


def test_calls_are_answered(registry):
    registry.register(plus)
    assert registry.call("plus", {"a": 1, "b": 2}) == {"ok": True, "result": 3}
    assert registry.call("plus", '{"a": 1}') == {"ok": True, "result": 2}
    assert error(registry.call("plus", {}))["code"] == "invalid_arguments"
    assert asyncio.run(registry.acall("plus", {"a": 1})) == {"ok": True, "result": 2}


def test_unknown_tools_are_told_the_nearest(registry):
    assert "there are none" in error(registry.call("plus"))["message"]
    registry.register(plus, clear)
    wrong = error(registry.call("pluss", {"a": 1}))
    assert (wrong["code"], wrong["message"]) == (
        "unknown_tool",
        "no tool 'pluss'; did you mean \"plus\"?",
    )
    assert "there are plus, clear" in error(registry.call("x" * 1000))["message"]
    for name in (None, 3, ["plus"], {}, "\ud800"):
        assert error(registry.call(name))["code"] == "unknown_tool"
        assert error(asyncio.run(registry.acall(name)))["code"] == "unknown_tool"
    assert error(asyncio.run(registry.acall("minus")))["code"] == "unknown_tool"


def test_a_caller_needs_what_the_tool_needs(registry):
    registry.register(plus, clear)
    denied = error(registry.call("clear", grants=["read"]))
    assert denied["code"] == "permission_denied"
    assert "needs the permission 'write'" in denied["message"]
    assert error(asyncio.run(registry.acall("clear", grants=["read"])))["code"] == (
        "permission_denied"
    )
    assert error(registry.call("plus", {"a": 1}, grants=[]))["code"] == "permission_denied"
    assert registry.call("clear", grants=["write"])["ok"]
    assert [tool.name for tool in registry.tools(grants=["read"])] == ["plus"]
    assert [schema["title"] for schema in registry.get_schemas(grants=["read"])] == ["plus"]
    assert registry.metrics()["clear"]["errors"] == {"permission_denied": 2}
    # What a caller may not use is not suggested either.
    assert "clear" not in error(registry.call("cleer", grants=["read"]))["message"]


def test_a_registry_may_be_for_reading():
    registry = ToolRegistry(grants=["read"])
    registry.register(plus, clear)
    assert error(registry.call("clear"))["code"] == "permission_denied"
    assert registry.call("plus", {"a": 1})["ok"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grants": ["execute"]}, "'execute'; known are read, write"),
        ({"grants": "read"}, "expected a list, got 'read'"),
        ({"timeout": 0}, "timeout: 0"),
        ({"timeout": -1.5}, "timeout: -1.5"),
        ({"max_running": 0}, "max_running: 0"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(InvalidArgumentError, match=message):
        ToolRegistry(**settings)


def test_a_call_whose_time_is_over_is_told_so_and_the_work_goes_on(registry, gate):
    registry.register(gate.wait)
    wrong = error(registry.call("wait", timeout=SOON))
    assert (wrong["code"], wrong["message"]) == (
        "timeout",
        f"wait: took longer than {SOON:g} seconds",
    )
    assert gate.entered.wait(60)
    assert not gate.left.is_set()
    gate.open.set()
    assert gate.left.wait(60)
    assert gate.was_cancelled is True
    assert registry.call("wait", timeout=60) == {"ok": True, "result": True}
    assert gate.was_cancelled is False
    assert registry.metrics()["wait"]["errors"] == {"timeout": 1}


def test_the_limit_is_the_call_s_or_the_tool_s_or_the_registry_s(gate):
    registry = ToolRegistry(timeout=SOON)
    registry.register(gate.wait, Tool(gate.wait, name="slow", timeout=60))
    assert error(registry.call("wait"))["code"] == "timeout"
    gate.open.set()
    assert registry.call("slow")["ok"]
    assert registry.call("wait", timeout=60)["ok"]
    assert registry.call("wait", timeout=None)["ok"]


def test_without_a_limit_calls_run_on_the_thread_of_the_caller():
    def where() -> int:
        """Tells the thread."""
        return threading.get_ident()

    registry = ToolRegistry(timeout=None)
    registry.register(where)
    assert registry.call("where")["result"] == threading.get_ident()
    assert registry.call("where", timeout=60)["result"] != threading.get_ident()


def test_embedding_stops_when_its_time_is_over(registry, model):
    stopped = threading.Event()

    def embed_much() -> None:
        """Takes minutes."""
        try:
            model.encode([f"{number} " + "word " * 100 for number in range(300_000)])
        except asyncio.CancelledError:
            stopped.set()
            raise

    registry.register(embed_much)
    assert error(registry.call("embed_much", timeout=SOON))["code"] == "timeout"
    assert stopped.wait(60)


def test_too_many_calls_at_a_time_are_refused(gate):
    registry = ToolRegistry(max_running=2)
    registry.register(gate.wait, plus)
    assert [error(registry.call("wait", timeout=SOON))["code"] for _ in range(2)] == ["timeout"] * 2
    assert error(registry.call("plus", {"a": 1}))["code"] == "busy"
    assert error(asyncio.run(registry.acall("plus", {"a": 1})))["code"] == "busy"
    gate.open.set()
    while not registry.call("plus", {"a": 1})["ok"]:
        time.sleep(0.001)


def test_async_tools_end_with_their_time(registry, gate):
    registry.register(gate.wait_async)
    assert error(asyncio.run(registry.acall("wait_async", timeout=SOON)))["code"] == "timeout"
    assert gate.left.wait(60)
    gate.left.clear()
    wrong = error(registry.call("wait_async", timeout=SOON))
    assert wrong["message"] == f"wait_async: took longer than {SOON:g} seconds"
    assert gate.left.wait(60)


def test_async_calls_do_not_hold_up_the_event_loop(registry, gate):
    registry.register(gate.wait, plus)

    async def main():
        waiting = asyncio.create_task(registry.acall("wait"))
        while not gate.entered.is_set():
            await asyncio.sleep(0)
        assert await registry.acall("plus", {"a": 1}) == {"ok": True, "result": 2}
        assert registry.metrics()["wait"]["running"] == 1
        assert not waiting.done()
        gate.open.set()
        return await waiting

    assert asyncio.run(main()) == {"ok": True, "result": True}
    assert registry.metrics()["wait"]["running"] == 0


@pytest.mark.parametrize("name", ["wait", "wait_async"])
def test_a_cancelled_task_gives_its_call_up(registry, gate, name):
    registry.register(gate.wait, gate.wait_async)

    async def main():
        waiting = asyncio.create_task(registry.acall(name))
        while not gate.entered.is_set():
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
    gate.open.set()
    assert gate.left.wait(60)
    assert gate.was_cancelled is (True if name == "wait" else None)
    assert registry.metrics()[name]["errors"] == {"cancelled": 1}


def test_a_stuck_tool_does_not_keep_the_process_from_ending(tmp_path):
    program = tmp_path / "stuck.py"
    program.write_text(
        "import threading\n"
        "from arrowembed.tools import ToolRegistry\n"
        "def stuck() -> None:\n"
        "    '''Never ends.'''\n"
        "    threading.Event().wait()\n"
        "registry = ToolRegistry()\n"
        "registry.register(stuck)\n"
        "print(registry.call('stuck', timeout=0.05)['error']['code'])\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("timeout\n", "")


def test_context_variables_reach_the_tool(registry):
    from contextvars import ContextVar

    user = ContextVar("user", default="nobody")

    def who() -> str:
        """Tells the user."""
        return user.get()

    registry.register(who)
    user.set("somebody")
    assert registry.call("who")["result"] == "somebody"
    assert asyncio.run(registry.acall("who"))["result"] == "somebody"


def test_numbers_of_calls(registry):
    def fail(kind: str) -> None:
        """Fails."""
        raise ToolError("as it was told", code=kind)

    registry.register(plus, fail)
    assert registry.metrics() == {}
    registry.call("plus", {"a": 1})
    registry.call("plus", '{"a":1,"b":20}')
    registry.call("plus", {"a": "the secret"})
    registry.call("fail", {"kind": "one"})
    registry.call("fail", {"kind": "one"})
    registry.call("fail", {"kind": "two"})
    metrics = registry.metrics()
    assert metrics["fail"]["errors"] == {"one": 2, "two": 1}
    counts = metrics["plus"]
    assert 0 < counts.pop("max_seconds") <= counts.pop("seconds")
    assert counts == {
        "calls": 3,
        "running": 0,
        "errors": {"invalid_arguments": 1},
        "input_bytes": len('{"a":1}') + len('{"a":1,"b":20}'),
        "output_bytes": len("2") + len("21"),
    }
    assert "secret" not in json.dumps(metrics)


def test_many_threads_and_tasks_at_once(registry, embedding):
    registry.register(plus, embedding)
    expected = registry.call("similarity", {"a": ["a"], "b": ["b", "c"]})
    failed = []

    def work(number):
        for i in range(20):
            if registry.call("plus", {"a": number, "b": i})["result"] != number + i:
                failed.append((number, i))
            if registry.call("similarity", {"a": ["a"], "b": ["b", "c"]}) != expected:
                failed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()

    async def tasks():
        return await asyncio.gather(*(registry.acall("plus", {"a": n}) for n in range(50)))

    assert [outcome["result"] for outcome in asyncio.run(tasks())] == list(range(1, 51))
    for thread in threads:
        thread.join()
    assert failed == []
    assert registry.metrics()["plus"]["calls"] == 8 * 20 + 50
    assert registry.metrics()["plus"]["running"] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on(registry, embedding, gate):
    registry = ToolRegistry(max_running=1)
    registry.register(embedding, gate.wait)
    expected = registry.call("similarity", {"a": ["a"], "b": ["b"]})
    assert error(registry.call("wait", timeout=SOON))["code"] == "timeout"  # and is still running
    meter = registry._meter
    with meter._lock:  # as another thread may have it at the time
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                same = registry.call("similarity", {"a": ["a"], "b": ["b"]}) == expected
                os.write(write, b"same" if same else b"different")
            finally:
                os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"same"
    assert os.waitpid(child, 0)[1] == 0
