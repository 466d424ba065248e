"""`train history`: what was tried, what changed, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.shelf import file_sha256
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


def runs(laptop: Laptop) -> list[str]:
    return [row["name"] for row in laptop.json("history", "a")]


def test_every_run_is_listed_with_its_code_its_model_and_its_cost(tried: Laptop) -> None:
    rows = tried.json("history")

    assert [row["category"] for row in rows] == ["a", "a"]
    assert [row["state"] for row in rows] == ["succeeded", "succeeded"]
    assert len({row["code"] for row in rows}) == len({row["model"] for row in rows}) == 2
    assert all(float(row["cost"]["amount"]) > 0 for row in rows)
    shown = tried.ok("history").stdout
    assert all(row["code"][:12] in shown and row["model"][:12] in shown for row in rows)
    assert "nothing was tried yet" in tried.ok("history", "b").stdout


def test_what_changed_between_two_is_shown_without_the_other_categories(tried: Laptop) -> None:
    first, second = runs(tried)
    changed = "--- a/a/job.py\n+++ b/a/job.py\n@@ -1,3 +1,4 @@\n+# better\n"

    assert tried.ok("history", "--diff", first, second).stdout.startswith(changed)
    assert tried.ok("history", "a", "--diff", second).stdout.startswith(changed)
    assert tried.ok("history", "--diff", "a").stdout.startswith(changed)
    assert "of the other" not in tried.ok("history", "--diff", first, second).stdout
    assert tried.ok("history", "--diff", first, first).stdout == "nothing changed in the code\n"
    done = tried.train("history", "--diff", first)
    assert done.returncode == 2
    assert f"nothing with other code was before {first} in a" in done.stderr


def test_an_earlier_model_comes_back_and_the_other_one_is_kept(tried: Laptop) -> None:
    model = tried.root / "a" / "mymodel.h5"
    first, second = (row["model"] for row in tried.json("history", "a"))
    assert file_sha256(model) == second

    said = tried.ok("history", "--restore", first[:8]).stdout

    assert said == f"{model} is the model {first[:12]} again; what stood there is kept\n"
    assert model.read_text() == "first"
    tried.ok("history", "--restore", second)
    assert model.read_text() == "second"


def test_earlier_code_comes_back_beside_the_workspace_and_over_no_edit(tried: Laptop) -> None:
    first = runs(tried)[0]
    target = tried.root.with_name(f"exam-{first}")

    tried.ok("history", "--restore", first)
    assert (target / "a" / "job.py").read_text() == SCRIPT
    assert (tried.root / "a" / "job.py").read_text() != SCRIPT
    tried.ok("history", "--restore", first)

    (target / "a" / "job.py").write_text("mine")
    done = tried.train("history", "--restore", first)
    assert done.returncode == 2
    assert f"{target} has files that are not as they were then: a/job.py" in done.stderr
    assert (target / "a" / "job.py").read_text() == "mine"
    tried.ok("history", "--restore", first, "--yes")
    assert (target / "a" / "job.py").read_text() == SCRIPT

    code = tried.json("history", "a")[1]["code"]
    restored = tried.json("history", "--restore", code[:10])
    assert (Path(restored["path"]) / "a" / "job.py").read_text().startswith("# better")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--restore", "0123456789"), "no model and no code has a digest 0123456789"),
        (("--restore", "nothing"), "no run is or begins with 'nothing'"),
        (("--diff",), "--diff compares two, or one with what was before it, not 0"),
        (("--diff", "--restore", "x"), "--diff and --restore are two things"),
        (("c",), "no category is named 'c'"),
    ],
)
def test_what_is_not_there_is_named(tried: Laptop, words: tuple[str, ...], said: str) -> None:
    done = tried.train("history", *words)

    assert done.returncode == 2
    assert said in done.stderr


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
