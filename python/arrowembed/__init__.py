"""Text embeddings on your own machine: one memory-mapped Arrow file, own CPU kernels.

>>> from arrowembed import Embedder
>>> model = Embedder("all-MiniLM-L6-v2")
>>> model.encode(["many", "texts"]).shape
(2, 384)
"""

from arrowembed._core import __version__, get_num_threads, set_num_threads
from arrowembed.embedder import Embedder
from arrowembed.errors import ArrowEmbedError
from arrowembed.quantization import quantize_embeddings
from arrowembed.registry import EmbeddingEngine, shared

__all__ = [
    "ArrowEmbedError",
    "Embedder",
    "EmbeddingEngine",
    "__version__",
    "get_num_threads",
    "quantize_embeddings",
    "set_num_threads",
    "shared",
]
