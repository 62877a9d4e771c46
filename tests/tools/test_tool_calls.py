"""Calls of one tool: right ones, wrong ones that can only mean one thing, and other wrong ones."""

import asyncio
import json
import logging
import math
from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any

import pytest

from arrowembed.errors import ModelNotFoundError
from arrowembed.tools import Tool, ToolError, tool


class Unit(Enum):
    celsius = "celsius"
    kelvin = "kelvin"


@dataclass
class Place:
    city: str
    height: int = 0


@tool(example={"place": {"city": "Ulm"}, "days": 2})
def forecast(
    place: Place,
    days: int,
    *,
    unit: Unit = Unit.celsius,
    tags: list[str] | None = None,
    options: dict[str, int] | None = None,
    from_: date = date(2026, 1, 1),
) -> dict[str, Any]:
    """Gives back what it was given."""
    return {
        "place": place,
        "days": days,
        "unit": unit,
        "tags": tags,
        "options": options,
        "from": from_,
    }


PLAIN = {
    "place": {"city": "Ulm", "height": 0},
    "days": 2,
    "unit": "celsius",
    "tags": None,
    "options": None,
    "from": "2026-01-01",
}
RIGHT = {"place": {"city": "Ulm"}, "days": 2}


def called(arguments, function=forecast, **traits):
    return Tool(function, **traits).call(arguments)


def error(arguments, function=forecast, **traits):
    outcome = called(arguments, function, **traits)
    assert list(outcome) == ["ok", "error"]
    assert outcome["ok"] is False
    assert list(outcome["error"]) == ["code", "message", "hint"]
    assert all(outcome["error"].values())
    return outcome["error"]


def test_a_marked_function_stays_what_it_is():
    assert forecast(Place("Ulm"), 1)["days"] == 1


@pytest.mark.parametrize(
    "arguments",
    [RIGHT, json.dumps(RIGHT), json.dumps(RIGHT).encode()],
    ids=["dict", "str", "bytes"],
)
def test_arguments_are_an_object_or_json_of_one(arguments):
    assert called(arguments) == {"ok": True, "result": PLAIN}


@pytest.mark.parametrize("arguments", [None, {}, "", "  ", b"", "{}"])
def test_nothing_stands_for_no_arguments(arguments):
    def now() -> str:
        """Tells the time."""
        return "noon"

    assert called(arguments, now) == {"ok": True, "result": "noon"}


@pytest.mark.parametrize(
    ("arguments", "result"),
    [
        ({**RIGHT, "days": 2.0}, {}),
        ({**RIGHT, "unit": None, "from": None, "tags": None}, {}),
        ({**RIGHT, "place": '{"city": "Ulm"}'}, {}),
        ({**RIGHT, "tags": '["a", "b"]'}, {"tags": ["a", "b"]}),
        ({**RIGHT, "options": '{"a": 1}'}, {"options": {"a": 1}}),
        ({**RIGHT, "options": '{"a": 1.0}'}, {"options": {"a": 1}}),
        ({**RIGHT, "place": '{"city": "Ulm", "height": null}'}, {}),
        (json.dumps({**RIGHT, "days": 2.0, "tags": "[]", "unit": None}), {"tags": []}),
    ],
)
def test_what_can_only_mean_one_thing_is_taken_for_it(arguments, result):
    assert called(arguments) == {"ok": True, "result": {**PLAIN, **result}}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"place": {"city": "Ulm"}}, ["days is missing"]),
        ({**RIGHT, "days": None}, ["days is missing, given null"]),
        ({**RIGHT, "days": "2"}, ['days should be a valid integer, given "2"']),
        ({**RIGHT, "days": True}, ["days should be a valid integer, given true"]),
        ({**RIGHT, "days": 2.5}, ["days", "integer", "given 2.5"]),
        ({**RIGHT, "day": 2}, ['day is unknown; did you mean "days"?']),
        ({**RIGHT, "zzz": 2}, ["zzz is unknown; known are place, days, unit, tags, options, from"]),
        ({**RIGHT, "unit": "celcius"}, ["unit should be 'celsius' or 'kelvin', given \"celcius\""]),
        ({**RIGHT, "tags": ["a", 1, 2]}, ["tags[1] should be a valid string, given 1", "tags[2]"]),
        ({**RIGHT, "tags": "a"}, ['tags should be a valid array, given "a"']),
        ({**RIGHT, "place": {"city": 1}}, ["place.city should be a valid string, given 1"]),
        ({**RIGHT, "place": {"town": "Ulm"}}, ["place.city is missing", "place.town"]),
        ({**RIGHT, "from": "yesterday"}, ["from should be a valid date", 'given "yesterday"']),
        ({"day": 2}, ["place is missing", "days is missing", "day is unknown"]),
        ([RIGHT], ["should be an object, given ["]),
        ("3", ["should be an object, given 3"]),
        ({**RIGHT, "tags": [1] * 100}, ["and 95 more"]),
        ({**RIGHT, "days": "x" * 1000}, ["of 1000 characters"]),
    ],
)
def test_a_wrong_call_is_told_how_to_put_it_right(arguments, told):
    wrong = error(arguments)
    assert wrong["code"] == "invalid_arguments"
    assert wrong["message"].startswith("forecast: ")
    for part in told:
        assert part in wrong["message"]
    assert len(wrong["message"]) < 500
    assert '{"place":{"city":"Ulm"},"days":2}' in wrong["hint"]


