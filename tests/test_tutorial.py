"""The tutorial's commands are run as they stand there, and show what it says they show.

In a ```console block a line with `$ ` is a command and what follows is its output, in which a line
of `...` stands for any lines, and `...` at a line's end for its rest. Numbers, run ids, digests
and the widths of tables are not compared. A command that ends with `...` is the one that the
practice VM printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.connection.practicevm import Ready, add_command
from orchestrator.tutorial import FILE
from tests.laptop import make_laptop
from tests.servers import SshServer

RUN_ID = re.compile(r"\b(category\d)-\d{8}-\d{6}-[0-9a-f]{4}\b")
TICK = re.compile(r"  .* \(\d+ s\)")


@dataclass(frozen=True)
class Step:
    command: str
    shown: tuple[str, ...]


def steps(text: str) -> Iterator[Step]:
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *shown = part.splitlines()
            yield Step(command, tuple(shown))


def masked(line: str) -> str:
    line = RUN_ID.sub(r"\1-RUN", line)
    line = re.sub(r"\b[0-9a-f]{12,}\b", "DIGEST", line)
    line = re.sub(r"\d+([.,]\d+)*", "N", line)
    line = re.sub(r"N (s|min)\b", "TIME", line)
    line = re.sub(r"N (B|kB|MB)\b", "SIZE", line)
    return re.sub(r" +", " ", re.sub("─+", "─", line)).strip()


def _pattern(line: str) -> str:
    if line == "...":
        return r"(?:.*\n)*"
    rest = ".*" if line.endswith("...") else ""
    return re.escape(masked(line.removesuffix("..."))) + rest + r"\n"


def matches(expected: tuple[str, ...], actual: list[str]) -> bool:
    pattern = "".join(map(_pattern, expected))
    lines = [masked(line) for line in actual if not TICK.fullmatch(line)]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


@pytest.mark.tf
@pytest.mark.timeout(300)
def test_every_command_of_the_tutorial_shows_what_it_says(
    tmp_path: Path, embedded_server: SshServer
) -> None:
    home, folder = tmp_path / ".config" / "trainshed", tmp_path
    home.mkdir(parents=True)
    programs = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "TRAINSHED_HOME": str(home),
    }
    server = embedded_server
    ready = Ready(server.port, server.user, server.known_hosts.read_text(), str(server.key), 0)
    for step in steps(FILE.read_text("utf-8")):
        command = add_command(ready) if step.command.endswith("...") else step.command
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            continue
        done = subprocess.run(
            ["sh", "-c", f"{command} 2>&1"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        shown = done.stdout.replace(str(home), "~/.config/trainshed").splitlines()
        assert done.returncode == 0, f"$ {command}\n{done.stdout}"
        assert matches(step.shown, shown), f"$ {command}\n{done.stdout}"


def test_output_that_differs_is_found_and_what_changes_each_time_is_not() -> None:
    shown = ("• synced", "...", "category1   2 of 5   9 s   mymodel.h5 d651990e6083", "next ...")

    same = ["• synced", "x (1 s)", "category1   5 of 5   12 s   mymodel.h5 24822b05c3c3", "next is"]
    assert matches(shown, same)
    assert matches(shown, ["• synced", "  working (3 s)", *same[2:]])
    assert not matches(shown, ["• sent", *same[1:]])
    assert not matches(shown, [*same, "! a warning"])
    assert not matches(shown, same[:-1])


def test_the_tutorial_is_a_page_for_a_browser_and_a_file_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = make_laptop(tmp_path, server=None)
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{opened}"\n')
    browser.chmod(0o755)

    assert laptop.train("docs", BROWSER=str(browser)).stdout == f"{FILE}\n"
    # What Python would find by itself on a machine without a desktop takes the terminal.
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "w3m").symlink_to(browser)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    assert str(FILE) in laptop.at_terminal("docs", answers={}, columns=200).stdout
    assert not opened.exists()
    monkeypatch.setenv("BROWSER", str(browser))
    shown = laptop.at_terminal("docs", answers={}, columns=200).stdout

    page = laptop.home / "tutorial.html"
    assert str(page) in shown
    assert opened.read_text().strip() == page.as_uri()
    html = page.read_text("utf-8")
    assert "<h1>Fifteen minutes with Trainshed</h1>" in html
    assert "src=" not in html
    assert "<link" not in html
