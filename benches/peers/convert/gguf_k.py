"""The GGUF file that llama.cpp's own quantizer calls Q4_K_M, made of the one in float32.

Rows of 384 are no multiple of 256: it takes Q5_0 and Q8_0 instead of Q4_K and Q6_K for all matrices
but the last of each layer.
"""

import ctypes
import sys
from pathlib import Path

import llama_cpp


def main(source: Path, target: Path) -> None:
    file = target / source.name.replace("F32", "Q4_K_M")
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M
    code = llama_cpp.llama_model_quantize(
        str(source).encode(), str(file).encode(), ctypes.byref(settings)
    )
    if code != 0:
        raise SystemExit(f"llama_model_quantize of {source} failed with {code}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
