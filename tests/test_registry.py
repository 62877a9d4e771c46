"""Several models in one process."""

import pickle
import threading
import time

import numpy as np
import pytest

import arrowembed
from arrowembed import Embedder, EmbeddingEngine, _core, shared
from arrowembed.errors import InvalidArgumentError, MemoryBudgetError, ModelNotFoundError
from arrowembed.settings import Settings

THREADS = 8


@pytest.fixture
def engine(bert_folder, bert_mean_folder):
    engine = EmbeddingEngine()
    engine.register("cls", bert_folder, cache_size=0)
    engine.register("mean", bert_mean_folder, cache_size=0)
    return engine


def together(ask):
    """What each of many threads gets that ask at the same time."""
    barrier = threading.Barrier(THREADS)
    results = []

    def work():
        barrier.wait()
        results.append(ask())

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == THREADS
    return results


def test_models_are_loaded_when_first_used(engine, bert_folder, texts):
    assert [model["name"] for model in engine.info()] == ["cls", "mean"]
    assert {model["bytes"] for model in engine.info()} == {None}
    assert not engine.is_loaded("cls")
    alone = Embedder(bert_folder)
    np.testing.assert_array_equal(engine.embed_batch("cls", texts), alone.encode(texts))
    np.testing.assert_array_equal(engine.embed("cls", "a"), alone.encode("a"))
    assert engine.is_loaded("cls")
    assert not engine.is_loaded("mean")
    assert engine.embedding_dimensions("cls") == alone.dimension
    assert engine.max_sequence_length("cls") == alone.max_seq_length
    assert engine.model_size("cls") == alone.info()["weights_bytes"]
    cls, mean = engine.info()
    assert cls["path"] == str(bert_folder)
    assert cls["bytes"] == alone.info()["weights_bytes"]
    assert cls["loaded_for"] >= cls["idle_for"] >= 0
    assert mean["loaded_for"] is None


def test_several_models_embed_the_same_texts(engine, texts):
    vectors = engine.embed_multi(["mean", "cls"], iter(texts), truncate_dim=8)
    assert list(vectors) == ["mean", "cls"]
    for name, matrix in vectors.items():
        np.testing.assert_array_equal(matrix, engine.get(name).encode(texts, truncate_dim=8))
    assert engine.embed_batch("cls", []).shape[0] == 0


def test_threads_that_ask_together_get_one_embedder(engine):
    embedders = together(lambda: engine.get("cls"))
    assert all(embedder is embedders[0] for embedder in embedders)


def test_an_embedder_outlives_the_unloading_of_its_model(engine, texts):
    model = engine.get("cls")
    expected = model.encode(texts)
    assert engine.unload("cls")
    assert not engine.unload("cls")
    assert not engine.is_loaded("cls")
    np.testing.assert_array_equal(model.encode(texts), expected)
    assert engine.is_loaded("cls")
    assert engine.get("cls") is model
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.encode(texts), expected)


def test_unloading_while_others_encode(engine, texts):
    expected = engine.embed_batch("cls", texts)

    def work():
        vectors = [engine.embed_batch("cls", texts) for _ in range(20)]
        engine.unload("cls")
        return all(np.array_equal(v, expected) for v in vectors)

    assert together(work) == [True] * THREADS


def test_a_budget_refuses_or_evicts(bert_folder, bert_mean_folder):
    size = Embedder(bert_folder).info()["weights_bytes"]
    refusing = EmbeddingEngine(memory_budget=size)
    evicting = EmbeddingEngine(memory_budget=size, when_full="evict")
    for engine in (refusing, evicting):
        engine.register("first", bert_folder)
        engine.register("second", bert_folder, cache_size=0)
        engine.load("first")
    with pytest.raises(MemoryBudgetError, match=rf"{size} bytes {size} are in use \(models: first"):
        refusing.load("second")
    evicting.load("second")
    assert not evicting.is_loaded("first")
    kept = evicting.get("first")
    evicting.load("second")
    # The Embedder is held, its model is not.
    assert evicting.is_loaded("second")
    kept.encode("a")
    assert not evicting.is_loaded("second")


def test_idle_models_are_unloaded(bert_folder):
    engine = EmbeddingEngine(idle_timeout=0.001)
    engine.register("model", bert_folder)
    engine.load("model")
    deadline = time.monotonic() + 60
    while engine.is_loaded("model") and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not engine.is_loaded("model")
    assert engine.embed("model", "a").shape == (engine.embedding_dimensions("model"),)


