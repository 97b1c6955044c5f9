"""`python -m tunesmith` is `tunesmith`."""

from tunesmith.cli.main import run

run()
