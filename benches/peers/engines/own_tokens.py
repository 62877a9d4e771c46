"""What careful users of a bare runtime write around it: tokens, batches, pooling.

Texts are sorted by length in tokens, so that a batch is padded little, and the batches are spread
over as many callers as the runtime has instances.
"""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from peers.engines import Encode

Infer = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Token ids and mask (texts, tokens) to hidden states (texts, tokens, hidden size)."""


def encoder(folder: Path, infer: Infer, callers: int) -> Encode:
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(settings["max_seq_length"])
    tokenizer.no_padding()
    pool = ThreadPoolExecutor(callers) if callers > 1 else None

    def run(batch: list[list[int]]) -> NDArray[np.float32]:
        lengths = np.array([len(ids) for ids in batch])
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        padded = np.zeros_like(mask)
        padded[mask == 1] = np.concatenate(batch)
        hidden = infer(padded, mask)
        pooled = np.matmul(mask[:, None, :].astype(np.float32), hidden)[:, 0]
        vectors: NDArray[np.float32] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        return vectors

    def encode(texts: list[str], batch: int) -> Any:
        encodings = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda i: -len(encodings[i]))
        batches = [order[start : start + batch] for start in range(0, len(order), batch)]
        inputs = [[encodings[i] for i in chosen] for chosen in batches]
        outputs = pool.map(run, inputs) if pool else map(run, inputs)
        vectors: list[NDArray[np.float32] | None] = [None] * len(texts)
        for chosen, rows in zip(batches, outputs, strict=True):
            for i, row in zip(chosen, rows, strict=True):
                vectors[i] = row
        return vectors

    return encode
