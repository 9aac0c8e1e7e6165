"""``llmbatch completion``: the name of a shell in; the script that teaches it to complete this command out."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")

EPILOG = """\b
To have it in every shell that you open:
  bash  echo 'eval "$(llmbatch completion bash)"' >> ~/.bashrc
  zsh   echo 'eval "$(llmbatch completion zsh)"' >> ~/.zshrc   (below compinit)
  fish  llmbatch completion fish > ~/.config/fish/completions/llmbatch.fish"""

# A setting ends in =, and what comes behind it is typed without a space. fish knows that by itself.
_NO_SPACE = {
    "bash": """
_llmbatch_completion_of_settings() {
    _llmbatch_completion "$@"
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}
complete -o nosort -F _llmbatch_completion_of_settings llmbatch
""",
    "zsh": """
_llmbatch_completion_of_settings() {
    local own=0
    if [[ ${words[CURRENT-1]} == --set ]] && (( ! $+functions[compadd] )); then
        own=1
        compadd() { builtin compadd -S '' "$@" }
    fi
    {
        _llmbatch_completion "$@"
    } always {
        (( own )) && unfunction compadd
    }
}
compdef _llmbatch_completion_of_settings llmbatch
""",
    "fish": "",
}


@click.command(epilog=EPILOG)
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what teaches SHELL (bash, zsh or fish) to complete commands, options, run folders, programs, formats and settings.

    \b
    Example: eval "$(llmbatch completion bash)"
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click has these three
        raise click.UsageError(f"this version of click has no completion for {shell}: pip install --upgrade click")
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "llmbatch", "_LLMBATCH_COMPLETE").source() + _NO_SPACE[shell], nl=False)
