"""Every engine's own model files, under `.peers`, made once from the Hugging Face folder."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from peers import environments
from peers.environments import SetupError
from peers.lines import OWN

BENCHES = Path(__file__).parents[1]
CONVERT = Path(__file__).parent / "convert"


@dataclass(frozen=True)
class Made:
    """How files are made: by the module of the same name in `peers.convert`."""

    environment: str
    source: str = "source"


MADE = {
    "ctranslate2": Made("ctranslate2"),
    "gguf": Made("gguf"),
    "gguf_k": Made("llama-cpp-python", source="gguf/all-MiniLM-L6-v2-F32.gguf"),
    "hub": Made(OWN),
    "onnx": Made("onnxruntime"),
    "openvino": Made("openvino", source="onnx/plain"),
}


class Models:
    """The model in all its forms; `given` are those that are not made here."""

    def __init__(self, home: Path, given: dict[str, Path]) -> None:
        self._home = home
        self._given = given
        self._failed: dict[str, SetupError] = {}

    def find(self, model: str) -> Path:
        """The file or folder, which is made where there is none yet.

        Raises:
            SetupError: It could not be made.
        """
        name, _, rest = model.partition("/")
        if name in self._given:
            return self._given[name] / rest
        if name in self._failed:
            raise self._failed[name]
        try:
            return self._make(name) / rest
        except SetupError as error:
            self._failed[name] = error
            raise

    def _make(self, name: str) -> Path:
        made = MADE[name]
        source = self.find(made.source)
        interpreter = environments.python(self._home, made.environment)
        folder = self._home / "models" / name
        # Made again when the code that does it has changed.
        code = b"".join(file.read_bytes() for file in sorted(CONVERT.glob(f"{name}*.py")))
        wanted = hashlib.sha256(code + str(source).encode()).hexdigest()
        stamp = folder / "made-from"
        if stamp.exists() and stamp.read_text() == wanted:
            return folder
        print(f"{name}: converting", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [str(interpreter), "-m", f"peers.convert.{name}", str(source), str(folder)]
        log = self._home / "logs" / f"convert-{name}.log"
        environments.run(command, log, PYTHONPATH=str(BENCHES))
        stamp.write_text(wanted)
        return folder
