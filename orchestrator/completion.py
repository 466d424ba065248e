"""What is typed, completed by the user's shell."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import click

from orchestrator.errors import UsageError

# Where a shell looks when it starts, and what it does there. Source: click's "Shell Completion".
_COMPLETION = {
    "bash": (
        ".bashrc",
        'command -v train >/dev/null && eval "$(_TRAIN_COMPLETE=bash_source train)"',
    ),
    "fish": (".config/fish/completions/train.fish", "_TRAIN_COMPLETE=fish_source train | source"),
    "zsh": (
        ".zshrc",
        # A new user's zsh has not loaded what completes.
        "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }; "
        'command -v train >/dev/null && eval "$(_TRAIN_COMPLETE=zsh_source train)"',
    ),
}


def _complete(context: click.Context, option: click.Parameter, chosen: bool) -> None:
    """Print how the user's shell completes what is typed, or have it do so from now on."""
    if not chosen:
        return
    shell = Path(os.environ.get("SHELL", "")).name
    if shell not in _COMPLETION:
        raise UsageError(
            f"completion is for {', '.join(_COMPLETION)}, not {shell!r}",
            fix=f"SHELL=/bin/bash train {option.opts[0]}",
        )
    name, line = _COMPLETION[shell]
    if option.name == "show_completion":
        print(line)
    else:
        file = Path.home() / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or line not in file.read_text("utf-8", "replace"):
            with file.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{line}\n")
        print(f"{file} has: {line}\nIt takes effect in the next {shell}.")
    context.exit()


completion_option = partial(
    click.option, is_flag=True, is_eager=True, expose_value=False, callback=_complete
)
