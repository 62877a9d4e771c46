"""The command `arrowembed`; needs the extra `arrowembed[cli]`."""

import sys


def main() -> None:
    """Runs the command line; the entry point of the script."""
    try:
        from arrowembed.cli.app import app  # noqa: PLC0415 - click is optional
    except ModuleNotFoundError as error:
        if error.name not in ("click", "tqdm"):
            raise
        sys.stderr.write(
            f'error: the command line needs {error.name}: pip install "arrowembed[cli]"\n'
        )
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="arrowembed")
