"""Values that fulfil a JSON Schema, as far as the schemas of these tests go."""

import json

from hypothesis import strategies as st

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
)
NAMES = st.text(max_size=8)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
OPEN_OBJECTS = st.dictionaries(NAMES, ANY_JSON, max_size=3)

MAX_LENGTH = 6
"""Of texts and lists, where more are allowed."""


def values_of(schema, definitions=None):
    """A strategy of values that fulfil the schema."""
    definitions = schema.get("$defs", definitions or {})
    if "$ref" in schema:
        return values_of(definitions[schema["$ref"].removeprefix("#/$defs/")], definitions)
    if "anyOf" in schema:
        return st.one_of([values_of(branch, definitions) for branch in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    return KINDS[schema["type"]](schema, definitions)


def integers(schema, definitions):
    whole = st.integers(schema.get("minimum"), schema.get("maximum"))
    # In JSON Schema, 5.0 is an integer.
    return whole.flatmap(lambda number: st.sampled_from([number, float(number)]))


def strings(schema, definitions):
    if "JSON text" in schema.get("description", ""):
        return OPEN_OBJECTS.map(json.dumps)
    return st.text(min_size=schema.get("minLength", 0), max_size=MAX_LENGTH)


def arrays(schema, definitions):
    low = schema.get("minItems", 0)
    items = values_of(schema["items"], definitions)
    return st.lists(items, min_size=low, max_size=max(low, MAX_LENGTH))


def objects(schema, definitions):
    if "properties" not in schema:
        return OPEN_OBJECTS
    required = schema.get("required", [])
    made = {name: values_of(inner, definitions) for name, inner in schema["properties"].items()}
    return st.fixed_dictionaries(
        {name: made[name] for name in required},
        optional={name: value for name, value in made.items() if name not in required},
    )


KINDS = {
    "null": lambda schema, definitions: st.none(),
    "integer": integers,
    "string": strings,
    "array": arrays,
    "object": objects,
}
