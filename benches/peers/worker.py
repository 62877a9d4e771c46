"""One engine in a process of its own, driven over standard input by `compare.py`.

    python worker.py ENGINE MODEL THREADS

Prints a line of JSON when it is ready and one for each request: `{"texts": [...], "batch": 32}` is
embedded and answered with the seconds it took, with `"one": true` text by text and the median of
the seconds; `{"vectors": [...]}` is answered with the vectors.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

STARTED = time.perf_counter()

Encode = Callable[[list[str], int], Any]


def arrowembed(model: str, threads: int) -> Encode:
    from arrowembed import Embedder, set_num_threads

    set_num_threads(threads)
    # No cache: the same texts come every round.
    embedder = Embedder(model, cache_size=0)
    return lambda texts, _: embedder.encode(texts)


def sentence_transformers(model: str, threads: int) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    embedder = SentenceTransformer(model, device="cpu")
    return lambda texts, batch: embedder.encode(texts, batch_size=batch)


def onnxruntime(model: str, threads: int) -> Encode:
    """`MODEL` is a folder with `tokenizer.json` and `model.onnx` (see `bert_onnx.py`).

    Sorted by length and padded to the longest of each batch, as careful users do.
    """
    import numpy as np
    import onnxruntime as ort
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(f"{model}/model.onnx", options)

    def encode(texts: list[str], batch: int) -> Any:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        vectors = np.empty((len(texts), 384), dtype=np.float32)
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            encoded = tokenizer.encode_batch([texts[i] for i in chosen])
            mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
            inputs = {
                "input_ids": np.array([e.ids for e in encoded], dtype=np.int64),
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(mask),
            }
            hidden = session.run(None, inputs)[0]
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
            vectors[chosen] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors

    return encode


ENGINES = {
    "arrowembed": arrowembed,
    "onnxruntime": onnxruntime,
    "sentence-transformers": sentence_transformers,
}


def answer(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def main(engine: str, model: str, threads: int) -> None:
    encode = ENGINES[engine](model, threads)
    opened = time.perf_counter()
    encode(["The first text."], 1)
    first = time.perf_counter()
    answer(open=opened - STARTED, first=first - STARTED)
    for line in sys.stdin:
        request = json.loads(line)
        if "vectors" in request:
            answer(vectors=[[float(x) for x in v] for v in encode(request["vectors"], 8)])
            continue
        calls = [[text] for text in request["texts"]] if request["one"] else [request["texts"]]
        seconds = []
        for call in calls:
            started = time.perf_counter()
            encode(call, request["batch"])
            seconds.append(time.perf_counter() - started)
        answer(seconds=statistics.median(seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
