"""What starts the guard again: the unit's text, and the lines of a crontab.

The unit is checked by systemd's own reader, where that is here; it has not been run, because where
tests run there is no systemd. Cron is run for real in `tests/faults/test_guarded.py`.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from remote.guardfolder import GuardFolder
from remote.keepalive import cron_lines, guard_command, unit_name, unit_text

AWKWARD = 'a "store" of 100% $HOME \\ é'


@pytest.fixture(params=["store", AWKWARD])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> GuardFolder:
    folder = GuardFolder(tmp_path / request.param / "guard")
    folder.path.mkdir(parents=True)
    return folder


def test_systemd_understands_the_unit(folder: GuardFolder, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / unit_name(folder)
    unit.write_text(unit_text(folder, "/usr/bin/python3"))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, ours) == (0, [])


def test_the_units_command_is_the_guards_whatever_the_folder_is_called(
    folder: GuardFolder,
) -> None:
    line = next(
        line.partition("=")[2]
        for line in unit_text(folder, "/usr/bin/python3").splitlines()
        if line.startswith("ExecStart=")
    )
    # As systemd undoes it: specifiers, variables, then quotes with backslashes.
    shell = shlex.split(line.replace("%%", "%").replace("$$", "$"))
    assert shell[:2] == ["/bin/sh", "-c"]
    words = shlex.split(shell[2].replace(";", " ;"))
    assert words[:3] == ["flock", str(folder.lock), "true"]
    assert words[words.index("exec") + 1 :] == guard_command(folder, "/usr/bin/python3")


def test_the_lines_of_a_crontab_are_one_command_each(folder: GuardFolder) -> None:
    lines = cron_lines(folder, "/usr/bin/python3")
    assert [line.partition(" /")[0] for line in lines] == ["@reboot", "*/5 * * * *"]
    for line in lines:
        command = "/" + line.partition(" /")[2]
        assert "%" not in command.replace("\\%", "")
        words = shlex.split(command.replace("\\%", "%"), comments=True)
        assert words[:-2] == guard_command(folder, "/usr/bin/python3")


def test_two_stores_have_two_units() -> None:
    first, second = (GuardFolder(Path("/") / name / "guard") for name in "ab")
    assert unit_name(first) != unit_name(second)
