"""A service that speaks as the services of models do, and says what it was told to say.

It reads requests as strictly as the types of the official SDKs describe them.
"""

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from anthropic.types import MessageParam, ToolParam
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import FunctionToolParam, ResponseInputItemParam
from pydantic import TypeAdapter
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

TYPES = {
    "/v1/chat/completions": ("messages", ChatCompletionMessageParam, ChatCompletionToolParam),
    "/v1/responses": ("input", ResponseInputItemParam, FunctionToolParam),
    "/v1/messages": ("messages", MessageParam, ToolParam),
}


@dataclass
class Endpoint:
    """What the model is to say, turn by turn, and what it was asked."""

    turns: list = field(default_factory=list)
    """Each a text, or a list of calls: (name, arguments); text of arguments is passed on as it is,
    where the dialect has it."""
    requests: list = field(default_factory=list)
    url: str = ""

    async def answer(self, request):
        body = await request.json()
        key, message, tool = TYPES[request.url.path]
        TypeAdapter(list[message]).validate_python(body[key])
        TypeAdapter(list[tool]).validate_python(body["tools"])
        self.requests.append(body)
        turn = self.turns[len(self.requests) - 1]
        number = len(self.requests)
        return JSONResponse(
            {
                "/v1/chat/completions": chat_completion,
                "/v1/responses": response,
                "/v1/messages": message_of_anthropic,
            }[request.url.path](turn, number)
        )


def chat_completion(turn, number):
    message = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if isinstance(turn, str):
        message["content"] = turn
    else:
        message["tool_calls"] = [
            {
                "id": f"call_{number}_{i}",
                "type": "function",
                "function": {"name": name, "arguments": as_text(arguments)},
            }
            for i, (name, arguments) in enumerate(turn)
        ]
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "stop" if isinstance(turn, str) else "tool_calls",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


def response(turn, number):
    if isinstance(turn, str):
        text = {"type": "output_text", "text": turn, "annotations": []}
        output = [
            {
                "id": f"msg_{number}",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [text],
            }
        ]
    else:
        output = [{"id": f"rs_{number}", "type": "reasoning", "summary": []}]
        output += [
            {
                "id": f"fc_{number}_{i}",
                "call_id": f"call_{number}_{i}",
                "type": "function_call",
                "status": "completed",
                "name": name,
                "arguments": as_text(arguments),
            }
            for i, (name, arguments) in enumerate(turn)
        ]
    return {
        "id": f"resp_{number}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "model": "scripted",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
    }


def message_of_anthropic(turn, number):
    if isinstance(turn, str):
        content = [{"type": "text", "text": turn, "citations": None}]
    else:
        content = [{"type": "text", "text": "I use tools.", "citations": None}]
        content += [
            {"type": "tool_use", "id": f"toolu_{number}_{i}", "name": name, "input": arguments}
            for i, (name, arguments) in enumerate(turn)
        ]
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": content,
        "stop_reason": "end_turn" if isinstance(turn, str) else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def as_text(arguments):
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


@contextmanager
def endpoint(*turns):
    """The service, in a thread of this process."""
    served = Endpoint(list(turns))
    app = Starlette(routes=[Route(path, served.answer, methods=["POST"]) for path in TYPES])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    try:
        # Connections wait in the socket until the server takes them.
        served.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        yield served
    finally:
        server.should_exit = True
        thread.join()
