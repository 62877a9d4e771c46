"""The LanceDB backend: approximate indexes, full-text and hybrid search; the extra `lancedb`.

`store` is the store, `snapshot` one version of its table, `library` how LanceDB is reached.
`columns` says how metadata lie in a table, `conditions` how filters become SQL and `results` how
rows become entries; `exact` makes of LanceDB's nearest entries the exactly nearest ones,
`text_search` finds by words, and `indexes` has what makes both faster; `upkeep` merges small files
and `durability` waits for the disk.
"""

from arrowembed.store.lancedb.store import LanceStore

__all__ = ["LanceStore"]
