"""The dialect of text-embeddings-inference, with Hugging Face's own client."""

import threading

import httpx
import numpy as np
import pytest
from exposition import scrape
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from running import running

from arrowembed import Embedder

TEXTS = ["the cat sleeps on the mat", "rain is expected tomorrow"]


@pytest.fixture(autouse=True)
def _online(monkeypatch):
    """Else Hugging Face's client does not even ask this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.fixture(scope="module")
def tiny(bert_mean_folder):
    return Embedder(bert_mean_folder)


@pytest.fixture
def client(service):
    with InferenceClient(service.url, provider="hf-inference", timeout=60) as client:
        yield client


@pytest.fixture
def ask(service):
    """The answer to a request that must succeed."""

    def ask(path, fields):
        answer = service.post(path, fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


@pytest.mark.parametrize("path", ["", "/", "/embed"])
def test_feature_extraction(service, tiny, path):
    with InferenceClient(service.url + path, timeout=60) as client:
        one = client.feature_extraction(TEXTS[0])
        several = client.feature_extraction(TEXTS)
    np.testing.assert_array_equal(one, tiny.encode(TEXTS[:1], normalize="l2"))
    np.testing.assert_array_equal(several, tiny.encode(TEXTS, normalize="l2"))


def test_options_of_feature_extraction(client, tiny):
    long = "a word " * 500
    vectors = client.feature_extraction(
        [long, "b"], normalize=False, truncate=True, truncation_direction="right", dimensions=8
    )
    expected = tiny.encode([long, "b"], normalize="none", truncate_dim=8)
    np.testing.assert_array_equal(vectors, expected)


def test_prompts(prompted_folder):
    model = Embedder(prompted_folder)
    with (
        running(models=[str(prompted_folder)]) as service,
        InferenceClient(service.url, timeout=60) as client,
    ):
        vectors = client.feature_extraction(TEXTS, prompt_name="query")
        expected = model.encode(TEXTS, prompt_name="query", normalize="l2")
        np.testing.assert_array_equal(vectors, expected)


@pytest.mark.parametrize("path", ["", "/similarity"])
def test_sentence_similarity(service, tiny, path):
    with InferenceClient(service.url + path, timeout=60) as client:
        found = client.sentence_similarity(TEXTS[0], ["a cat is asleep", TEXTS[0]])
    expected = tiny.similarity(TEXTS[0], ["a cat is asleep", TEXTS[0]])[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_similarity_with_parameters(ask, tiny):
    inputs = {"source_sentence": "a word " * 500, "sentences": ["b"]}
    found = ask("/similarity", {"inputs": inputs, "parameters": {"truncate": True}})
    expected = tiny.similarity(inputs["source_sentence"], ["b"])[0]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_facts_that_clients_look_for(client, tiny):
    facts = client.get_endpoint_info()
    assert facts["model_id"] == facts["served_model_name"] == "tiny"
    assert facts["model_type"] == {"embedding": {"pooling": "mean"}}
    assert facts["model_dtype"] == "float32"
    assert facts["max_input_length"] == tiny.max_seq_length
    assert facts["max_client_batch_size"] == 100
    assert client.health_check()


def test_inputs_as_token_ids(ask, tiny):
    ids = tiny.tokenize(TEXTS)["input_ids"]
    expected = tiny.encode(TEXTS, normalize="l2")
    np.testing.assert_array_equal(np.array(ask("/embed", {"inputs": ids}), np.float32), expected)


def test_tokens(ask, tiny):
    ids = tiny.tokenize(TEXTS)["input_ids"]
    answer = ask("/tokenize", {"inputs": TEXTS})
    assert [[token["id"] for token in tokens] for tokens in answer] == ids
    first, *inner, last = answer[0]
    assert (first["text"], first["special"]) == ("[CLS]", True)
    assert (last["text"], last["special"]) == ("[SEP]", True)
    assert not any(token["special"] for token in inner)
    assert (first["start"], last["stop"]) == (None, None)
    assert "".join(token["text"] for token in inner) == TEXTS[0].replace(" ", "")
    assert all(token["text"] == TEXTS[0][token["start"] : token["stop"]] for token in inner)
    assert ask("/tokenize", {"inputs": TEXTS[0], "add_special_tokens": False}) == [inner]


def test_tokens_of_a_text_beyond_the_limit(ask, tiny):
    text = "a wörd " * 500
    (tokens,) = ask("/tokenize", {"inputs": text})
    assert len(tokens) > tiny.max_seq_length
    raw = text.encode()
    inner = [token for token in tokens if not token["special"]]
    # In bytes, as there.
    assert all(raw[t["start"] : t["stop"]].decode() == t["text"] for t in inner)
    assert "".join(token["text"] for token in inner) == text.replace(" ", "")
    cut = tiny.tokenize(text)["input_ids"][0]
    assert [token["id"] for token in tokens][: len(cut) - 1] == cut[:-1]


def test_tokens_with_a_prompt(prompted_folder):
    with running(models=[str(prompted_folder)]) as service:
        answer = service.post("/tokenize", {"inputs": TEXTS[0], "prompt_name": "query"})
    inner = [token for token in answer.json()[0] if not token["special"]]
    whole = f"query: {TEXTS[0]}"
    assert "".join(token["text"] for token in inner) == whole.replace(" ", "")
    assert inner[-1]["stop"] == len(whole)


def test_vectors_of_all_tokens(ask, tiny):
    texts = [TEXTS[0], "rain", ""]
    answer = ask("/embed_all", {"inputs": texts})
    expected = tiny.encode(texts, output_value="token_embeddings")
    assert len(answer) == len(texts)
    for vectors, matrix in zip(answer, expected, strict=True):
        np.testing.assert_array_equal(np.array(vectors, np.float32), matrix)
    (one,) = ask("/embed_all", {"inputs": "rain"})
    np.testing.assert_array_equal(np.array(one, np.float32), expected[1])
    ids = tiny.tokenize(texts[:2])["input_ids"]
    decoded = ask("/embed_all", {"inputs": ids})
    np.testing.assert_array_equal(np.array(decoded[0], np.float32), expected[0])


def test_vectors_of_tokens_of_a_text_that_is_cut(ask, service, tiny):
    long = "a word " * 500
    (vectors,) = ask("/embed_all", {"inputs": long, "truncate": True})
    assert len(vectors) == tiny.max_seq_length
    seen = scrape(service.client)
    assert seen.total("embedding_request_total", route="/embed_all", status="200") > 0
    assert seen.total("embedding_truncated_total") > 0


def test_too_many_wait_for_the_vectors_of_tokens(bert_mean_folder, monkeypatch):
    monkeypatch.setattr("arrowembed.server.served._MOST_WAITING", 0)
    begun, release = threading.Event(), threading.Event()

    def encode_tokens(self, texts, **options):
        begun.set()
        assert release.wait(60)
        return original(self, texts, **options)

    original = Embedder.encode_tokens
    monkeypatch.setattr(Embedder, "encode_tokens", encode_tokens)
    with running(models=[str(bert_mean_folder)]) as service:
        statuses = []

        def ask():
            answer = httpx.post(f"{service.url}/embed_all", json={"inputs": "a"}, timeout=60)
            statuses.append(answer.status_code)

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            assert begun.wait(60)
            answer = service.post("/embed_all", {"inputs": "a"})
            assert (answer.status_code, answer.json()["error_type"]) == (429, "overloaded")
            assert service.post("/embed", {"inputs": "a"}).status_code == 200
        finally:
            release.set()
            asking.join()
        assert statuses == [200]


def test_tokens_are_put_together(ask, tiny):
    ids = tiny.tokenize(TEXTS)["input_ids"]
    assert ask("/decode", {"ids": ids}) == TEXTS
    assert ask("/decode", {"ids": ids[0]}) == TEXTS[:1]
    whole = ask("/decode", {"ids": ids[0], "skip_special_tokens": False})
    assert whole == [f"[CLS] {TEXTS[0]} [SEP]"]


BAD = [
    ("/embed", {"inputs": []}, "inputs: "),
    ("/embed", {"inputs": ["a", 1]}, "inputs[1]: should be a text, or a list of token ids"),
    ("/embed", {"inputs": "a", "dimensions": 10_000}, "dimensions: 10000; tiny has "),
    ("/embed", {"inputs": "a", "truncation_direction": "left"}, "truncation_direction: "),
    ("/embed", {"inputs": "a word " * 500}, "text 0 has "),
    ("/", {"inputs": {"source_sentence": "a"}}, "inputs[sentences]: "),
    ("/", {"input": "a"}, "inputs: Field required"),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, "inputs[sentences]: "),
    ("/similarity", {"inputs": ["a"]}, "inputs: should be"),
    ("/tokenize", {"inputs": [[1]]}, "inputs[0]: should be a valid string"),
    ("/embed_all", {"inputs": []}, "inputs: "),
    ("/embed_all", {"inputs": "a word " * 500}, "text 0 has "),
    ("/embed_all", {"inputs": ["a"] * 101}, "101 texts; send at most 100"),
    ("/tokenize", {"inputs": ["a"] * 101}, "101 texts; send at most 100"),
    ("/decode", {"ids": []}, "ids: "),
    ("/decode", {"ids": [[1], [-1]]}, "ids[1][0]: should be greater than or equal to 0"),
    ("/decode", {"ids": [10**6]}, "there is no token 1000000; tiny has tokens below "),
    ("/decode", {"ids": [[1]] * 101}, "101 texts"),
]


@pytest.mark.parametrize(("path", "fields", "message"), BAD, ids=range(len(BAD)))
def test_bad_requests(service, path, fields, message):
    answer = service.post(path, fields)
    assert answer.status_code == 422
    error = answer.json()
    assert set(error) == {"error", "error_type"}
    assert error["error_type"] == "validation"
    assert message in error["error"]


def test_prompts_that_the_model_has_not(service):
    for path in ("/", "/embed", "/embed_all", "/tokenize"):
        answer = service.post(path, {"inputs": "a", "prompt_name": "no"})
        assert answer.status_code == 404
        assert answer.json()["error"].startswith("prompt_name: tiny has no such prompt")
        assert answer.json()["error_type"] == "validation"


@pytest.mark.parametrize(
    ("path", "field"), [("/embed", "texts"), ("/tokenize", "texts"), ("/similarity", "pairs")]
)
def test_one_dialect_at_a_time(service, path, field):
    status, error = service.error(path, {"inputs": ["a"], field: ["b"]})
    assert (status, error["code"]) == (422, "invalid_request")
    assert error["message"] == f"{field}, inputs: one of them, not both"


def test_all_that_takes_texts_counts_against_the_rate_limit(bert_mean_folder):
    requests = [
        ("/", {"inputs": "a"}),
        ("/", {"inputs": [[5]]}),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b"]}}),
        ("/tokenize", {"inputs": "a"}),
        ("/embed_all", {"inputs": "a"}),
        ("/decode", {"ids": [5]}),
    ]
    with running(models=[str(bert_mean_folder)], rate_limit=1, rate_limit_burst=7) as service:
        for path, fields in requests:
            assert service.post(path, fields).status_code == 200
        for path, fields in requests:
            answer = service.post(path, fields)
            assert answer.status_code == 429, path
            assert answer.json()["error_type"] == "overloaded"


def test_the_client_tells_errors(client, service):
    with pytest.raises(HfHubHTTPError, match="text 0 has "):
        client.feature_extraction("a word " * 500)
    answer = service.client.post("/", content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error_type"]) == (400, "validation")
