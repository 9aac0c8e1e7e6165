"""The command ``llmbatch``: a command line in, an exit code out.

    0    every row is ok            1    the job broke; resumable unless it says otherwise
    3    finished, some rows not    2    wrong usage, nothing was started
                                    130  stopped; the same command goes on

The module of a command is imported only when it is used, so that ``llmbatch --help`` and ``--version`` stay instant.
"""

from __future__ import annotations

import difflib
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from llmbatch import __version__
from llmbatch.cli import COMMANDS
from llmbatch.cli.leaving import leave
from llmbatch.core.errors import EngineError, LlmbatchError, ReadError, Stopped, WriteError
from llmbatch.core.screen import open_streams, shown
from llmbatch.core.table import find

if TYPE_CHECKING:
    from types import TracebackType

    from click.shell_completion import CompletionItem

RESUMABLE = (EngineError, ReadError, WriteError)
"""What breaks a run half-way for a reason outside of it."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, and turns our errors into exit codes."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        open_streams()
        try:
            return super().main(*args, **kwargs)
        except SystemExit as end:
            if not args and kwargs.get("args") is None:  # it is this process's own command, and not called by a program
                leave(end)
            raise

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            if ctx.resilient_parsing:  # a shell asks what may follow
                return None
            if close := difflib.get_close_matches(cmd_name, COMMANDS, n=1):
                ctx.fail(f"No such command {cmd_name!r}. Did you mean {close[0]!r}?")
            return None
        places = {name: place for name, (place, _) in COMMANDS.items()}
        command: click.Command = find(places, cmd_name, "command")
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(_debug_option())
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_) for name, (_, help_) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """As click's own, which would import every command to ask for its help."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        from click.shell_completion import CompletionItem

        return [CompletionItem(name, help=text) for name, (_, text) in COMMANDS.items() if name.startswith(incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_COMMAND_LINE] = shlex.join(["llmbatch", *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except LlmbatchError as error:
            if ctx.meta.get(_DEBUG):
                raise
            from llmbatch.core.words import printable  # a message may quote a row

            text = printable("\n".join([str(error), *getattr(error, "__notes__", ())]))
            with shown(sys.stderr):
                click.echo(text if isinstance(error, Stopped) else f"Error: {text}", err=True)
            ctx.exit(error.exit_code)
        except EOFError as error:  # click would say "Aborted!", as to somebody who ended the input of a question
            file = _cut_off(error.__traceback__)
            if file is None:
                raise RuntimeError("a file or a connection ended too early") from error
            with shown(sys.stderr):
                click.echo(
                    f"Error: {file} is cut off, as Python leaves what it compiles where the disk is full: remove it, and it is "
                    "made anew",
                    err=True,
                )
            ctx.exit(1)
        except KeyboardInterrupt:
            with shown(sys.stderr):
                click.echo("stopped", err=True)
            ctx.exit(Stopped.exit_code)


def _cut_off(traceback: TracebackType | None) -> str | None:
    """The compiled module that Python was reading there."""
    while traceback is not None:
        if traceback.tb_frame.f_code.co_name == "get_code":  # of importlib
            return traceback.tb_frame.f_locals.get("bytecode_path")
        traceback = traceback.tb_next
    return None


_COMMAND_LINE = "llmbatch.cli.main.command_line"
_DEBUG = "llmbatch.cli.main.debug"


def command_line(ctx: click.Context) -> str:
    """The command that was typed, ready to be pasted into a shell."""
    return str(ctx.meta[_COMMAND_LINE])


def _keep_debug(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[_DEBUG] = True


def _debug_option() -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        callback=_keep_debug,
        envvar="LLMBATCH_DEBUG",
        help="Show the whole traceback of an error.",
    )


@click.group(cls=LazyGroup, params=[_debug_option()], context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llmbatch")
def main() -> None:
    """Run an LLM over a whole corpus on hardware that you own: one checked result for every row, nothing lost."""


__all__ = ["RESUMABLE", "command_line", "main"]
