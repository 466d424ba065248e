"""A new workspace: what it holds, and what it never touches."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from orchestrator.config import load_workspace
from orchestrator.errors import UsageError
from orchestrator.ignore import Ignore
from orchestrator.init import CATEGORIES, launch_json, make_workspace, tasks_json
from orchestrator.tell import Silence
from tests.laptop import make_laptop

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


def make(folder: Path, *, solutions: bool = False) -> tuple[str, ...]:
    return make_workspace(folder, solutions=solutions, tell=Silence())


def everything(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def script(folder: Path, name: str = "category1") -> Path:
    return folder / name / f"{name}.py"


def test_the_workspace_is_one_that_the_config_understands(folder: Path) -> None:
    assert make(folder) == ()
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
    assert make(folder, solutions=True) == ()
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

    assert make(folder, solutions=True) == ("category2/category2.py",)
    assert script(folder, "category2").read_text() == "# two hours of work\n"
    assert make(folder, solutions=True) == ("category2/category2.py",)
    assert make(folder) == ()


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
    assert "trainshed[practice]" in raised.value.fix
    assert (folder / "train.yaml").exists()


def test_the_command_says_what_to_do_next_and_what_it_left_alone(folder: Path) -> None:
    laptop = make_laptop(folder.parent, server=None)
    first = laptop.ok("init", str(folder))
    script(folder).write_text("# mine")
    second = laptop.ok("init", str(folder), "--solutions")

    assert "train remote add NAME" in first.stdout
    assert "left as it was" not in first.stderr
    assert "! category1/category1.py is your own and was left as it is" in second.stderr