def test_of_a_union_the_branch_that_was_meant_is_told():
    def either(value: list[str] | Place) -> int:
        """Takes either."""
        return 1

    assert "value[0] should be a valid string" in error({"value": [1]}, either)["message"]
    assert "value.city is missing" in error({"value": {}}, either)["message"]
    assert "array or should be an object" in error({"value": 3}, either)["message"]


DEEP = {}
for _ in range(5000):
    DEEP = {"a": DEEP}
CIRCLE = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "arguments",
    [
        '{"place": {"city": "Ulm"',
        "days=2",
        b"\xff\xfe",
        '{"place": "\\ud800"}',
        "\ud800",
        {**RIGHT, "tags": ["\ud800"]},
        {**RIGHT, "tags": [object()]},
        {**RIGHT, "options": CIRCLE},
        {**RIGHT, "options": DEEP},
        "[" * 5000,
    ],
)
def test_what_is_no_json_is_told_so(arguments):
    wrong = error(arguments)
    assert wrong["code"] == "invalid_json"
    json.dumps(wrong).encode()
    json.dumps(wrong, ensure_ascii=False).encode()


def test_nan_is_no_number():
    def half(value: float) -> float:
        """Halves."""
        return value / 2

    assert called({"value": 3}, half)["result"] == 1.5
    for value in (math.nan, math.inf, -math.inf):
        assert "value should be a finite number" in error({"value": value}, half)["message"]
    assert error("[NaN]", half)["code"] == "invalid_arguments"


def test_errors_of_tools_are_told_in_full():
    def fail() -> None:
        """Fails."""
        raise ToolError("no such city", code="no_city", hint="Ask for another one.")

    assert called({}, fail) == {
        "ok": False,
        "error": {"code": "no_city", "message": "no such city", "hint": "Ask for another one."},
    }

    def lose() -> None:
        """Fails."""
        raise ModelNotFoundError("no model under that name")

    assert error({}, lose)["code"] == "model_not_found"
    assert error({}, lose)["message"] == "no model under that name"


def test_of_other_errors_only_the_kind_is_told_and_logged(caplog):
    def fail() -> None:
        """Fails."""
        raise KeyError("the secret")

    with caplog.at_level(logging.DEBUG):
        wrong = error({}, fail)
    assert (wrong["code"], wrong["message"]) == ("internal", "fail: failed with KeyError")
    assert "secret" not in json.dumps(wrong)
    assert "in fail" in caplog.text
    assert "the secret" not in caplog.messages[0].replace('raise KeyError("the secret")', "")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_who_wants_to_end_the_process_may(interrupt):
    def stop() -> None:
        """Stops."""
        raise interrupt

    with pytest.raises(interrupt):
        called({}, stop)