def test_names_need_not_be_registered(bert_folder):
    engine = EmbeddingEngine()
    assert not engine.is_loaded(str(bert_folder))
    engine.embed(str(bert_folder), "a")
    assert [model["name"] for model in engine.info()] == [str(bert_folder)]
    with pytest.raises(ModelNotFoundError):
        engine.embed("no-such-model", "a")
    assert len(engine.info()) == 1


def test_a_name_stands_for_one_model(engine, bert_folder, bert_mean_folder):
    engine.load("cls")
    engine.register("cls", bert_folder, cache_size=0)
    for model, settings in ((bert_mean_folder, {"cache_size": 0}), (bert_folder, {})):
        with pytest.raises(InvalidArgumentError, match="'cls' is already registered"):
            engine.register("cls", model, **settings)
    with pytest.raises(TypeError, match="no_such_setting"):
        engine.register("other", bert_folder, no_such_setting=1)
    with pytest.raises(InvalidArgumentError, match="name: is empty"):
        engine.register("", bert_folder)


def test_a_name_can_be_registered_again_until_it_is_loaded(
    engine, bert_folder, bert_mean_folder, texts
):
    engine.register("late", "no-such-model")
    with pytest.raises(ModelNotFoundError):
        engine.get("late")
    engine.register("late", bert_folder, truncate_dim=1_000_000)
    with pytest.raises(InvalidArgumentError, match="truncate_dim: 1000000; expected 1 to"):
        engine.get("late")
    engine.register("late", bert_folder, max_seq_length=1_000_000)
    with pytest.raises(InvalidArgumentError, match="max_seq_length: is 1000000"):
        engine.get("late")
    engine.register("late", bert_folder, token="a secret")
    engine.register("late", bert_folder, token="another")
    before = engine.get("late")
    assert before is engine.get("late")
    engine.unload("late")
    engine.register("late", bert_mean_folder)
    assert engine.info()[1] == {
        "name": "late",
        "path": None,
        "bytes": None,
        "loaded_for": None,
        "idle_for": None,
    }
    expected = Embedder(bert_mean_folder).encode(texts)
    np.testing.assert_array_equal(engine.embed_batch("late", texts), expected)
    with pytest.raises(InvalidArgumentError, match='"late" was registered anew'):
        before.encode("a")
    assert before.cache_info()["entries"] == 0


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"device": ""}, "device"),
        ({"compute": "int4"}, "compute"),
        ({"max_seq_length": 0}, "max_seq_length"),
        ({"truncate_dim": 0}, "truncate_dim"),
        ({"device": "cuda:0", "lock_memory": True}, "lock_memory"),
    ],
)
def test_wrong_settings_are_refused_when_they_are_registered(bert_folder, settings, name):
    engine = EmbeddingEngine()
    with pytest.raises(InvalidArgumentError, match=f"^{name}: "):
        engine.register("model", bert_folder, **settings)
    assert engine.info() == []


def test_prompts_are_those_of_the_time_of_registering(bert_folder):
    engine = EmbeddingEngine()
    prompts = {"b": "B: ", "a": "A: "}
    engine.register("model", bert_folder, prompts=prompts)
    prompts["c"] = "C: "
    assert engine.get("model").prompts == {"a": "A: ", "b": "B: "}
    engine.register("none", bert_folder, prompts=None)
    assert engine.get("none").prompts == {}
    one = shared(bert_folder, prompts={"a": "A: ", "b": "B: "})
    assert shared(bert_folder, prompts={"b": "B: ", "a": "A: "}) is one
    assert shared(bert_folder, prompts=None) is shared(bert_folder)


def test_to_look_at_an_unloaded_model_loads_nothing(bert_folder):
    engine = EmbeddingEngine()
    engine.register("model", bert_folder, cache_size=7)
    model = engine.get("model")
    model.encode(["a", "b"])
    loaded = model.cache_info()
    assert (loaded["entries"], loaded["max_entries"]) == (2, 7)
    shown, longest = repr(model), model.max_seq_length
    engine.unload("model")
    assert (repr(model), model.max_seq_length) == (shown, longest)
    model.cache_clear()
    assert model.cache_info() == {**loaded, "entries": 0, "bytes": 0, "hits": 0, "misses": 0}
    assert not engine.is_loaded("model")
    model.encode(["a", "b"])
    model.cache_clear()
    assert model.cache_info()["entries"] == 0


def test_a_failed_load_is_tried_again(engine, copy_of, bert_folder):
    folder = copy_of(bert_folder)
    hidden = folder / "model.arrow"
    bytes_of_model = hidden.read_bytes()
    hidden.write_bytes(b"no model")
    engine.register("repaired", folder)
    for _ in range(2):
        with pytest.raises(arrowembed.ArrowEmbedError):
            engine.get("repaired")
    hidden.unlink()
    hidden.write_bytes(bytes_of_model)
    assert engine.get("repaired").encode("a").ndim == 1


