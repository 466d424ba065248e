"""A new workspace: what it holds, and what it never touches."""

from __future__ import annotations

import json
import os
import shlex
import stat
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.init import CATEGORIES, Made, launch_json, make_workspace, tasks_json
from orchestrator.problems import draw, online
from orchestrator.screen.tell import Silence
from orchestrator.settings.config import load_workspace
from orchestrator.source.ignore import Ignore
from tests.laptop import make_laptop, without_patience

# One draws category3 of the practice pack, and no other of it; one category1 of it.
SEED, OTHER = 18, 1
PACK = Path(__file__).parent.parent / "jobs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a workspace may go; its data is there already, for making it takes a minute."""
    folder = tmp_path / 'it\'s an "exam" 試'
    for name in CATEGORIES:
        for file in ("heldout.npz", "data/train.npz"):
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).touch()
    return folder


def make(folder: Path, *, solutions: bool = False) -> Made:
    return make_workspace(folder, solutions=solutions, tell=Silence())


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def script(folder: Path, name: str = "category1") -> Path:
    return folder / name / f"{name}.py"


def test_the_workspace_is_one_that_the_config_understands(folder: Path) -> None:
    assert make(folder).unsolved == ()
    workspace = load_workspace(folder / "category2")

    assert workspace.root == folder
    assert tuple(job.name for job in workspace.jobs) == CATEGORIES
    for job in workspace.jobs:
        assert job.command == f"python {job.name}/{job.name}.py"
        assert str(job.model) == f"{job.name}/mymodel.h5"
        assert (folder / job.data[0]).is_dir()
        assert job.time_limit_s == 2400
        for file in ("brief.md", "grader.py", "prepare.py", f"{job.name}.py"):
            assert (folder / job.name / file).read_bytes() == (PACK / job.name / file).read_bytes()


def test_the_solution_is_only_there_when_it_is_asked_for(folder: Path) -> None:
    make(folder)
    solution = (PACK / "category1" / "solution.py").read_bytes()

    assert solution not in everything(folder).values()
    assert make(folder, solutions=True).unsolved == ()
    assert script(folder).read_bytes() == solution


def test_making_it_again_changes_nothing(folder: Path) -> None:
    make(folder)
    (folder / "train.yaml").write_text("jobs: {}\n")
    (folder / "category1" / "grader.py").write_text("# mine")
    script(folder).write_text("# mine, too")
    before = everything(folder)
    make(folder)

    assert everything(folder) == before


def test_a_lost_file_is_made_again(folder: Path) -> None:
    make(folder)
    before = everything(folder)
    for name in ("train.yaml", "category3/grader.py", ".vscode/tasks.json"):
        (folder / name).unlink()
    make(folder)

    assert everything(folder) == before


def test_a_script_of_the_users_own_is_never_overwritten_by_a_solution(folder: Path) -> None:
    make(folder)
    script(folder, "category2").write_text("# two hours of work\n")

    assert make(folder, solutions=True).unsolved == ("category2/category2.py",)
    assert script(folder, "category2").read_text() == "# two hours of work\n"
    assert make(folder, solutions=True).unsolved == ("category2/category2.py",)
    assert make(folder).unsolved == ()


def test_held_out_data_and_graders_stay_out_of_every_snapshot(folder: Path) -> None:
    make(folder)
    ignore = Ignore(folder, ())
    for name in CATEGORIES:
        verdicts = {
            file: ignore.verdict(f"{name}/{file}", is_folder=False).name
            for file in ("heldout.npz", "grader.py", f"{name}.py")
        }
        assert verdicts == {
            "heldout.npz": "HELD_OUT",
            "grader.py": "HELD_OUT",
            f"{name}.py": "SENT",
        }


def test_the_tasks_of_vs_code_are_plain_json_and_name_real_commands(folder: Path) -> None:
    make(folder)
    tasks = json.loads((folder / ".vscode" / "tasks.json").read_text())
    launch = json.loads((folder / ".vscode" / "launch.json").read_text())

    commands = {task["args"][0] for task in tasks["tasks"]}
    assert commands == {"run", "logs", "status", "pull", "grade", "ready"}
    assert {task["command"] for task in tasks["tasks"]} == {"train"}
    assert [task["label"] for task in tasks["tasks"] if task["group"] != "build"] == [
        "train: this category"
    ]
    used = {word for task in tasks["tasks"] for word in task["args"] if "${input:" in word}
    assert used == {f"${{input:{one['id']}}}" for one in tasks["inputs"]}
    assert launch["configurations"][0]["program"] == "${file}"
    assert json.loads(tasks_json(["x"])) == tasks
    assert json.loads(launch_json()) == launch


def test_a_place_that_cannot_be_a_workspace_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make a workspace") as raised:
        make(tmp_path / "file" / "exam")
    assert "may write" in raised.value.fix


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(UsageError, match="cannot make a workspace"):
        make(tmp_path / "exam")


def test_data_that_cannot_be_prepared_names_the_category_and_what_python_said(
    folder: Path,
) -> None:
    (folder / "category4" / "heldout.npz").unlink()
    (folder / "category4" / "prepare.py").write_text("raise ImportError('no skimage')")

    with pytest.raises(UsageError, match="the data of category4") as raised:
        make(folder)
    assert raised.value.cause == "ImportError: no skimage"
    assert "pip install '.[practice]'" in raised.value.fix
    assert (folder / "train.yaml").exists()


