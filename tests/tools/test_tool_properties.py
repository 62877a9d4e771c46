"""Whatever JSON comes: an answer of the form that was promised, within bounds, and no exception."""

import json
from functools import cache

import jsonschema
import pytest
from dictionary_store import DictionaryStore
from from_schema import ANY_JSON, values_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arrowembed.tools import EmbeddingTool
from arrowembed.tools.room import MIN_BYTES, json_bytes

ACTIONS = ["embed", "similarity", "search", "remember", "forget"]

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
"""With half surrogate pairs, which JSON can write and Unicode does not have."""

ANY_PYTHON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=4)
        | st.tuples(inner)
    ),
    max_leaves=12,
)

quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def embedding(model, tmp_path):
    embedding = EmbeddingTool(model, DictionaryStore.of(model, tmp_path))
    assert embedding.execute("remember", {"texts": ["a", "b" * 5000], "metadata": {"n": 1}})["ok"]
    return embedding


def check(embedding, action, params):
    """Asserts what holds of every outcome."""
    outcome = embedding.execute(action, params)
    text = json.dumps(outcome, ensure_ascii=False, allow_nan=False)
    assert json.loads(text) == outcome
    if outcome["ok"]:
        assert list(outcome) == ["ok", "result"]
        assert json_bytes(outcome["result"]) <= MIN_BYTES
        output_validator(embedding, action).validate(outcome["result"])
    else:
        assert outcome.keys() == {"ok", "error"}
        assert outcome["error"].keys() == {"code", "message", "hint"}
        assert all(isinstance(value, str) and value for value in outcome["error"].values())
        assert len(text.encode()) < 20_000
        assert outcome["error"]["code"] != "internal"
    return outcome


@cache
def output_validator(embedding, action):
    schema = next(tool for tool in embedding.tools() if tool.name == action).returns.schema()
    return jsonschema.Draft202012Validator(schema)


@cache
def valid_arguments(embedding, action, form):
    """A strategy of arguments that fulfil the schema of an action."""
    tool = next(tool for tool in embedding.tools() if tool.name == action)
    schema = tool.get_schema(form)
    return values_of(schema["parameters"] if form == "openai_responses" else schema)


@quick
@given(action=st.sampled_from(ACTIONS) | ANY_TEXT, params=ANY_PYTHON)
def test_whatever_comes_from_python_is_answered(embedding, action, params):
    check(embedding, action, params)


@quick
@given(action=st.sampled_from(ACTIONS), params=ANY_JSON.map(json.dumps) | ANY_TEXT | st.binary())
def test_whatever_text_comes_is_answered(embedding, action, params):
    check(embedding, action, params)


@pytest.mark.parametrize("form", ["json_schema", "openai_responses"])
@pytest.mark.parametrize("action", ACTIONS)
@quick
@given(data=st.data())
def test_what_the_schema_allows_is_never_refused_for_its_form(embedding, action, form, data):
    arguments = data.draw(valid_arguments(embedding, action, form))
    params = data.draw(st.sampled_from([arguments, json.dumps(arguments)]))
    outcome = check(embedding, action, params)
    if outcome["ok"]:
        return
    # Handles that nobody gave, ids of another number, filters with unknown conditions.
    if outcome["error"]["code"] not in {"unknown_handle", "invalid_argument", "result_too_large"}:
        # Strict schemas cannot say how long a text has to be.
        assert form == "openai_responses"
        assert "should have at least 1 character" in outcome["error"]["message"]


@pytest.mark.parametrize("action", ACTIONS)
@quick
@given(data=st.data())
def test_what_the_schema_does_not_allow_is_named(embedding, action, data):
    schema = next(tool for tool in embedding.tools() if tool.name == action).get_schema()
    arguments = data.draw(valid_arguments(embedding, action, "json_schema"))
    name = data.draw(st.sampled_from(list(schema["properties"])))
    wrong = data.draw(ANY_JSON)
    properties = {name: schema["properties"][name]}
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    kind = jsonschema.Draft202012Validator({"properties": properties, **definitions})
    outcome = check(embedding, action, {**arguments, name: wrong})
    if outcome["ok"]:
        # It was right by chance, or could only be meant in one way.
        assert kind.is_valid({name: wrong}) or wrong is None or isinstance(wrong, str)
    elif outcome["error"]["code"] == "invalid_arguments":
        assert name in outcome["error"]["message"]
        assert not kind.is_valid({name: wrong})


@pytest.mark.parametrize("action", ACTIONS)
@quick
@given(data=st.data())
def test_arguments_too_many_or_too_few_are_named(embedding, action, data):
    schema = next(tool for tool in embedding.tools() if tool.name == action).get_schema()
    arguments = data.draw(valid_arguments(embedding, action, "json_schema"))
    extra = data.draw(
        st.text(min_size=1, max_size=8).filter(lambda n: n not in schema["properties"])
    )
    message = check(embedding, action, {**arguments, extra: 1})["error"]["message"]
    assert f"{extra} is unknown" in message
    for name in schema.get("required", []):
        without = {key: value for key, value in arguments.items() if key != name}
        assert f"{name} is missing" in check(embedding, action, without)["error"]["message"]
