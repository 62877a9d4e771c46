"""Tool calls of models: through the official SDKs and a service that speaks their dialects."""

import asyncio
import json

import anthropic
import openai
import pytest
from anthropic.types import Message, MessageParam
from model_endpoint import chat_completion, endpoint, message_of_anthropic, response
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
from openai.types.responses import Response, ResponseInputItemParam
from pydantic import TypeAdapter

from arrowembed.errors import InvalidArgumentError
from arrowembed.tools import arun_tool_calls, run_tool_calls, tool

CALLS = [
    ("remember", {"texts": ["The cat is called Miez."], "metadata": None, "ids": None}),
    ("plus", {"a": 1, "b": 2}),
    ("serach", {"query": "cat"}),
    ("plus", {"a": "one", "b": 2}),
]
"""Two that are right, one of an unknown tool, one with a wrong argument."""

CUT_OFF = '{"a": 1, "b"'
"""JSON of a model that ran out of tokens."""


@tool(scope="read")
def plus(a: int, b: int) -> int:
    """Adds."""
    return a + b


@pytest.fixture
def tools(registry, embedding):
    registry.register(embedding, plus)
    return registry


def check_outcomes(texts):
    """The outcomes of CALLS, as the model is told of them."""
    remembered, sum_, unknown, wrong = map(json.loads, texts)
    assert remembered["ok"]
    assert sum_ == {"ok": True, "result": 3}
    assert unknown["error"]["code"] == "unknown_tool"
    assert 'did you mean "search"?' in unknown["error"]["message"]
    assert 'a should be a valid integer, given "one"' in wrong["error"]["message"]


def check_malformed(text):
    outcome = json.loads(text)
    assert outcome["error"]["code"] == "invalid_json"


SEARCH = ("search", {"query": "cat", "k": None, "filter": None, "max_characters": None})


def test_a_conversation_over_chat_completions(tools):
    with endpoint(CALLS, [("plus", CUT_OFF)], [SEARCH], "It is called Miez.") as model:
        client = openai.OpenAI(base_url=f"{model.url}/v1", api_key="none", max_retries=0)
        messages = [{"role": "user", "content": "What is my cat called?"}]
        while True:
            completion = client.chat.completions.create(
                model="scripted", messages=messages, tools=tools.get_schemas("openai")
            )
            if not (answers := run_tool_calls(completion, tools)):
                break
            messages += answers
        client.close()
    assert completion.choices[0].message.content == "It is called Miez."
    roles = [message["role"] for message in messages]
    assert roles == ["user", "assistant", *["tool"] * 4, "assistant", "tool", "assistant", "tool"]
    sent = model.requests[-1]["messages"]
    ids = [call["id"] for call in sent[1]["tool_calls"]]
    assert [message["tool_call_id"] for message in sent[2:6]] == ids
    check_outcomes([message["content"] for message in sent[2:6]])
    check_malformed(sent[7]["content"])
    assert "Miez" in sent[9]["content"]


def test_a_conversation_over_responses(tools):
    with endpoint(CALLS, [("plus", CUT_OFF)], [SEARCH], "It is called Miez.") as model:
        client = openai.OpenAI(base_url=f"{model.url}/v1", api_key="none", max_retries=0)
        turns = [{"role": "user", "content": "What is my cat called?"}]
        while True:
            answered = client.responses.create(
                model="scripted", input=turns, tools=tools.get_schemas("openai_responses")
            )
            if not (answers := run_tool_calls(answered, tools)):
                break
            turns += answers
        client.close()
    assert answered.output_text == "It is called Miez."
    sent = model.requests[-1]["input"]
    assert [item["type"] for item in sent[1:10]] == [
        "reasoning",
        *["function_call"] * 4,
        *["function_call_output"] * 4,
    ]
    assert [item["call_id"] for item in sent[2:6]] == [item["call_id"] for item in sent[6:10]]
    check_outcomes([item["output"] for item in sent[6:10]])
    check_malformed(sent[12]["output"])
    assert "Miez" in sent[-1]["output"]


def test_a_conversation_over_messages(tools):
    with endpoint(CALLS, [SEARCH], "It is called Miez.") as model:
        client = anthropic.Anthropic(base_url=model.url, api_key="none", max_retries=0)
        messages = [{"role": "user", "content": "What is my cat called?"}]
        while True:
            message = client.messages.create(
                model="scripted",
                max_tokens=100,
                messages=messages,
                tools=tools.get_schemas("anthropic"),
            )
            if not (answers := run_tool_calls(message, tools)):
                break
            messages += answers
        client.close()
    assert message.content[0].text == "It is called Miez."
    sent = model.requests[-1]["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant"] * 2 + ["user"]
    calls = [block for block in sent[1]["content"] if block["type"] == "tool_use"]
    results = sent[2]["content"]
    assert [block["tool_use_id"] for block in results] == [block["id"] for block in calls]
    assert [block["is_error"] for block in results] == [False, False, True, True]
    check_outcomes([block["content"] for block in results])
    assert "Miez" in sent[4]["content"][0]["content"]


