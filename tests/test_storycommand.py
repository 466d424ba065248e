"""`train report`, as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.records.ledger import Ledger
from tests.laptop import SCRIPT, Laptop, make_laptop, without_patience
from tests.servers import SshServer
from tests.tales import SESSION, Teller


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Laptop:
    """A laptop after an evening's session."""
    teller = Teller(tmp_path_factory.mktemp("told") / "home")
    teller.tell()
    return Laptop(teller.root, teller.home)


def test_what_was_run_is_told_with_its_code_and_its_cost(
    tmp_path: Path, embedded_server: SshServer
) -> None:
    laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_job("a")
    laptop.ok("a", "--remote", "vm", "--param", "model=first")
    (laptop.root / "a" / "job.py").write_text(f"# better\n{SCRIPT}")
    laptop.ok("a", "--remote", "vm", "--param", "model=second")
    before, after = laptop.json("history")
    story = laptop.json("report")

    assert (story["name"], story["is_session"]) == ("exam", False)
    for told, known in zip(story["trials"], (before, after), strict=True):
        assert (told["name"], told["state"]) == (known["name"], known["state"])
        assert (told["code"], told["model"]) == (known["code"], known["model"])
        assert told["cost"]["amount"] == known["cost"]["amount"]
    change = story["trials"][1]["change"]
    assert (change["since"], change["added"], change["removed"]) == (before["name"], 1, 0)
    assert "+# better" in change["lines"]
    assert "# Workspace exam" in laptop.ok("report").stdout


def test_the_form_is_told_by_the_name_of_the_file(told: Laptop, tmp_path: Path) -> None:
    for name, begins in (("r.html", "<!doctype html>"), ("r.md", "# Session"), ("r.json", "{")):
        file = tmp_path / name
        said = told.ok("report", "-o", str(file)).stdout
        assert said.startswith(f"{file}, ")
        assert file.read_text("utf-8").startswith(begins)
    assert told.ok("report", SESSION, "--format", "html").stdout.startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("-o", "r.doc"), "error: the name r.doc does not tell the form of the report\nfix:"),
        (("-o", "/dev/null", "--json"), "error: /dev/null is no file\nfix:"),
        (("-o", "category1", "--json"), "error: category1 is no file\nfix:"),
        (("-o", "gone/r.md"), "error: gone/r.md: no such file or directory"),
        (("yesterday",), "error: no session is called 'yesterday'\ncause: the last ones: evening"),
    ],
)
def test_what_cannot_be_told_or_written_is_an_error(
    told: Laptop, words: tuple[str, ...], says: str
) -> None:
    done = told.train("report", *words)

    assert done.returncode == 2
    assert done.stderr.startswith(says)
    assert done.stdout == ""


def test_a_report_that_would_be_sent_with_the_next_run_is_warned_of(told: Laptop) -> None:
    (told.root / ".trainignore").write_text("kept/\n")
    (told.root / "kept").mkdir()

    said = told.ok("report", "-o", "report.html").stderr
    assert "would be sent from now on" in said
    assert "write /report.html into .trainignore" in said
    assert without_patience(told.ok("report", "-o", "kept/report.html").stderr) == ""


def test_a_report_needs_no_workspace_and_changes_nothing(told: Laptop, tmp_path: Path) -> None:
    def listed() -> list[tuple[str, int]]:
        return [(str(file), file.stat().st_mtime_ns) for file in sorted(told.root.rglob("*"))]

    before = listed()
    done = told.train("report", SESSION, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"# Session {SESSION}\n")
    assert listed() == before
    with Ledger.open(told.home / "ledger.sqlite3") as ledger:
        assert len(ledger.sessions()) == 1
