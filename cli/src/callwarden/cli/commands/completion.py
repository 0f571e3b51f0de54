"""`callwarden completion`: what makes a shell complete commands, options and their values."""

from enum import StrEnum
from typing import Annotated

import typer


class CompletionShell(StrEnum):
    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[CompletionShell, typer.Argument(help="bash, zsh or fish.", show_default=False)],
) -> None:
    """Print the completion script of a shell.

    bash: source <(callwarden completion bash), in ~/.bashrc for every shell. zsh: the same, after compinit. fish:
    callwarden completion fish > ~/.config/fish/completions/callwarden.fish.

    Example: [bold]callwarden completion bash > /etc/bash_completion.d/callwarden[/bold]
    """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="callwarden", complete_var=VARIABLE, shell=shell.value))


VARIABLE = "_CALLWARDEN_COMPLETE"
"""By this the script asks for what can come next; the answer is the library's that reads the command line."""
