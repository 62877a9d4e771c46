"""The model's files where a Hugging Face cache has them, for packages that take only names."""

import shutil
import sys
from pathlib import Path

REPOSITORY = "models--sentence-transformers--all-MiniLM-L6-v2"
REVISION = "0" * 40
"""The form of a commit, for which nobody asks the hub whether there is a newer one."""


def main(source: Path, target: Path) -> None:
    repository = target / "hub" / REPOSITORY
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    shutil.copytree(source, repository / "snapshots" / REVISION)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
