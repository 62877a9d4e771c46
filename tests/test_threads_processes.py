"""Threads, worker processes and pickles."""

import multiprocessing
import os
import pickle
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from arrowembed import Embedder, set_num_threads
from arrowembed.errors import InvalidArgumentError


def test_threads_get_the_same_vectors(model, texts):
    expected = model.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        for vectors in pool.map(lambda _: model.encode(texts), range(64)):
            np.testing.assert_array_equal(vectors, expected)


def test_models_in_threads_do_not_disturb_each_other(bert_folder, bert_mean_folder, texts):
    models = [Embedder(bert_folder, cache_size=0), Embedder(bert_mean_folder, cache_size=0)]
    expected = [model.encode(texts) for model in models]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: models[i % 2].encode(texts), range(40)))
    for i, vectors in enumerate(results):
        np.testing.assert_array_equal(vectors, expected[i % 2])


def test_other_threads_run_while_one_encodes(model):
    texts = [f"text {i}, which is not among the others" for i in range(20_000)]
    turns = 0
    started = threading.Event()

    def work():
        started.set()
        model.encode(texts)

    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    while thread.is_alive():
        turns += 1
    thread.join()
    # Without the GIL this thread would get no further than Python's own switches between threads.
    assert turns > 10_000


def test_the_number_of_threads_is_checked():
    with pytest.raises(InvalidArgumentError):
        set_num_threads(0)


def encode_there(arguments):
    model, texts = arguments
    return model.encode(texts), os.getpid()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_worker_processes(model, texts, method):
    expected = model.encode(texts)
    with multiprocessing.get_context(method).Pool(2) as pool:
        results = pool.map(encode_there, [(model, texts)] * 4)
    for vectors, process in results:
        np.testing.assert_array_equal(vectors, expected)
        assert process != os.getpid()


def test_pickles_are_small_and_keep_the_settings(prompted_folder):
    model = Embedder(
        prompted_folder,
        token="very secret",
        cache_size=7,
        max_seq_length=12,
        truncate_dim=16,
        prompts={"own": "own: "},
        default_prompt_name="own",
    )
    pickled = pickle.dumps(model)
    assert len(pickled) < 2000
    assert b"very secret" not in pickled
    copy = pickle.loads(pickled)
    np.testing.assert_array_equal(copy.encode("a"), model.encode("a"))
    assert copy.max_seq_length == 12
    assert copy.dimension == 16
    assert copy.cache_info()["max_entries"] == 7


def test_a_pickle_finds_the_model_by_name_elsewhere(bert_mean_folder, tmp_path, monkeypatch):
    from arrowembed import models

    shutil.copytree(bert_mean_folder, models.home_path("moving"))
    model = Embedder("moving")
    expected = model.encode("a")
    pickled = pickle.dumps(model)
    del model
    shutil.move(tmp_path / "home", tmp_path / "moved")
    monkeypatch.setenv("ARROWEMBED_HOME", str(tmp_path / "moved"))
    copy = pickle.loads(pickled)
    np.testing.assert_array_equal(copy.encode("a"), expected)
    assert copy.path == tmp_path / "moved" / "models" / "moving"


def test_importing_brings_only_the_engine(tmp_path):
    # NumPy comes with the first model, which is opened meanwhile.
    import subprocess

    script = (
        "import sys, arrowembed\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & set(sys.argv[1:])))"
    )
    optional = ["pyarrow", "polars", "pandas", "torch", "tqdm", "click", "huggingface_hub"]
    result = subprocess.run(
        [sys.executable, "-c", script, "numpy", *optional],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert result.stdout.strip() == "[]"
