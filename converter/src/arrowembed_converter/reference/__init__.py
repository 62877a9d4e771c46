"""Sentence encoders in NumPy float64: the independent answer the engine is checked against.

They read the same Hugging Face folder as the converter but share no code with the engine, compute
one text at a time without padding, and prefer the plain formula to the fast one. Read `encoder`
first, then the file of an architecture, from top to bottom; `operations` has the formulas that
several of them share, `common` the files.

    text -> token ids -> embeddings -> N x (attention, feed-forward) -> pooling -> vector

Each formula names its source: a paper, or the class in `transformers` or on the Hub.
"""

from arrowembed_converter.reference.common import (
    POOLINGS,
    Settings,
    UnsupportedReferenceError,
    read_modules,
)
from arrowembed_converter.reference.encoder import Reference, read_settings
from arrowembed_converter.reference.operations import ACTIVATIONS, gelu, gelu_tanh, softmax
from arrowembed_converter.reference.registry import ARCHITECTURES

__all__ = [
    "ACTIVATIONS",
    "ARCHITECTURES",
    "POOLINGS",
    "Reference",
    "Settings",
    "UnsupportedReferenceError",
    "gelu",
    "gelu_tanh",
    "read_modules",
    "read_settings",
    "softmax",
]
