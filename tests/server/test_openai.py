"""The dialect of OpenAI, with OpenAI's own client."""

import asyncio
import base64

import numpy as np
import openai
import pytest
from running import running

from arrowembed import Embedder
from arrowembed.server.security.keys import new_key

TEXTS = ["the cat sleeps on the mat", "rain is expected tomorrow"]
KEY = "unused"


@pytest.fixture(scope="module")
def tiny(bert_mean_folder):
    return Embedder(bert_mean_folder)


@pytest.fixture
def client(service):
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def embed(client):
    """The vectors that the client gets."""

    def embed(texts, **options):
        answer = client.embeddings.create(model="tiny", input=texts, **options)
        assert [each.index for each in answer.data] == list(range(len(answer.data)))
        return np.array([each.embedding for each in answer.data], np.float32)

    return embed


def test_vectors_are_those_of_the_embedder(embed, tiny, texts):
    given = [text for text in texts if text]
    expected = tiny.encode(given, normalize="l2")
    # Without a format, the client asks for base64.
    for options in ({}, {"encoding_format": "float"}):
        vectors = embed(given, extra_body={"truncate": True}, **options)
        np.testing.assert_array_equal(vectors, expected)


def test_one_text(embed, tiny):
    np.testing.assert_array_equal(embed(TEXTS[0]), [tiny.encode(TEXTS[0], normalize="l2")])


def test_base64_is_what_is_sent(client, tiny):
    answer = client.embeddings.create(model="tiny", input=TEXTS, encoding_format="base64")
    decoded = [np.frombuffer(base64.b64decode(each.embedding), "<f4") for each in answer.data]
    np.testing.assert_array_equal(decoded, tiny.encode(TEXTS, normalize="l2"))


def test_the_answer_says_what_it_is(client, tiny):
    answer = client.embeddings.create(model="small", input=TEXTS, user="somebody")
    tokens = sum(map(len, tiny.tokenize(TEXTS)["input_ids"]))
    assert (answer.object, answer.data[1].object) == ("list", "embedding")
    assert answer.model == "tiny"
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (tokens, tokens)


def test_dimensions(embed, tiny):
    expected = tiny.encode(TEXTS, normalize="l2", truncate_dim=8)
    np.testing.assert_array_equal(embed(TEXTS, dimensions=8), expected)
    # JSON has one kind of numbers.
    np.testing.assert_array_equal(embed(TEXTS, dimensions=8.0), expected)


def test_token_ids_are_the_texts_that_they_stand_for(embed, tiny):
    ids = tiny.tokenize(TEXTS)["input_ids"]
    assert ids[0][0] == tiny.tokenize("")["input_ids"][0][0], "a special token stands in front"
    expected = tiny.encode(TEXTS, normalize="l2")
    np.testing.assert_array_equal(embed(ids), expected)
    np.testing.assert_array_equal(embed(ids[1]), expected[1:])
    bare = [each[1:-1] for each in ids]
    np.testing.assert_array_equal(embed(bare), expected)


def test_the_asynchronous_client(service, tiny):
    async def embed():
        url = f"{service.url}/v1"
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            create = client.embeddings.create
            answers = await asyncio.gather(*(create(model="tiny", input=text) for text in TEXTS))
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve("no")
        return [answer.data[0].embedding for answer in answers]

    vectors = np.array(asyncio.run(embed()), np.float32)
    np.testing.assert_array_equal(vectors, tiny.encode(TEXTS, normalize="l2"))


def test_models(client):
    models = {model.id: model for model in client.models.list()}
    assert set(models) == {"tiny", "small", "prompted"}
    assert client.models.retrieve("small") == models["small"]
    assert models["tiny"].object == "model"
    assert models["tiny"].created > 1_700_000_000


