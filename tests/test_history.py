"""`train history`: what was tried, what changed, and the way back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.desk import Desk
from orchestrator.errors import UsageError
from orchestrator.history import History
from orchestrator.records.shelf import file_sha256
from orchestrator.screen.console import Console
from orchestrator.settings.config import load_workspace
from tests.laptop import SCRIPT, Laptop, make_laptop
from tests.servers import SshServer


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, embedded_server: SshServer) -> Laptop:
    """A category that ran twice, with other code and another model, and one beside it."""
    laptop = make_laptop(tmp_path_factory.mktemp("history"), embedded_server)
    laptop.add_job("a")
    laptop.add_job("b")
    laptop.ok("a", "--remote", "vm", "--param", "model=first")
    (laptop.root / "a" / "job.py").write_text(f"# better\n{SCRIPT}")
    (laptop.root / "b" / "job.py").write_text(f"# of the other\n{SCRIPT}")
    laptop.ok("a", "--remote", "vm", "--param", "model=second")
    return laptop


@pytest.fixture
def past(tried: Laptop, monkeypatch: pytest.MonkeyPatch) -> Iterator[History]:
    monkeypatch.setenv("TRAINSHED_HOME", str(tried.home))
    with Desk(load_workspace(tried.root), Console(), ask=False) as desk:
        yield History(desk)


def test_every_run_is_listed_with_its_code_its_model_and_its_cost(tried: Laptop) -> None:
    rows = tried.json("history")

    assert [row["category"] for row in rows] == ["a", "a"]
    assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
    assert len({row["code"] for row in rows}) == len({row["model"] for row in rows}) == 2
    assert all(float(row["cost"]["amount"]) > 0 for row in rows)
    shown = tried.ok("history").stdout
    assert all(row["code"][:12] in shown and row["model"][:12] in shown for row in rows)
    assert "nothing was tried yet" in tried.ok("history", "b").stdout


def test_what_changed_between_two_is_shown_without_the_other_categories(
    tried: Laptop, past: History
) -> None:
    first, second = (entry.name for entry in past.entries(["a"]))
    changed = ["--- a/a/job.py", "+++ b/a/job.py", "@@ -1,3 +1,4 @@", "+# better"]

    for names in ([first, second], [second], ["a"]):
        assert past.diff(names)[:4] == changed
    assert "of the other" not in "".join(past.diff([first, second]))
    assert past.diff([first, first]) == []
    with pytest.raises(UsageError, match=f"nothing with other code was before {first} in a"):
        past.diff([first])
    # The category may be said once more.
    assert tried.ok("history", "a", "--diff", second).stdout.startswith("\n".join(changed))


def test_an_earlier_model_comes_back_and_the_other_one_is_kept(
    tried: Laptop, past: History
) -> None:
    model = tried.root / "a" / "mymodel.h5"
    first, second = (entry.model or "" for entry in past.entries(["a"]))
    assert file_sha256(model) == second

    said = tried.ok("history", "--restore", first[:8]).stdout

    assert said.startswith(f"{model} is the model {first[:12]} again; the one before it is kept")
    assert model.read_text() == "first"
    past.restore(second, overwrite=False)
    assert model.read_text() == "second"


def test_earlier_code_comes_back_beside_the_workspace_and_over_no_edit(
    tried: Laptop, past: History
) -> None:
    first, second = past.entries(["a"])
    target = tried.root.with_name(f"exam-{first.name}")
    script = target / "a" / "job.py"

    said = tried.ok("history", "--restore", first.name).stdout
    assert f"the code of {first.name} is in {target}; the workspace is as it was" in said
    assert script.read_text() == SCRIPT
    assert (tried.root / "a" / "job.py").read_text() != SCRIPT
    past.restore(first.name, overwrite=False)

    script.write_text("mine")
    with pytest.raises(UsageError, match="as they were then: a/job"):
        past.restore(first.name, overwrite=False)
    assert script.read_text() == "mine"
    past.restore(first.name, overwrite=True)
    assert script.read_text() == SCRIPT

    restored = past.restore(second.snapshot[:10], overwrite=False)
    assert (restored.path / "a" / "job.py").read_text().startswith("# better")


def test_what_is_not_there_is_named(tried: Laptop, past: History) -> None:
    with pytest.raises(UsageError, match="no model and no code has a digest 0123456789"):
        past.restore("0123456789", overwrite=False)
    with pytest.raises(UsageError, match="no run is or begins with 'nothing'"):
        past.restore("nothing", overwrite=False)
    with pytest.raises(UsageError, match="no category is named 'c'"):
        past.entries(["c"])
    with pytest.raises(UsageError, match="or one with what was before it, not 0"):
        past.diff([])
    done = tried.train("history", "--diff", "--restore", "x")
    assert done.returncode == 2
    assert "--diff and --restore are two things" in done.stderr


def test_a_run_goes_on_where_its_code_cannot_be_kept(tried: Laptop) -> None:
    code = tried.root / ".train" / "code"
    code.rename(code.with_name("aside"))
    code.write_text("no folder")
    try:
        done = tried.ok("b", "--remote", "vm")
        assert "the code of this run is not kept" in done.stderr
    finally:
        code.unlink()
        code.with_name("aside").rename(code)
