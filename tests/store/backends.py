"""The backends that the tests of common behaviour go through."""

BACKENDS = ["lightweight", "lancedb"]
