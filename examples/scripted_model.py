"""A chat model for the examples of agents: no model at all, but a program that calls tools.

It answers on a local port as OpenAI's chat completions do, so that the agents run without a key and
without a network, through the same client and over the same protocol as with a real model.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request


def decide(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What the model says next: it searches for questions and remembers everything else.

    As real models do at times, it gets an argument wrong first. It reads what the tool says to
    that, and corrects itself.
    """
    last = messages[-1]
    if last["role"] == "user":
        text = last["content"]
        if text.endswith("?"):
            return calling("search", {"question": text})
        return calling("remember", {"texts": [text]})
    outcome = json.loads(last["content"])
    question = next(m["content"] for m in reversed(messages) if m["role"] == "user")
    if not outcome["ok"]:
        return calling("search", {"query": question, "k": 1})
    hits = outcome["result"].get("hits")
    if hits is None:
        return saying("I will remember that.")
    return saying(f"You told me: {hits[0]['text']}" if hits else "You have not told me.")


def saying(text: str) -> dict[str, Any]:
    """The model's message with a text."""
    return {"role": "assistant", "content": text}


def calling(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The model's message with a call of a tool."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


async def complete(request: Request) -> JSONResponse:
    message = decide((await request.json())["messages"])
    finished = "tool_calls" if "tool_calls" in message else "stop"
    return JSONResponse(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "scripted",
            "choices": [{"index": 0, "message": message, "finish_reason": finished}],
        }
    )


@contextmanager
def scripted_model() -> Iterator[str]:
    """Runs the model on a thread and gives its address."""
    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    try:
        # Connections wait in the socket until the server takes them.
        yield f"http://127.0.0.1:{socket.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
