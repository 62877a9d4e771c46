"""`python -m arrowembed`, where the script is not on the path."""

from arrowembed.cli import main

main()
