"""The command line: what was typed becomes a command, and what went wrong an exit code."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from gc import set_threshold
from typing import NoReturn

import click

from orchestrator.commands import app
from orchestrator.costs.commands import down, prices, session, up
from orchestrator.elsewhere.commands import export, import_
from orchestrator.errors import (
    FULL,
    Interrupted,
    LedgerDamaged,
    TrainshedError,
    UsageError,
    unwritten,
)
from orchestrator.exams.commands import exam, history, submit
from orchestrator.machinecommands import docs, doctor, gc, remote
from orchestrator.measuring.commands import bench
from orchestrator.screen.printable import printable
from orchestrator.stories.command import report
from orchestrator.sweeps.commands import sweep
from orchestrator.trackers.commands import mlflow, tensorboard
from orchestrator.watch.command import watch

EXIT_BUG = 70

# What a write to a file or a terminal that takes nothing more ends with.
_FULL = (*FULL, errno.EIO)

for _command in (
    watch,
    *(exam, submit, history),
    *(up, down, session, prices, bench),
    *(sweep, report),
    *(import_, export),
    *(tensorboard, mlflow),
    *(doctor, gc, remote, docs),
):
    app.add_command(_command)


def main() -> NoReturn:
    """Run one command and exit with its code."""
    # Looking for garbage among what is just being imported takes an eighth of a short command's
    # time, and taking the interpreter apart at its end another: the system frees it all anyway.
    set_threshold(100_000)
    # Nothing that we make is for all to write.
    os.umask(os.umask(0) | 0o002)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    code = run_command()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        pass  # nobody listens any more
    except OSError as error:
        if not code:  # else that has been told
            code = _unwritten(error).exit_code
            sys.stderr.write(_unwritten(error).render() + "\n")
    with contextlib.suppress(OSError, AttributeError):
        sys.stderr.flush()
    os._exit(code)


def _interrupt(number: int, frame: object) -> None:
    """The first Ctrl-C ends the command in good order, the second at once: a kill does no harm."""
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(Interrupted.exit_code))
    raise KeyboardInterrupt


def run_command() -> int:
    """The exit code; a traceback is only ever our own fault."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A log may hold what an old terminal's encoding cannot say.
            stream.reconfigure(errors="replace")
    debug = "--debug" in sys.argv
    typed = [word for word in sys.argv[1:] if word != "--debug"]
    arguments = app.expand(typed)
    if arguments in ([], ["remote"], ["session"], ["exam"]):
        arguments.append("--help")  # nothing else makes sense
    try:
        code = _run(arguments)
    except Interrupted as stop:
        return _stopped(str(stop), stop.fix.splitlines())
    except (KeyboardInterrupt, click.Abort):
        return _stopped("interrupted; the same command goes on from there", ())
    except Exception as error:  # noqa: BLE001  # the last place where anything can be said
        told = _told(error)
        if told is None or debug:
            import traceback

            traceback.print_exc()
        if told is None:
            sys.stderr.write(
                "error: this is a bug in trainshed\nfix:   please report it with the lines above\n"
            )
            return EXIT_BUG
        if arguments != typed:
            _hint_command(told, arguments)
        sys.stderr.write(told.render() + "\n")
        return told.exit_code
    return code if isinstance(code, int) else 0


def _run(arguments: list[str]) -> object:
    try:
        return app.main(arguments, prog_name="train", standalone_mode=False)
    except LedgerDamaged as damage:
        _rebuild(damage)
    # Every command can be given again, and goes on from what is there.
    return app.main(arguments, prog_name="train", standalone_mode=False)


def _rebuild(damage: LedgerDamaged) -> None:
    """Make the ledger anew, and say what was lost."""
    from orchestrator.records.rebuild import rebuild
    from orchestrator.settings.config import workspace_here
    from orchestrator.settings.home import ledger_file

    workspace = workspace_here()
    rebuilt = rebuild(ledger_file(), workspace.root if workspace else None)
    if rebuilt is not None:
        lines = (f"warning: {damage}", *(f"  {line}" for line in rebuilt.lines()))
        sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))


def _stopped(message: str, commands: Sequence[str]) -> int:
    sys.stderr.write("\n".join([message, *(f"  {command}" for command in commands)]) + "\n")
    return Interrupted.exit_code


def _told(error: Exception) -> TrainshedError | None:
    """What the user can be told; None of a bug."""
    if isinstance(error, TrainshedError):
        return error
    if isinstance(error, click.UsageError):
        text = error.format_message()
        if isinstance(error, click.NoSuchOption):
            # Said in another way by every other click.
            near = ", ".join(sorted(error.possibilities or ()))
            hint = f" (Possible options: {near})" if near else ""
            text = f"no such option: {error.option_name}{hint}"
        text = text.strip().rstrip(".")
        path = error.ctx.command_path if error.ctx else "train"
        return UsageError(text[:1].lower() + text[1:], fix=f"{path} --help")
    if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:
        return _unwritten(error)
    if isinstance(error, OSError) and error.filename is not None:
        told = unwritten(error, error.filename)
        told.__cause__ = error.__cause__
        return told
    return None


def _unwritten(error: OSError) -> UsageError:
    reason = (error.strerror or str(error)).lower()
    return UsageError(f"the result cannot be written: {reason}", fix="free some space there")


def _hint_command(error: TrainshedError, arguments: Sequence[str]) -> None:
    """`train stauts` was taken for a category; say which command is near."""
    if isinstance(error, UsageError) and str(error).startswith("no category is named"):
        import difflib

        near = difflib.get_close_matches(arguments[1], list(app.commands), n=1, cutoff=0.7)
        error.fix = f"did you mean: train {near[0]}" if near else f"{error.fix}, or see: train -h"


if __name__ == "__main__":
    main()
