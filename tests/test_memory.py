"""The weights are mapped, not copied: processes share one copy of them."""

import multiprocessing
import re
import threading
from pathlib import Path

from arrowembed import Embedder, shared

TEXTS = [f"text {i}, which touches other weights than its neighbours" for i in range(50)]


def mapped_kilobytes(path, pid="self"):
    """Kilobytes of a mapped file by kind, summed over its maps in a process."""
    totals = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and (field := re.match(r"(\w+): +(\d+) kB", line)):
            totals[field[1]] = totals.get(field[1], 0) + int(field[2])
    return totals


def anonymous_kilobytes():
    """Memory of this process that no other can share and no file backs."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])


def use_and_wait(folder, ready, leave):
    model = Embedder(folder)
    model.encode(TEXTS)
    ready.put(mapped_kilobytes(folder / "model.arrow"))
    leave.wait(60)


def test_processes_share_one_copy_of_the_weights(minilm_folder):
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Queue(), context.Event()
    arguments = (minilm_folder, ready, leave)
    processes = [context.Process(target=use_and_wait, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    weights = (minilm_folder / "model.arrow").stat().st_size // 1024
    try:
        for _ in processes:
            ready.get(timeout=60)
        # With all of them alive, no page belongs to one alone.
        for process in processes:
            kilobytes = mapped_kilobytes(minilm_folder / "model.arrow", process.pid)
            assert kilobytes["Rss"] > weights // 4
            assert kilobytes["Private_Dirty"] == 0
            assert kilobytes["Private_Clean"] < 0.02 * weights
            assert kilobytes["Shared_Clean"] + kilobytes["Shared_Dirty"] > weights // 4
    finally:
        leave.set()
        for process in processes:
            process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]


def open_and_measure(folder, results):
    Embedder(folder).encode("warm up the allocator")
    before = anonymous_kilobytes()
    models = [Embedder(folder) for _ in range(4)]
    results.put((anonymous_kilobytes() - before, sum(m.info()["mapped"] for m in models)))


def test_opening_a_model_copies_no_weights(minilm_folder):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=open_and_measure, args=(minilm_folder, results))
    process.start()
    grown, mapped = results.get(timeout=60)
    process.join(60)
    assert mapped == 4
    # Four tokenizers' vocabularies, but not four times 45 MB of weights.
    weights = (minilm_folder / "model.arrow").stat().st_size // 1024
    assert grown < 4 * 0.6 * weights


def test_threads_that_ask_together_map_a_shared_model_once(bert_folder, copy_of):
    folder = copy_of(bert_folder)
    barrier = threading.Barrier(8)
    models = []

    def ask():
        barrier.wait()
        models.append(shared(folder))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert sum(line.endswith(str(folder / "model.arrow")) for line in maps) == 1
    assert len(set(map(id, models))) == 1


def load_and_measure(folder, preload, results):
    model = Embedder(folder, preload=preload)
    results.put((mapped_kilobytes(folder / "model.arrow")["Rss"], model.dimension))


def test_preloading_brings_every_page(minilm_folder):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    resident = []
    for preload in (False, True):
        arguments = (minilm_folder, preload, results)
        process = context.Process(target=load_and_measure, args=arguments)
        process.start()
        resident.append(results.get(timeout=60)[0])
        process.join(60)
    kilobytes = (minilm_folder / "model.arrow").stat().st_size // 1024
    assert resident[0] < 0.1 * kilobytes
    assert resident[1] >= 0.99 * kilobytes