@pytest.mark.parametrize(
    "result", [{"a": object()}, {1, object()}, math.nan, [math.inf], "\ud800", CIRCLE, DEEP]
)
def test_results_that_json_does_not_have_are_a_fault_of_the_tool(result):
    def give() -> Any:
        """Gives it."""
        return result

    wrong = error({}, give)
    assert wrong["code"] == "invalid_result"
    assert "fault of the tool" in wrong["hint"]


def test_results_of_another_type_than_was_promised_are_a_fault_of_the_tool():
    def give() -> list[int]:
        """Gives something else."""
        return "three"

    wrong = error({}, give)
    assert wrong["code"] == "invalid_result"
    assert "three" not in wrong["message"]


def test_results_become_plain_json():
    def give() -> Any:
        """Gives many kinds."""
        return {"place": Place("Ulm"), "day": date(2026, 5, 4), "unit": Unit.kelvin, "t": (1, 2)}

    result = called({}, give)["result"]
    assert result == {
        "place": {"city": "Ulm", "height": 0},
        "day": "2026-05-04",
        "unit": "kelvin",
        "t": [1, 2],
    }
    assert json.loads(json.dumps(result)) == result


def test_results_are_bounded():
    def give(length: int) -> str:
        """Gives a long text."""
        return "ä" * length

    assert called({"length": 49}, give, max_output_bytes=100)["ok"]
    wrong = error({"length": 50}, give, max_output_bytes=100)
    assert wrong["code"] == "result_too_large"
    assert "102 bytes" in wrong["message"]


def test_names_of_pydantic_and_of_python_are_names_like_others():
    def strange(json: int, copy: int, model_config: int, schema: int, class_: int) -> list[int]:
        """Takes strange names."""
        return [json, copy, model_config, schema, class_]

    arguments = {"json": 1, "copy": 2, "model_config": 3, "schema": 4, "class": 5}
    assert called(arguments, strange)["result"] == [1, 2, 3, 4, 5]


def test_async_functions_are_tools():
    async def later(value: int) -> int:
        """Takes its time."""
        await asyncio.sleep(0)
        if value < 0:
            raise ToolError("below 0")
        return value

    made = Tool(later)
    assert made.call({"value": 1}) == {"ok": True, "result": 1}
    assert asyncio.run(made.acall({"value": 2})) == {"ok": True, "result": 2}
    assert asyncio.run(made.acall({"value": -1}))["error"]["message"] == "below 0"
    assert asyncio.run(made.acall({"value": "x"}))["error"]["code"] == "invalid_arguments"
    assert asyncio.run(Tool(forecast).acall(RIGHT))["result"] == PLAIN


def test_objects_that_can_be_called_are_tools():
    class Counter:
        """Counts."""

        def __init__(self):
            self.count = 0

        def __call__(self, by: int = 1) -> int:
            """Counts on."""
            self.count += by
            return self.count

    counter = Tool(Counter(), name="count")
    assert [counter.call({"by": 2})["result"], counter.call()["result"]] == [2, 3]

    class Later:
        """Takes its time."""

        async def __call__(self, value: int) -> int:
            return value

    assert Tool(Later(), name="later").call({"value": 1})["result"] == 1


def test_an_async_function_can_be_called_where_an_event_loop_runs():
    async def later(value: int) -> int:
        """Takes its time."""
        await asyncio.sleep(0)
        return value

    async def main():
        return Tool(later).call({"value": 1})

    assert asyncio.run(main())["result"] == 1


def test_work_that_was_cancelled_is_answered_too():
    def give_up() -> None:
        """Gives up."""
        raise asyncio.CancelledError

    assert error({}, give_up)["code"] == "cancelled"
