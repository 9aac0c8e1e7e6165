"""``llmbatch merge``: the run folders of all slices of an input in, one run folder of the whole input out."""

from __future__ import annotations

from pathlib import Path

import click

from llmbatch.cli.complete import run_folders


@click.command()
@click.argument(
    "folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=run_folders
)
@click.option("--output", metavar="DIR", required=True, type=click.Path(path_type=Path), help="The new run folder.")
@click.option("--to", metavar="URL|DIR", help="Copy the finished files there, e.g. to s3://bucket/prefix/.")
@click.pass_context
def merge(ctx: click.Context, folders: tuple[Path, ...], output: Path, to: str | None) -> None:
    """Put the finished slices DIR... (llmbatch run --shard I/N) of an input into one run folder.

    Its records are in the order of the input, its other files are made anew, and it is audited. The slices stay as they are.
    The exit code is that of a run: 0 every row is ok; 3 some rows are not.
    """
    from llmbatch.runs.merge import merge as put_together

    result = put_together(folders, output, to=to, say=click.echo)
    ctx.exit(result.exit_code)
