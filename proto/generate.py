"""Makes the Python modules of the service's .proto file; `make proto` runs this."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

HERE = Path(__file__).parent
SOURCE = "arrowembed/v1/embedding.proto"
TARGET = HERE.parent / "python/arrowembed/server/grpc/_generated"


def generate(target: Path) -> list[Path]:
    """Writes the modules into a folder.

    They import each other from `arrowembed.v1`, for which protoc knows no other way than another
    name for the file, that clients would see. So the imports are rewritten.
    """
    with TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"-I{HERE}", *outputs, SOURCE]) != 0:
            sys.exit(1)
        written = []
        for module in sorted(Path(folder, SOURCE).parent.iterdir()):
            text = module.read_text("utf-8").replace("from arrowembed.v1 import", "from . import")
            written.append(target / module.name)
            written[-1].write_text(text, "utf-8")
        return written


if __name__ == "__main__":
    generate(TARGET)
