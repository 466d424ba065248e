"""A word to the desktop, or to a command of the user's, when runs have ended.

The command is taken apart into words once, then `{category}` and the like are put into the words,
and no shell sees them. A notifier that hangs or fails is told, and changes nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.costs.cost import format_duration
from orchestrator.errors import TrainshedError
from orchestrator.grades.verdict import of_five
from orchestrator.screen.desktop import has_desktop
from orchestrator.screen.tell import Teller
from orchestrator.settings.config import load_notify
from orchestrator.settings.home import config_file
from orchestrator.settings.spec import Workspace

if TYPE_CHECKING:
    from orchestrator.grades.settling import Result

_LIMIT_S = 10.0
# The text comes in the environment, so that nothing in it can be taken for PowerShell.
_TOAST = """\
$kind = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI, ContentType=WindowsRuntime]
$toast = $kind::GetTemplateContent([Windows.UI.Notifications.ToastTemplateType]::ToastText02)
$texts = $toast.GetElementsByTagName('text')
[void]$texts[0].AppendChild($toast.CreateTextNode($env:TRAINSHED_TITLE))
[void]$texts[1].AppendChild($toast.CreateTextNode($env:TRAINSHED_TEXT))
$app = '{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\\WindowsPowerShell\\v1.0\\powershell.exe'
$kind::CreateToastNotifier($app).Show([Windows.UI.Notifications.ToastNotification]::new($toast))
"""


def notify(workspace: Workspace, result: Result, tell: Teller) -> None:
    """Say that runs have ended: the desktop hears of all at once, a command of each."""
    ended = _ended(result)
    said_in = workspace.root / "train.yaml" if workspace.notify else config_file()
    try:
        how = workspace.notify or load_notify(said_in) or "desktop"
    except TrainshedError as error:
        tell.warn(f"nobody is notified: {error}")
        return
    if how == "off" or not ended:
        return
    if how != "desktop":
        for facts in ended:
            words = [_filled(word, facts) for word in shlex.split(how)]
            given = {f"TRAINSHED_{name.upper()}": value for name, value in facts.items()}
            _send(words, given, said_in, tell)
        return
    title, text = _message(ended)
    if words := _desktop(title, text):
        _send(words, {"TRAINSHED_TITLE": title, "TRAINSHED_TEXT": text}, said_in, tell)


def _ended(result: Result) -> list[dict[str, str]]:
    """What is said of each run; all of it ours, nothing that a VM or a script wrote."""
    runs = {run.usage.run_id: run for run in result.runs}
    told = []
    for mirror in result.mirrors:
        if mirror.ended and mirror.run_id not in result.old:
            run, verdict = runs.get(mirror.run_id), result.made.get(mirror.run_id)
            points = verdict.points if verdict else None
            amount = run.cost.amount if run else None
            told.append(
                {
                    "run": mirror.run_id,
                    "category": mirror.request.job,
                    "state": mirror.verdict,
                    "points": "" if points is None else str(points),
                    "remote": run.usage.remote if run else "",
                    "seconds": f"{run.cost.seconds:.0f}" if run else "",
                    "cost": "" if amount is None else f"{amount:f}",
                    "currency": run.cost.currency if run else "",
                }
            )
    return told


def _filled(word: str, facts: Mapping[str, str]) -> str:
    """A word with its `{names}` replaced, each once: what is put in is not looked at again."""
    parts = []
    while "{" in word:
        before, _, rest = word.partition("{")
        name, closed, after = rest.partition("}")
        known = closed and name in facts
        parts += [before, facts[name] if known else "{"]
        word = after if known else rest
    return "".join([*parts, word])


def _message(ended: Iterable[Mapping[str, str]]) -> tuple[str, str]:
    lines = []
    for facts in ended:
        points = f", {of_five(int(facts['points']))}" if facts["points"] else ""
        took = f" in {format_duration(float(facts['seconds']))}" if facts["seconds"] else ""
        lines.append(f"{facts['category']} {facts['state']}{points}{took}")
    return "Training has ended", "\n".join(lines)


def _desktop(title: str, text: str) -> list[str]:
    """What shows a message here; empty where there is no desktop, or nothing that could."""
    if sys.platform == "darwin":
        script = (
            "on run argv",
            "display notification (item 2 of argv) with title (item 1 of argv)",
        )
        lines = [word for line in (*script, "end run") for word in ("-e", line)]
        return ["osascript", *lines, title, text]
    if sys.platform == "win32":
        return ["powershell", "-NoProfile", "-NonInteractive", "-Command", _TOAST]
    if has_desktop() and shutil.which("notify-send"):
        return ["notify-send", "--app-name=Trainshed", "--", title, text]
    return []


def _send(words: list[str], given: Mapping[str, str], said_in: Path, tell: Teller) -> None:
    if why := _trouble(words, given):
        tell.warn(f"notify: {words[0]}: {why}; to have none: notify: off in {said_in}")


def _trouble(words: list[str], given: Mapping[str, str]) -> str:
    """What went wrong with a notifier; "" if nothing did."""
    silent = subprocess.DEVNULL
    try:
        process = subprocess.Popen(
            words,
            env={**os.environ, **given},
            stdin=silent,
            stdout=silent,
            stderr=silent,
            start_new_session=True,
        )
    except OSError as error:
        return (error.strerror or str(error)).lower()
    try:
        code = process.wait(_LIMIT_S)
    except subprocess.TimeoutExpired:
        _kill(process)
        return f"it took more than {_LIMIT_S:g} s"
    return f"exit code {code}" if code else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """It and what it has started."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
