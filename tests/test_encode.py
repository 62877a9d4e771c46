"""What `encode` and its siblings give."""

import asyncio
import json
import logging
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from arrowembed import Embedder, get_num_threads, progress, set_num_threads
from arrowembed.errors import (
    ArrowEmbedError,
    InvalidArgumentError,
    InvalidTextError,
    MissingDependencyError,
    TextTooLongError,
    TextTypeError,
)

HF = Path(__file__).parent / "data" / "hf"
LONG = "many words " * 200


def test_one_text_gives_one_vector(model):
    vector = model.encode("one text")
    assert vector.shape == (48,)
    assert vector.dtype == np.float32
    np.testing.assert_array_equal(vector, model.encode(["one text"])[0])


def test_many_texts_give_a_matrix_in_c_order(model):
    vectors = model.encode(["many", "texts", "here"])
    assert vectors.shape == (3, 48)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert vectors.flags.writeable


@pytest.mark.parametrize("nothing", [[], (), np.array([], dtype=str), iter([])])
def test_no_texts_give_no_rows(model, nothing):
    assert model.encode(nothing).shape == (0, 48)


@pytest.mark.parametrize(
    ("precision", "width"),
    [("float32", 48), ("float16", 48), ("int8", 48), ("uint8", 48), ("binary", 6), ("ubinary", 6)],
)
def test_no_texts_keep_the_width_of_the_precision(model, precision, width):
    assert model.encode([], precision=precision).shape == (0, width)


@pytest.mark.parametrize("name", ["bert", "bert-mean"])
def test_vectors_are_those_of_sentence_transformers(name, bert_folder, bert_mean_folder):
    model = Embedder(bert_folder if name == "bert" else bert_mean_folder)
    texts = json.loads((HF / name / "texts.json").read_text("utf-8"))["texts"]
    with np.load(HF / name / "expected.npz") as expected:
        np.testing.assert_allclose(model.encode(texts), expected["embeddings"], atol=2e-6, rtol=0)
        last_hidden = expected["last_hidden_1"]
    tokens = model.encode(texts[1], output_value="token_embeddings")
    np.testing.assert_allclose(tokens, last_hidden, atol=2e-5, rtol=0)


def test_token_ids_are_those_of_transformers(bert_folder):
    expected = json.loads((HF / "bert" / "texts.json").read_text("utf-8"))
    features = Embedder(bert_folder).tokenize(expected["texts"])
    assert features["input_ids"] == expected["input_ids"]
    assert [len(mask) for mask in features["attention_mask"]] == list(
        map(len, expected["input_ids"])
    )
    assert all(set(mask) == {1} for mask in features["attention_mask"])
    assert all(set(types) == {0} for types in features["token_type_ids"])


def test_token_ids_stand_for_their_text(model):
    ids = model.tokenize("the cat sleeps")["input_ids"][0]
    assert model.decode(ids) == "the cat sleeps"
    assert model.decode(ids, skip_special_tokens=False) == "[CLS] the cat sleeps [SEP]"
    for bad in (-1, 2**32):
        with pytest.raises(InvalidArgumentError, match=str(bad)):
            model.decode([bad])


def test_tokens_and_where_they_stand(model):
    texts = ["The cat slééps", LONG, ""]
    found = model.tokenize_with_offsets(texts)
    for text, tokens in zip(texts, found, strict=True):
        raw = text.encode()
        inner = [token for token in tokens if not token.special]
        assert [token.text.encode() for token in inner] == [raw[t.start : t.stop] for t in inner]
        assert "".join(token.text for token in inner) == text.replace(" ", "")
        assert [(t.text, t.start) for t in tokens if t.special] == [
            ("[CLS]", None),
            ("[SEP]", None),
        ]
        cut = model.tokenize(text)["input_ids"][0]
        assert [token.id for token in tokens][: len(cut) - 1] == cut[:-1]
    assert len(found[1]) > model.max_seq_length
    (inner,) = model.tokenize_with_offsets("a cat", prompt="query: ", add_special_tokens=False)
    assert "".join(token.text for token in inner) == "query:acat"
    assert inner[-1].stop == len("query: a cat")
    with pytest.raises(InvalidTextError):
        model.tokenize_with_offsets(["a", "\ud800"])