def test_one_shared_instance_for_each_model_and_settings(bert_folder, texts):
    models = together(lambda: shared(bert_folder))
    assert all(model is models[0] for model in models)
    assert shared(str(bert_folder)) is models[0]
    assert shared(bert_folder, token="a secret") is models[0]
    short = shared(bert_folder, truncate_dim=8)
    assert short is not models[0]
    assert short is shared(bert_folder, truncate_dim=8)
    np.testing.assert_array_equal(models[0].encode(texts), Embedder(bert_folder).encode(texts))


def test_warmup_and_preload_show_their_progress(bert_folder, capsys):
    engine = EmbeddingEngine()
    engine.register("preloaded", bert_folder, preload=True)
    Embedder(bert_folder, preload=True, show_progress_bar=False)
    engine.warmup("preloaded", show_progress_bar=False)
    assert capsys.readouterr().err == ""
    kilobytes = (bert_folder / "model.arrow").stat().st_size // 1000
    Embedder(bert_folder, preload=True, show_progress_bar=True)
    shown = capsys.readouterr().err
    assert f"{kilobytes}k/{kilobytes}k" in shown
    assert "100%" in shown
    engine.warmup("preloaded", show_progress_bar=True)
    assert f"{kilobytes}k/{kilobytes}k" in capsys.readouterr().err
    Embedder(bert_folder, show_progress_bar=True)
    assert capsys.readouterr().err == ""


def test_a_model_larger_than_memory_is_warned_of(bert_folder, caplog):
    class ShortOfMemory:
        """The engine of a model that no test could have."""

        def __init__(self, engine):
            self.metadata, self._info = engine.metadata, engine.info

        def info(self):
            return {**self._info(), "short_of_memory": True}

    settings = Settings()
    engine = _core.Engine(settings.config(bert_folder))
    Embedder.over(engine, "model", bert_folder, settings)
    assert not caplog.records
    Embedder.over(ShortOfMemory(engine), "model", bert_folder, settings)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{bert_folder / 'model.arrow'} is larger than the memory" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"memory_budget": 0}, "memory_budget"),
        ({"memory_budget": -1}, "memory_budget"),
        ({"when_full": "panic"}, "when_full"),
        ({"idle_timeout": 0}, "idle_timeout"),
        ({"idle_timeout": 1e-9}, "idle_timeout"),
        ({"idle_timeout": -1.5}, "idle_timeout"),
        ({"idle_timeout": float("nan")}, "idle_timeout"),
        ({"num_threads": 0}, "num_threads"),
    ],
)
def test_wrong_settings_are_named(arguments, name):
    with pytest.raises(InvalidArgumentError, match=name):
        EmbeddingEngine(**arguments)


def test_an_embedder_from_the_environment(bert_folder, monkeypatch):
    with pytest.raises(InvalidArgumentError, match="ARROWEMBED_MODEL: is not set"):
        Embedder.from_env()
    monkeypatch.setenv("ARROWEMBED_MODEL", str(bert_folder))
    assert Embedder.from_env().encode("a").shape == Embedder(bert_folder).encode("a").shape
    monkeypatch.setenv("ARROWEMBED_MAX_SEQ_LENGTH", "12")
    monkeypatch.setenv("ARROWEMBED_CACHE_ENTRIES", "7")
    monkeypatch.setenv("ARROWEMBED_COMPUTE", "int8")
    info = Embedder.from_env().info()
    assert info["path"] != str(bert_folder / "model.arrow")
    assert (info["max_seq_length"], info["compute"]) == (12, "int8")
    assert info["cache"]["max_entries"] == 7
    monkeypatch.setenv("ARROWEMBED_COMPUTE", "int4")
    with pytest.raises(InvalidArgumentError, match='ARROWEMBED_COMPUTE: is "int4", allowed are'):
        Embedder.from_env()


def test_settings_from_the_environment(bert_folder, monkeypatch):
    monkeypatch.setenv("ARROWEMBED_MEMORY_BUDGET", "1")
    with pytest.raises(MemoryBudgetError, match="memory budget of 1 bytes"):
        EmbeddingEngine.from_env().get(str(bert_folder))
    monkeypatch.setenv("ARROWEMBED_MEMORY_BUDGET", "plenty")
    with pytest.raises(
        InvalidArgumentError, match='ARROWEMBED_MEMORY_BUDGET: is "plenty", allowed'
    ):
        EmbeddingEngine.from_env()