def test_a_name_with_a_slash(bert_mean_folder):
    model = {"name": "someone/tiny", "source": str(bert_mean_folder)}
    with (
        running(models=[model]) as service,
        openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        assert client.models.retrieve("someone/tiny").id == "someone/tiny"
        assert client.embeddings.create(model="someone/tiny", input="a").model == "someone/tiny"


BAD = [
    ({"input": ""}, "input", "invalid_request", "text 0 is empty"),
    ({"input": ["a", ""]}, "input", "invalid_request", "text 1 is empty"),
    ({"input": []}, "input", "invalid_request", "input: "),
    ({"input": [[]]}, "input", "invalid_request", "input[0]: should be a text"),
    ({"input": None}, "input", "invalid_request", "input: should be a valid list"),
    ({"input": ["a", [1]]}, "input", "invalid_request", "input: holds texts and token ids"),
    ({"input": [1, True]}, "input", "invalid_request", "input[0]: should be a text"),
    ({"input": [1, -1]}, "input", "invalid_request", "input[0]: should be a text"),
    ({"input": [[1], [2**40]]}, "input", "invalid_request", "there is no token 1099511627776"),
    ({"input": "a" * 100_001}, "input", "text_too_large", "text 0 has 100001 characters"),
    ({"input": "a word " * 500}, "input", "context_length_exceeded", "text 0"),
    ({"input": ["a"] * 101}, "input", "too_many_texts", "101 texts; send at most 100"),
    ({"input": [[1]] * 101}, "input", "too_many_texts", "101 texts"),
    ({"input": ["a"] * 2049}, "input", "invalid_request", "at most 2048 items"),
    ({"input": "a", "dimensions": 0}, "dimensions", "invalid_request", "dimensions: "),
    ({"input": "a", "dimensions": 8.5}, "dimensions", "invalid_request", "valid integer"),
    ({"input": "a", "dimensions": 10_000}, "dimensions", "invalid_request", "tiny has "),
    ({"input": "a", "encoding_format": "hex"}, "encoding_format", "invalid_request", "'float' or"),
    ({"input": "a", "user": 1}, "user", "invalid_request", "user: should be a valid string"),
    ({"model": None, "input": "a"}, "model", "invalid_request", "model: should be"),
]


@pytest.mark.parametrize(("fields", "param", "code", "message"), BAD, ids=range(len(BAD)))
def test_bad_requests(client, fields, param, code, message):
    with pytest.raises(openai.BadRequestError) as caught:
        # As it is, past the client's own types.
        client.post("/embeddings", cast_to=object, body={"model": "tiny", **fields})
    error = caught.value
    assert (error.type, error.param, error.code) == ("invalid_request_error", param, code)
    assert message in error.message
    assert error.request_id == error.response.headers["x-request-id"]


def test_unknown_models_and_paths(client):
    for ask in (
        lambda: client.embeddings.create(model="no", input="a"),
        lambda: client.models.retrieve("no"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="tiny", messages=[])
    assert caught.value.code == "not_found"


def test_strangers_are_told_in_the_same_form(bert_mean_folder):
    key, kept = new_key("client", ["embed"])
    options = {"max_retries": 0}
    with running(models=[str(bert_mean_folder)], api_keys=kept.entry()) as service:
        options["base_url"] = f"{service.url}/v1"
        with openai.OpenAI(api_key=key, **options) as client:
            assert client.embeddings.create(model="bert-mean", input="a").data
        with openai.OpenAI(api_key="wrong", **options) as client:
            with pytest.raises(openai.AuthenticationError) as caught:
                client.embeddings.create(model="bert-mean", input="a")
            assert caught.value.code == "invalid_api_key"
            assert caught.value.type == "authentication_error"


def test_too_many_requests(bert_mean_folder):
    with (
        running(models=[str(bert_mean_folder)], rate_limit=1) as service,
        openai.OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0) as client,
    ):
        client.embeddings.create(model="bert-mean", input="a")
        with pytest.raises(openai.RateLimitError) as caught:
            client.embeddings.create(model="bert-mean", input="a")
        assert (caught.value.type, caught.value.code) == (
            "rate_limit_error",
            "rate_limit_exceeded",
        )
        assert int(caught.value.response.headers["retry-after"]) >= 1