def test_token_vectors_and_what_they_took(model):
    texts = ["the cat sleeps", LONG]
    vectors, stats = model.encode_tokens(texts)
    expected = model.encode(texts, output_value="token_embeddings")
    for ours, theirs in zip(vectors, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (stats["texts"], stats["truncated"]) == (2, 1)
    assert stats["tokens"] == sum(map(len, vectors))
    with pytest.raises(TextTooLongError):
        model.encode_tokens(texts, truncate=False)


def test_long_texts_are_tokenized_whole_or_not_at_all(model):
    assert len(model.tokenize(LONG)["input_ids"][0]) == model.max_seq_length
    with pytest.raises(TextTooLongError, match="text 1 has 1402 tokens"):
        model.tokenize(["short", LONG], truncate=False)


def test_a_text_has_the_same_vector_alone_and_among_others(model, texts):
    together = model.encode(texts)
    alone = np.stack([model.encode(text) for text in texts])
    np.testing.assert_array_equal(together, alone)


def test_order_in_is_order_out(model, texts):
    order = np.random.default_rng(7).permutation(len(texts))
    shuffled = model.encode([texts[i] for i in order])
    np.testing.assert_array_equal(shuffled, model.encode(texts)[order])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 1000])
def test_batch_size_changes_nothing(model, texts, batch_size):
    np.testing.assert_array_equal(model.encode(texts, batch_size=batch_size), model.encode(texts))


def test_threads_change_nothing(model, texts):
    before = get_num_threads()
    expected = model.encode(texts * 20)
    try:
        for count in (1, 2, 3):
            set_num_threads(count)
            assert get_num_threads() == count
            np.testing.assert_array_equal(model.encode(texts * 20), expected)
    finally:
        set_num_threads(before)


def test_empty_blank_and_nul_have_the_models_own_vectors(model):
    vectors = model.encode(["", "   ", "\x00", "word"])
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[3])


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "mean_sqrt", "last"])
def test_pooling(model, texts, pooling):
    pooled = model.encode(texts, pooling=pooling, normalize="none")
    for vector, tokens in zip(
        pooled, model.encode(texts, output_value="token_embeddings"), strict=True
    ):
        expected = {
            "mean": tokens.mean(axis=0),
            "cls": tokens[0],
            "max": tokens.max(axis=0),
            "mean_sqrt": tokens.sum(axis=0) / np.sqrt(len(tokens)),
            "last": tokens[-1],
        }[pooling]
        np.testing.assert_allclose(vector, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("normalize", "length"),
    [
        ("l2", np.linalg.norm),
        ("max_abs", lambda v: np.abs(v).max()),
        (1, lambda v: np.abs(v).sum()),
        (3.0, lambda v: (np.abs(v) ** 3).sum() ** (1 / 3)),
    ],
)
def test_normalize(model, normalize, length):
    raw = model.encode("some text", normalize="none").astype(np.float64)
    scaled = model.encode("some text", normalize=normalize)
    np.testing.assert_allclose(scaled, raw / length(raw), atol=1e-6, rtol=0)


def test_normalize_embeddings_is_l2(model):
    np.testing.assert_array_equal(
        model.encode("a", normalize_embeddings=True), model.encode("a", normalize="l2")
    )


def test_truncate_dim_keeps_leading_dimensions_and_renormalises(bert_mean_folder, model):
    full = model.encode(["a text", "another"])
    expected = full[:, :16] / np.linalg.norm(full[:, :16], axis=1, keepdims=True)
    np.testing.assert_allclose(
        model.encode(["a text", "another"], truncate_dim=16), expected, atol=1e-6
    )
    short = Embedder(bert_mean_folder, truncate_dim=16)
    assert short.dimension == short.get_sentence_embedding_dimension() == 16
    np.testing.assert_allclose(short.encode(["a text", "another"]), expected, atol=1e-6)
    assert short.encode("a text", truncate_dim=8).shape == (8,)


@pytest.mark.parametrize("truncate_dim", [0, -1, 49])
def test_impossible_truncate_dim(model, truncate_dim):
    with pytest.raises(InvalidArgumentError, match=r"truncate_dim.*1 to 48"):
        model.encode("a", truncate_dim=truncate_dim)


