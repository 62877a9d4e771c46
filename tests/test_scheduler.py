"""`Scheduler`: many asyncio tasks, one queue."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from arrowembed import Embedder, EmbeddingEngine, _core
from arrowembed.errors import (
    ClosedError,
    InvalidArgumentError,
    QueueFullError,
    TextTooLongError,
    TextTypeError,
)
from arrowembed.scheduler import Encoded, Scheduler

BERT = Path(__file__).parent / "data" / "hf" / "bert"


@pytest.fixture(scope="module")
def plain():
    return Embedder(BERT, cache_size=0)


def texts_of(client):
    return [f"text {i} of client {client} " + "word " * (7 * i) for i in range(client % 5 + 1)]


def test_vectors_are_those_of_encode(plain):
    scheduler = Scheduler(Embedder(BERT))
    options = [{}, {"prompt": "query: ", "truncate_dim": 8}, {"pooling": "cls", "normalize": 3.0}]

    async def client(number):
        answer = await scheduler.encode(texts_of(number), **options[number % 3])
        expected = plain.encode(texts_of(number), **options[number % 3])
        np.testing.assert_array_equal(answer.vectors, expected)
        assert answer.tokens == sum(
            len(ids)
            for ids in plain.tokenize(texts_of(number), prompt=options[number % 3].get("prompt"))[
                "input_ids"
            ]
        )
        return answer

    async def main():
        return await asyncio.gather(*(client(number) for number in range(60)))

    answers = asyncio.run(main())
    assert all(answer.queue_seconds >= 0 for answer in answers)
    # Another event loop, and the cache.
    again = asyncio.run(client(4))
    assert again.cache_hits == 5
    assert (again.queue_seconds, again.compute_seconds) == (0, 0)


def test_a_single_text_and_none(plain):
    scheduler = Scheduler(plain)
    one = asyncio.run(scheduler.encode("one text"))
    assert isinstance(one, Encoded)
    np.testing.assert_array_equal(one.vectors, plain.encode(["one text"]))
    none = asyncio.run(scheduler.encode([]))
    assert none.vectors.shape == (0, plain.dimension)


def test_settings_of_the_embedder_hold():
    embedder = Embedder(BERT, truncate_dim=12, prompts={"q": "query: "}, default_prompt_name="q")
    answer = asyncio.run(Scheduler(embedder).encode(["text"]))
    np.testing.assert_array_equal(answer.vectors, embedder.encode(["text"]))


def test_wrong_requests_are_refused_as_by_encode(plain):
    scheduler = Scheduler(plain)

    async def main():
        with pytest.raises(TextTypeError, match="text 1 is None") as caught:
            await scheduler.encode(["a", None])
        assert caught.value.index == 1
        with pytest.raises(InvalidArgumentError, match="truncate_dim"):
            await scheduler.encode(["a"], truncate_dim=0)
        with pytest.raises(InvalidArgumentError, match="no-such-prompt"):
            await scheduler.encode(["a"], prompt_name="no-such-prompt")
        with pytest.raises(TextTooLongError, match="text 1 ") as caught:
            await scheduler.encode(["a", "long " * 5000], truncate=False)
        assert caught.value.index == 1
        with pytest.raises(InvalidArgumentError, match="timeout"):
            await scheduler.drain(-1)

    asyncio.run(main())
    with pytest.raises(InvalidArgumentError, match="max_queued_texts"):
        Scheduler(plain, max_queued_texts=-1)


def test_a_full_queue_refuses_and_the_others_are_answered(plain):
    scheduler = Scheduler(plain, max_queued_texts=50)

    async def main():
        tasks = [
            asyncio.create_task(scheduler.encode([f"{i} {j} " + "word " * 300 for j in range(10)]))
            for i in range(40)
        ]
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(InvalidArgumentError, match="texts: are 51"):
            await scheduler.encode([str(i) for i in range(51)])
        return answers

    answers = asyncio.run(main())
    refused = [answer for answer in answers if isinstance(answer, QueueFullError)]
    answered = [answer for answer in answers if isinstance(answer, Encoded)]
    assert refused
    assert answered
    assert len(refused) + len(answered) == 40
    assert scheduler.info()["queued_texts"] == 0
    assert scheduler.info()["max_queued_texts"] == 50


def test_a_cancelled_task_costs_nothing_more():
    embedder = Embedder(BERT, cache_size=0)
    scheduler = Scheduler(embedder)

    async def main():
        texts = [f"{i} " + "word " * 400 for i in range(2000)]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await scheduler.encode(texts)
        assert await scheduler.drain()
        return len(texts)

    asyncio.run(main())
    assert scheduler.info()["queued_texts"] == 0
    assert embedder.info()["texts"] == 0


def test_draining_answers_what_was_accepted(plain):
    scheduler = Scheduler(plain)

    async def main():
        accepted = [asyncio.create_task(scheduler.encode(texts_of(i))) for i in range(20)]
        await asyncio.sleep(0)
        drained = asyncio.create_task(scheduler.drain(60))
        answers = await asyncio.gather(*accepted)
        assert [len(answer.vectors) for answer in answers] == [i % 5 + 1 for i in range(20)]
        assert await drained
        with pytest.raises(ClosedError):
            await scheduler.encode(["too late"])

    asyncio.run(main())


def test_batches_are_told(plain):
    batches, told = [], threading.Event()

    def on_batch(texts, tokens):
        batches.append((texts, tokens))
        if sum(texts for texts, _ in batches) == 30:
            told.set()

    scheduler = Scheduler(plain, on_batch=on_batch)
    answer = asyncio.run(scheduler.encode([f"text {i}" for i in range(30)]))
    assert told.wait(60)
    assert sum(tokens for _, tokens in batches) == answer.tokens


def test_it_goes_on_in_a_forked_child(plain):
    scheduler = Scheduler(plain)
    expected = asyncio.run(scheduler.encode(["a text"])).vectors
    child = os.fork()
    if child == 0:
        same = np.array_equal(asyncio.run(scheduler.encode(["a text"])).vectors, expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
    asyncio.run(scheduler.encode(["the parent, too"]))


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(0)", "del scheduler, embedder"])
def test_a_process_may_end_while_texts_wait(end):
    program = f"""
import asyncio, sys
from arrowembed import Embedder
from arrowembed.scheduler import Scheduler
embedder = Embedder(sys.argv[1], cache_size=0)
scheduler = Scheduler(embedder)
async def main():
    asyncio.ensure_future(scheduler.encode([f"{{i}} " + "word " * 400 for i in range(3000)]))
    await asyncio.sleep(0.05)
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
{end}
"""
    ended = subprocess.run(
        [sys.executable, "-c", program, str(BERT)],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr


def test_a_model_of_a_registry_stays_loaded_for_it():
    engines = EmbeddingEngine()
    engines.register("bert", BERT)
    scheduler = Scheduler(engines.get("bert"))
    expected = asyncio.run(scheduler.encode(["a text"])).vectors
    engines.unload("bert")
    np.testing.assert_array_equal(asyncio.run(scheduler.encode(["a text"])).vectors, expected)
    assert not engines.is_loaded("bert")


def test_a_ticket_is_cancelled_once(plain):
    core = plain.queue(max_queued_texts=10, max_queued_tokens=10_000)
    tickets = [core.submit([f"{i}"], lambda answer, error: None) for i in range(2)]
    assert all(isinstance(ticket, _core.Ticket) for ticket in tickets)
    core.drain()
    assert not any(ticket.cancel() for ticket in tickets)
    core.close()
    core.close()