def test_the_command_says_what_to_do_next_and_what_it_left_alone(folder: Path) -> None:
    laptop = make_laptop(folder.parent, server=None)
    first = laptop.ok("init", str(folder))
    script(folder).write_text("# mine")
    second = laptop.ok("init", str(folder), "--solutions")

    assert "train remote add NAME" in first.stdout
    assert "  train --remote NAME\n" in first.stdout
    assert without_patience(first.stderr) == ""
    assert f"  cd {shlex.quote(str(folder))}\n" in first.stdout
    assert f"• {folder} is a workspace already; kept as they were: 20 files\n" in second.stderr
    assert "• added: nothing, it is complete\n" in second.stderr
    assert (
        "! category1/category1.py is your own and was left as it is, without the solution\n"
        in second.stderr
    )


def test_the_command_names_the_only_remote_there_is(folder: Path) -> None:
    laptop = make_laptop(folder.parent, server=None)
    remotes = laptop.home / "remotes.yaml"
    remotes.parent.mkdir(exist_ok=True)
    remotes.write_text("remotes: {azure-k80: {host: 203.0.113.7}}\n")
    said = laptop.ok("init", str(folder)).stdout
    assert said.endswith("  train --remote azure-k80\n")
    assert "remote add" not in said

    remotes.write_text("remotes: [not, so]\n")
    assert laptop.ok("init", str(folder)).stdout.endswith("  train --remote NAME\n")


def test_what_was_there_what_came_and_what_is_the_users_own_is_told(folder: Path) -> None:
    first = make(folder)
    assert (len(first.added), first.kept, first.own, first.outer) == (24, (), (), None)

    (folder / "train.yaml").write_text("jobs: {}\n")
    script(folder).write_text("# mine")
    (folder / "category3" / "grader.py").unlink()
    again = make(folder)
    assert again.added == ("category3/grader.py",)
    assert set(again.kept) == set(first.added) - {"category3/grader.py"}
    assert again.own == ("category1/category1.py", "train.yaml")

    (folder / "category3" / "grader.py").unlink()
    done = make_laptop(folder.parent, server=None).ok("init", str(folder))
    assert "• added: category3/grader.py\n" in done.stderr
    assert "! train.yaml is your own and was left as it is\n" in done.stderr
    assert (folder / "train.yaml").read_text() == "jobs: {}\n"


def test_a_solution_that_was_asked_for_earlier_is_not_the_users_own(folder: Path) -> None:
    make(folder, solutions=True)

    assert make(folder).own == ()


def test_a_workspace_in_another_one_is_told_whose_commands_will_see_it(folder: Path) -> None:
    laptop = make_laptop(folder.parent, server=None, workspace="outer")
    inner = folder.rename(laptop.root / "in a folder")
    done = laptop.ok("init", str(inner))

    assert (
        f"! {inner} lies inside the workspace {laptop.root}: there and below, commands see "
        f"{inner / 'train.yaml'}, not {laptop.root / 'train.yaml'}\n"
    ) in done.stderr
    assert make(inner).outer == laptop.root / "train.yaml"
    assert load_workspace(inner / "category1").root == inner
    assert (laptop.root / "train.yaml").read_text() == "jobs:\n"


def test_a_workspace_of_a_seed_is_completed_without_naming_the_seed_again(folder: Path) -> None:
    # Its problems are not those of the practice pack, but for category3.
    make_workspace(folder, solutions=False, tell=Silence(), seed=SEED)
    before = everything(folder)
    assert make(folder).own == ()
    assert everything(folder) == before

    assert make(folder, solutions=True).unsolved == ()
    for problem in draw(SEED):
        solution = (PACK / problem.name / "solution.py").read_bytes()
        assert script(folder, problem.category).read_bytes() == solution
        # With the seed it is the answer key.
        assert not (folder / problem.category / "prepare.py").exists()


def test_another_problem_than_is_there_is_refused(folder: Path) -> None:
    make_workspace(folder, solutions=False, tell=Silence(), seed=SEED)
    before = everything(folder)
    make_workspace(folder, solutions=False, tell=Silence(), seed=SEED)
    with pytest.raises(UsageError, match="is the problem category1-diabetes, not category1"):
        make_workspace(folder, solutions=False, tell=Silence(), seed=OTHER)
    with pytest.raises(UsageError, match="not online/category3-hands"):
        make_workspace(folder, solutions=False, tell=Silence(), instead=[online("hands")])

    assert everything(folder) == before


def test_data_of_a_seed_that_is_gone_asks_for_the_seed(folder: Path) -> None:
    make_workspace(folder, solutions=False, tell=Silence(), seed=SEED)
    (folder / "category5" / "heldout.npz").unlink()

    with pytest.raises(UsageError, match="the seed it was made from is not kept") as raised:
        make(folder)
    assert raised.value.fix == f"train init {shlex.quote(str(folder))} --seed N"


def test_who_has_a_remote_is_not_told_to_add_one(folder: Path) -> None:
    laptop = make_laptop(folder.parent, server=None)
    (laptop.home / "remotes.yaml").write_text("remotes:\n  vm: {host: 203.0.113.7}\n")
    told = laptop.ok("init", str(folder)).stdout

    assert "remote add" not in told
    assert "  train --remote vm\n" in told