def test_prompts(prompted_folder):
    model = Embedder(prompted_folder)
    query, passage = model.encode(["query: cats", "passage: cats"])
    np.testing.assert_array_equal(model.encode("cats", prompt="query: "), query)
    np.testing.assert_array_equal(model.encode("cats", prompt_name="query"), query)
    np.testing.assert_array_equal(model.encode("cats", "passage"), passage)
    np.testing.assert_array_equal(model.encode_query("cats"), query)
    np.testing.assert_array_equal(model.encode_document(["cats"])[0], passage)
    np.testing.assert_array_equal(model.encode_query("cats", prompt_name="passage"), passage)
    np.testing.assert_array_equal(model.encode_query("cats", prompt=""), model.encode("cats"))
    assert model.prompts["query"] == "query: "


def test_own_and_default_prompts(prompted_folder):
    model = Embedder(prompted_folder, prompts={"short": "q "}, default_prompt_name="short")
    np.testing.assert_array_equal(model.encode("cats"), Embedder(prompted_folder).encode("q cats"))
    with pytest.raises(InvalidArgumentError, match=r"'other'.*'query'"):
        model.encode("cats", prompt_name="other")
    with pytest.raises(InvalidArgumentError, match="'missing'"):
        Embedder(prompted_folder, default_prompt_name="missing")


def test_without_prompts_queries_and_documents_are_plain_texts(model):
    np.testing.assert_array_equal(model.encode_query("cats"), model.encode("cats"))
    np.testing.assert_array_equal(model.encode_document("cats"), model.encode("cats"))


def test_token_embeddings(model, texts):
    matrices = model.encode(texts, output_value="token_embeddings")
    lengths = [len(ids) for ids in model.tokenize(texts)["input_ids"]]
    assert [m.shape for m in matrices] == [(length, 48) for length in lengths]
    np.testing.assert_array_equal(model.encode(texts[1], pooling="none"), matrices[1])
    with pytest.raises(InvalidArgumentError, match="float32"):
        model.encode("a", output_value="token_embeddings", precision="int8")


def test_list_of_vectors(model):
    vectors = model.encode(["a", "b"], convert_to_numpy=False)
    assert isinstance(vectors, list)
    np.testing.assert_array_equal(np.stack(vectors), model.encode(["a", "b"]))


def test_tensors_share_the_vectors_memory(model, monkeypatch):
    torch = types.ModuleType("torch")
    torch.from_dlpack = np.from_dlpack
    monkeypatch.setitem(sys.modules, "torch", torch)
    tensor = model.encode(["a", "b"], convert_to_tensor=True)
    np.testing.assert_array_equal(tensor, model.encode(["a", "b"]))
    assert not tensor.flags.owndata


def test_tensors_need_torch(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="pip install torch"):
        model.encode("a", convert_to_tensor=True)


def test_unknown_keywords_are_refused(model):
    with pytest.raises(TypeError, match="normalise_embeddings"):
        model.encode("a", normalise_embeddings=True)
    with pytest.raises(TypeError, match="bach_size"):
        model.encode_query("a", bach_size=3)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("precision", "int4"),
        ("output_value", "sentence"),
        ("pooling", "average"),
        ("normalize", "l3"),
        ("normalize", 0.5),
        ("normalize", float("nan")),
        ("batch_size", 0),
    ],
)
def test_wrong_values_are_named(model, option, value):
    with pytest.raises(InvalidArgumentError, match=option):
        model.encode(["a", "b"], **{option: value})


def test_truncation_is_counted_and_logged_once(bert_mean_folder, caplog):
    model = Embedder(bert_mean_folder, cache_size=0)
    with caplog.at_level(logging.WARNING, "arrowembed"):
        model.encode([LONG, "short", LONG])
        model.encode(LONG)
    assert model.info()["truncated"] == 3
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith("2 of 3 texts were longer than the model's 48 tokens")
    assert "many words" not in message


def test_max_seq_length(bert_mean_folder):
    model = Embedder(bert_mean_folder, max_seq_length=8)
    assert model.max_seq_length == 8
    assert len(model.tokenize([LONG])["input_ids"][0]) == 8
    with pytest.raises(InvalidArgumentError):
        Embedder(bert_mean_folder, max_seq_length=1_000_000)


