"""`python -m arrowembed_converter` is the command `arrowembed`."""

from arrowembed.cli.app import app

app(prog_name="python -m arrowembed_converter")
