"""A store in a dictionary: quick, and as slow a search as can be."""

import numpy as np

from arrowembed.similarity import similarity
from arrowembed.store.base import Store
from arrowembed.store.description import Description, ModelUse
from arrowembed.store.filters import matches
from arrowembed.store.records import Hit, Record


class DictionaryStore(Store):
    """Entries that are gone when the process ends."""

    def __init__(self, path, description, model=None):
        super().__init__(path, description, model)
        self.entries = {}

    @classmethod
    def create(cls, folder, description, model, **options):
        return cls(folder, description, model)

    @classmethod
    def of(cls, model, folder):
        """One for the vectors of a model."""
        use = ModelUse.of(model)
        description = Description("lightweight", model.dimension, "cosine", "float32", use)
        return cls(folder, description, model)

    def _insert(self, rows, *, replace):
        for name, vector, text, metadata in zip(
            rows.ids, rows.vectors, rows.texts, rows.metadata, strict=True
        ):
            self.entries[name] = (vector, text, metadata)

    def _delete(self, ids, condition):
        gone = [record.id for record in self._get(ids, condition, None, 0, ())]
        for name in gone:
            self.entries.pop(name, None)
        return len(gone)

    def _get(self, ids, condition, limit, offset, fields):
        wanted = self.entries if ids is None else [name for name in ids if name in self.entries]
        return [
            Record(name, self.entries[name][1], self.entries[name][2])
            for name in dict.fromkeys(wanted)
            if condition is None or matches(condition, self.entries[name][2])
        ]

    def _search(self, vectors, k, condition, offset, fields, **options):
        records = self._get(None, condition, None, 0, fields)
        if not records:
            return [[] for _ in vectors]
        matrix = np.stack([self.entries[record.id][0] for record in records])
        found = []
        for scores in similarity(self.description.metric, vectors, matrix):
            best = sorted(range(len(records)), key=lambda i: -scores[i])[offset : offset + k]
            found.append(
                [
                    Hit(records[i].id, records[i].text, records[i].metadata, score=float(scores[i]))
                    for i in best
                ]
            )
        return found

    def _count(self, condition):
        return len(self._get(None, condition, None, 0, ()))

    def _compact(self):
        pass

    def _details(self):
        return {}

    def _close(self):
        pass