def test_encode_iter_gives_the_same_vectors_in_chunks(model, texts):
    chunks = list(model.encode_iter(iter(texts), chunk_size=4))
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(chunks), model.encode(texts))


def test_encode_iter_reads_no_further_than_it_must(model):
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield f"text {len(read)}"

    chunks = model.encode_iter(endless(), chunk_size=3)
    assert next(chunks).shape == (3, 48)
    assert next(chunks).shape == (3, 48)
    assert len(read) == 6


def test_encode_iter_checks_its_arguments_at_once(model):
    with pytest.raises(InvalidArgumentError, match="chunk_size"):
        model.encode_iter(["a"], chunk_size=0)
    with pytest.raises(TextTypeError, match="encode for one text"):
        model.encode_iter("one text")
    with pytest.raises(InvalidArgumentError, match="calibration_embeddings"):
        model.encode_iter(["a"], precision="int8")
    (chunk,) = model.encode_iter(["a"], precision="int8", ranges=[[-1.0] * 48, [1.0] * 48])
    assert chunk.dtype == np.int8


def test_aencode(model, texts):
    vectors = asyncio.run(model.aencode(texts, batch_size=2))
    np.testing.assert_array_equal(vectors, model.encode(texts))


def test_aencode_lets_the_event_loop_go_on(model, texts):
    async def both():
        work = asyncio.create_task(model.aencode(texts * 200))
        turns = 0
        while not work.done():
            turns += 1
            await asyncio.sleep(0)
        return turns, await work

    turns, vectors = asyncio.run(both())
    assert turns > 10
    assert len(vectors) == len(texts) * 200


def test_a_cancelled_aencode_stops_computing(bert_mean_folder):
    model = Embedder(bert_mean_folder, cache_size=0)
    texts = [f"number {i} of many texts, all of them different" for i in range(40_000)]

    async def give_up():
        work = asyncio.create_task(model.aencode(texts))
        await asyncio.sleep(0.05)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        # The event loop's end waits for the thread.

    asyncio.run(give_up())
    assert model.info()["texts"] < len(texts)
    assert model.encode("still works").shape == (48,)


def test_progress_bar_on_request(model, texts, capsys):
    model.encode(texts, show_progress_bar=True)
    shown = capsys.readouterr().err
    assert "15/15" in shown
    model.encode(texts)
    model.encode(texts, show_progress_bar=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("installed", [True, False])
def test_progress_bar_of_its_own_accord(model, monkeypatch, capsys, installed):
    texts = [f"text {i}, which is not among the others" for i in range(20_000)]
    if not installed:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(progress, "_AUTOMATIC_AFTER", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert len(model.encode(texts)) == len(texts)
    assert ("/20000" in capsys.readouterr().err) is installed


def test_progress_bar_needs_tqdm(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(MissingDependencyError, match=r"arrowembed\[cli\]"):
        model.encode(["a", "b"], show_progress_bar=True)


def test_info(model, bert_mean_folder):
    info = model.info()
    assert info["name"] == "bert-mean"
    assert info["architecture"] == "bert"
    assert info["dimension"] == model.dimension == 48
    assert info["max_seq_length"] == model.max_seq_length == 48
    assert info["pooling"] == "mean"
    assert info["normalize"] == "l2"
    assert info["similarity"] == "cosine"
    assert info["mapped"] is True
    assert info["num_threads"] == get_num_threads()
    assert Path(info["path"]) == bert_mean_folder / "model.arrow"
    assert info["matryoshka_dimensions"] == []
    assert repr(model).startswith("Embedder('")


def test_sizes_that_a_model_was_trained_for(bert_mean_folder, copy_of):
    folder = copy_of(bert_mean_folder)
    metadata = json.loads((folder / "metadata.json").read_text())

    def state(sizes):
        changed = metadata | {"matryoshka_dimensions": sizes}
        (folder / "metadata.json").write_text(json.dumps(changed))

    state([48, 16])
    assert Embedder(folder).info()["matryoshka_dimensions"] == [48, 16]
    state([96])
    with pytest.raises(ArrowEmbedError, match=r"matryoshka_dimensions.*96.*1 to 48"):
        Embedder(folder)
