"""The GGUF file in blocks of 256 that llama.cpp's own quantizer makes of the one in float32."""

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