async def converse(tools, model):
    """A conversation of an async program over chat completions."""
    async with openai.AsyncOpenAI(base_url=f"{model.url}/v1", api_key="none") as client:
        messages = [{"role": "user", "content": "What is 1 and 2?"}]
        while True:
            completion = await client.chat.completions.create(
                model="scripted", messages=messages, tools=tools.get_schemas("openai")
            )
            if not (answers := await arun_tool_calls(completion, tools)):
                return messages
            messages += answers


def test_a_conversation_in_an_event_loop(tools):
    with endpoint(CALLS, [("plus", CUT_OFF)], "3") as model:
        messages = asyncio.run(converse(tools, model))
    check_outcomes([message["content"] for message in messages[2:6]])
    check_malformed(messages[7]["content"])


def test_async_calls_run_at_once_and_keep_their_order(registry):
    arrived = []

    async def meet(name: str) -> str:
        """Waits for the other one."""
        arrived.append(name)
        while len(arrived) < 2:
            await asyncio.sleep(0)
        return name

    registry.register(meet)
    asked = chat_completion([("meet", {"name": "a"}), ("meet", {"name": "b"})], 1)
    _, first, second = asyncio.run(arun_tool_calls(asked, registry))
    assert [json.loads(m["content"])["result"] for m in (first, second)] == ["a", "b"]


DIALECTS = [
    (chat_completion, ChatCompletion, ChatCompletionMessageParam),
    (response, Response, ResponseInputItemParam),
    (message_of_anthropic, Message, MessageParam),
]


@pytest.mark.parametrize(("make", "kind", "param"), DIALECTS)
def test_objects_of_the_sdks_and_plain_json_are_the_same(tools, make, kind, param):
    plain = make(CALLS[1:], 1)
    typed = kind.model_validate(plain)
    answers = run_tool_calls(plain, tools)
    assert run_tool_calls(typed, tools) == answers
    assert json.loads(json.dumps(answers)) == answers
    TypeAdapter(list[param]).validate_python(answers)
    assert asyncio.run(arun_tool_calls(typed, tools)) == answers


@pytest.mark.parametrize(("make", "kind", "param"), DIALECTS)
def test_a_response_without_calls_wants_no_answer(tools, make, kind, param):
    assert run_tool_calls(make("Hello.", 1), tools) == []
    assert run_tool_calls(kind.model_validate(make("Hello.", 1)), tools) == []


@pytest.mark.parametrize(("make", "kind", "param"), DIALECTS)
def test_the_answers_alone(tools, make, kind, param):
    asked = make(CALLS[1:2], 1)
    (answer,) = run_tool_calls(asked, tools, include_response=False)
    assert run_tool_calls(asked, tools)[-1] == answer


def test_a_message_of_a_chat_completion_is_enough(tools):
    asked = chat_completion(CALLS[1:2], 1)
    message = asked["choices"][0]["message"]
    assert run_tool_calls(message, tools) == run_tool_calls(asked, tools)


def test_a_model_may_be_allowed_less(tools):
    asked = chat_completion(CALLS[:1], 1)
    answers = run_tool_calls(asked, tools, grants=["read"])
    assert json.loads(answers[-1]["content"])["error"]["code"] == "permission_denied"
    assert asyncio.run(arun_tool_calls(asked, tools, grants=["read"])) == answers


def test_custom_tools_are_answered_in_their_own_form(tools):
    asked = chat_completion([], 1)
    custom = {"name": "plus", "input": "one and two"}
    asked["choices"][0]["message"]["tool_calls"] = [{"id": "c", "type": "custom", "custom": custom}]
    answer = run_tool_calls(ChatCompletion.model_validate(asked), tools)[-1]
    assert json.loads(answer["content"])["error"]["code"] == "invalid_json"
    asked = response([], 1)
    asked["output"] = [{"type": "custom_tool_call", "call_id": "c", **custom}]
    answer = run_tool_calls(asked, tools)[-1]
    assert (answer["type"], answer["call_id"]) == ("custom_tool_call_output", "c")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("text", "got str"),
        (None, "got NoneType"),
        ({}, "with nothing"),
        ({"id": 1, "object": "list"}, "with id, object"),
        ({"choices": []}, "is not complete: IndexError"),
        ({"choices": [{"message": {"tool_calls": [{"id": "a"}]}}]}, "is not complete: KeyError"),
        ({"object": "response"}, "is not complete: KeyError"),
        ({"type": "message", "content": ["text"]}, "is not complete: ValueError"),
    ],
)
def test_what_is_no_response_is_told_so(tools, wrong, message):
    with pytest.raises(InvalidArgumentError, match=message):
        run_tool_calls(wrong, tools)
