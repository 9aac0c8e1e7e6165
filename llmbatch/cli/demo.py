"""``llmbatch demo``: nothing in, a small real run out, with the model, the corpora and the prompts that come with llmbatch."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True, metavar="DIR"
)
@click.option(
    "--engine",
    default="vllm",
    show_default=True,
    help="scripted shows the way of a row without vLLM, and knows no answer.",
)
@click.pass_context
def demo(ctx: click.Context, output: Path, engine: str) -> None:
    """Run the model that comes with llmbatch over two small corpora, some rows of them broken on purpose.

    It needs vLLM and no GPU. At the end stands the share of answers that are exactly right against the known truth.
    """
    from rich.console import Console

    from llmbatch.demo import JOBS, demo_job, score
    from llmbatch.engines.kept import EngineKeeper
    from llmbatch.report import words
    from llmbatch.report.summary import print_summary
    from llmbatch.report.watch import watching
    from llmbatch.session import run_job

    console = Console()
    scores = []
    with EngineKeeper() as keeper:  # one start for both jobs
        for name in JOBS:
            with watching("auto") as watcher:
                result = run_job(demo_job(name, output, engine), [watcher], make=keeper.make)
            print_summary(console, result.report, f"llmbatch demo --output {output}")
            if result.outcome != "finished":
                ctx.exit(result.exit_code)
            scores.append(score(name, result))
    click.echo()
    for each in scores:
        click.echo(f"{each.name}: {each.right} of {each.rows} answers are exactly right ({words.share(each.share)})")
