"""What is compared: every line of the report, with its engine and settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

OWN = "arrowembed"


@dataclass(frozen=True)
class Line:
    """An engine with its settings."""

    name: str
    engine: str
    """Its module in `peers.engines`, with the distribution's hyphens; also its environment."""
    model: str
    """Where its model is: a name of `peers.models.MADE` and what follows in that folder."""
    arithmetic: str
    """Of the matrix products; engines of the same are compared with each other in the summary."""
    settings: str
    """In words, for the report."""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    batches: Sequence[int] = (0,)
    """Batch sizes that are tried; 0 where the engine decides for itself."""


BATCHES = (4, 8, 16, 32)
AS_CALLED = "as its users call it"
A_CORE = "sorted by length, one runtime a core"
GGUF = ("F32", "F16", "Q8_0", "Q4_K_M")


def gguf(kind: str) -> str:
    folder = "gguf_k" if kind == "Q4_K_M" else "gguf"
    return f"{folder}/all-MiniLM-L6-v2-{kind}.gguf"


LINES = (
    Line(OWN, OWN, "arrow", "float32", "float16 weights"),
    Line("arrowembed float16", OWN, "arrow", "float16",
         "half precision, where the processor has it", {"compute": "float16"}),
    Line("arrowembed bfloat16", OWN, "arrow", "bfloat16", "AMX tiles, where the processor has them",
         {"compute": "bfloat16"}),
    Line("arrowembed int16", OWN, "arrow", "int16", "16 bits", {"compute": "int16"}),
    Line("arrowembed int8", OWN, "arrow", "int8", "8 bits", {"compute": "int8"}),
    Line("CTranslate2", "ctranslate2", "ctranslate2", "float32", A_CORE,
         {"compute_type": "float32"}, BATCHES),
    Line("CTranslate2 bfloat16", "ctranslate2", "ctranslate2", "bfloat16", A_CORE,
         {"compute_type": "bfloat16"}, BATCHES),
    Line("CTranslate2 int8", "ctranslate2", "ctranslate2", "int8", A_CORE,
         {"compute_type": "int8_float32"}, BATCHES),
    Line("ONNX Runtime", "onnxruntime", "onnx/fused", "float32", A_CORE, batches=BATCHES),
    Line("ONNX Runtime int8", "onnxruntime", "onnx/int8", "int8", A_CORE, batches=BATCHES),
    Line("OpenVINO", "openvino", "onnx/plain", "float32", A_CORE,
         {"file": "model.onnx", "precision": "f32"}, BATCHES),
    Line("OpenVINO default", "openvino", "onnx/plain", "its default", A_CORE,
         {"file": "model.onnx", "precision": None}, BATCHES),
    Line("OpenVINO int8", "openvino", "openvino", "int8", A_CORE,
         {"file": "model.xml", "precision": None}, BATCHES),
    Line("fastembed", "fastembed", "onnx/fused", "float32", AS_CALLED, batches=(8, 32)),
    Line("sentence-transformers", "sentence-transformers", "source", "float32", AS_CALLED,
         batches=(8, 32)),
    *(Line(f"arrowembed {kind}", OWN, gguf(kind), f"GGUF {kind}", "from the file as it is",
           {"max_seq_length": 256}) for kind in GGUF),
    *(Line(f"llama.cpp {kind}", "llama-cpp-python", gguf(kind), f"GGUF {kind}", AS_CALLED)
      for kind in GGUF),
    Line("ggmbed Q8_0", "ggmbed", "gguf/all-MiniLM-L6-v2-Q8_0.gguf", "int8", AS_CALLED),
    Line("EmbedAnything", "embed-anything", "hub", "float32", AS_CALLED, batches=(8, 32)),
)  # fmt: skip


def chosen(words: Sequence[str]) -> list[Line]:
    """The lines whose engine or name has one of these words, and ours beside them; no words: all.

    Raises:
        ValueError: A word fits none.
    """

    def fits(line: Line, word: str) -> bool:
        return word.lower() in (line.engine, line.name.lower().replace(" ", "-"))

    for word in words:
        if not any(fits(line, word) for line in LINES):
            known = ", ".join(sorted({line.engine for line in LINES}))
            raise ValueError(f"no engine or line is called {word!r}; there are {known}")
    asked = [line for line in LINES if not words or any(fits(line, word) for word in words)]
    # What is asked for has its counterpart beside it: the same arithmetic, or else our float path.
    counterparts = {line.arithmetic for line in asked}
    return [
        line
        for line in LINES
        if line in asked
        or line.name == OWN
        or (line.engine == OWN and line.arithmetic in counterparts and line.model != "arrow")
    ]
