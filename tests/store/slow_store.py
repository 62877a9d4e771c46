"""The slow, obvious store that the others are compared with: a dictionary and NumPy in float64."""

import math

import numpy as np

from arrowembed.store.filters import matches, parse


class SlowStore:
    """What a store holds, by id in the order of entries."""

    def __init__(self, metric="cosine", dtype="float32"):
        self.metric, self.dtype, self.entries = metric, dtype, {}

    def copy(self):
        other = SlowStore(self.metric, self.dtype)
        other.entries = dict(self.entries)
        return other

    def put(self, ids, texts, vectors, metadata):
        """As `upsert`; what is replaced is the last from then on."""
        stored = np.asarray(vectors, np.float32)
        if self.dtype == "float16":
            stored = stored.astype(np.float16).astype(np.float32)
        for name, text, vector, entry in zip(ids, texts, stored, metadata, strict=True):
            self.entries.pop(name, None)
            self.entries[name] = (text, entry, vector)

    def delete(self, ids=None, where=None):
        gone = [name for name in self.ids(where) if ids is None or name in ids]
        for name in gone:
            del self.entries[name]
        return len(gone)

    def ids(self, where=None):
        condition = parse(where)
        return [
            name
            for name, (_, metadata, _) in self.entries.items()
            if condition is None or matches(condition, metadata)
        ]

    def search(self, query, k, where=None, offset=0):
        """Ids and similarities, the best first; among equals the one that came first."""
        scored = [(name, self.similarity(query, self.entries[name][2])) for name in self.ids(where)]
        return sorted(scored, key=lambda found: -found[1])[offset : offset + k]

    def similarity(self, query, vector):
        a, b = np.asarray(query, np.float32).astype(np.float64), vector.astype(np.float64)
        if self.metric == "euclidean":
            return -math.sqrt(math.fsum((a - b) ** 2))
        dot = math.fsum(a * b)
        if self.metric == "dot":
            return dot
        norms = math.sqrt(math.fsum(a * a)) * math.sqrt(math.fsum(b * b))
        return dot / norms if norms else 0.0


def agree(store, slow, queries=(), filters=(None,), k=10):
    """Asserts that a store holds and finds the same as the slow one."""
    records = store.get(include=["text", "metadata", "vector"])
    assert [record.id for record in records] == list(slow.entries)
    for record in records:
        text, metadata, vector = slow.entries[record.id]
        assert (record.text, record.metadata) == (text, metadata)
        np.testing.assert_array_equal(record.vector, vector)
    for where in filters:
        assert store.count(where) == len(slow.ids(where))
        assert [record.id for record in store.get(filter=where)] == slow.ids(where)
        for query in queries:
            found = store.search(query, k, filter=where)
            expected = slow.search(query, k, where)
            assert [hit.id for hit in found] == [name for name, _ in expected]
            np.testing.assert_allclose(
                [hit.score for hit in found], [score for _, score in expected], rtol=1e-6, atol=1e-6
            )
