"""Stores of vectors: texts in, the most similar ones out.

>>> from arrowembed.store import open_store
>>> with open_store("memory", model="all-MiniLM-L6-v2") as store:
...     store.add(["a", "b"], ["the cat sleeps", "taxes are due in May"])
...     [hit.id for hit in store.search("a pet", k=1)]
['a']

`open_store` makes or opens one. `base.Store` is what all backends can do; `lightweight` is exact
search over mapped Arrow files, `lancedb` grows further. `filters` are conditions on metadata.
"""

from arrowembed.store.base import Store, StoreInfo
from arrowembed.store.factory import open_store
from arrowembed.store.records import Hit, Record

__all__ = ["Hit", "Record", "Store", "StoreInfo", "open_store"]
