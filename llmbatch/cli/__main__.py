"""``python -m llmbatch.cli``: the command where its script is not installed."""

from llmbatch.cli.main import main

main(prog_name="llmbatch")
