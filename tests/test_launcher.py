"""A run's `python` is the environment's, and does what it does without us."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from remote import launcher
from remote.launcher import prepare_launch

REMOTE = Path(launcher.__file__).parent

# What a script can see of how it was started.
SEES = """
import json, os, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "executable": sys.executable, "prefix": sys.prefix,
    "main": sorted(vars(sys.modules["__main__"])), "flags": repr(sys.flags), "name": __name__,
    "input": "" if sys.argv[0] == "-" else sys.stdin.read(),
}))
"""


def find_interpreters() -> list[str]:
    """This interpreter and the oldest ones there are: TRAINSHED_OLD_PYTHON lists their paths."""
    named = os.environ.get("TRAINSHED_OLD_PYTHON", "").split(os.pathsep)
    found = [one for one in (*named, shutil.which("python3.8")) if one]
    # A version manager's stand-in can be on PATH without a Python behind it.
    works = [
        one for one in found if subprocess.run([one, "-c", ""], capture_output=True).returncode == 0
    ]
    return [sys.executable, *works]


INTERPRETERS = find_interpreters()


def pack(folder: Path) -> Path:
    """The zip file that a run on a VM holds."""
    package = folder / "remote.zip"
    with zipfile.ZipFile(package, "w") as modules:
        for source in REMOTE.glob("*.py"):
            modules.write(source, f"remote/{source.name}")
    return package


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / 'it\'s a "run" $HOME\n`é`'
    folder.mkdir()
    return folder


def start(
    run_folder: Path,
    command: str,
    python: str = sys.executable,
    stdin: str = "",
    metrics: bool = True,
    **env: str,
) -> subprocess.CompletedProcess[str]:
    """Do what the supervisor does with a job's command."""
    launch = prepare_launch(run_folder, pack(run_folder), python, metrics)
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=run_folder,
        env={**os.environ, **launch, **env},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("python", INTERPRETERS)
@pytest.mark.parametrize(
    "arguments",
    [
        "see.py a 'b c' -u --help ''",
        "-u -W ignore see.py -x",
        "-m see 1 2",
        '-c \'import runpy; runpy.run_path("see.py", run_name="__main__")\' x y',
        "- from-stdin <see.py",
        "-V",
        "-c 'import sys; sys.exit(3)'",
        "-c 'import os; os.kill(os.getpid(), 9)'",
        "-c 'import nosuchmodule'",
        "fails.py",
        "nosuchfile.py",
        "-I see.py",
        "package",
    ],
)
def test_a_script_sees_what_plain_python_shows_it(
    run_folder: Path, python: str, arguments: str
) -> None:
    (run_folder / "see.py").write_text(SEES)
    (run_folder / "fails.py").write_text("def f():\n    raise ValueError('here')\nf()\n")
    (run_folder / "package").mkdir()
    (run_folder / "package" / "__main__.py").write_text(SEES)

    ours = start(run_folder, f"python {arguments}", python, stdin="some input")
    plain = start(run_folder, f"'{python}' {arguments}", python, stdin="some input")

    assert (ours.returncode, ours.stdout, ours.stderr) == (
        plain.returncode,
        plain.stdout,
        plain.stderr,
    )


@pytest.mark.parametrize("python", INTERPRETERS)
def test_starting_python_loads_nothing_that_could_hide_a_module_of_the_user(
    run_folder: Path, python: str
) -> None:
    show = "-c 'import sys; print(*sorted(sys.modules))'"

    ours = start(run_folder, f"python {show}", python).stdout.split()
    plain = start(run_folder, f"'{python}' {show}", python).stdout.split()

    assert set(ours) - set(plain) <= {"__future__", "sitecustomize"}


@pytest.mark.parametrize("name", ["python", "python3"])
def test_a_virtual_environment_keeps_its_packages(
    run_folder: Path, tmp_path: Path, name: str
) -> None:
    venv.create(tmp_path / "an env", symlinks=True, with_pip=False)
    python = tmp_path / "an env" / "bin" / "python"
    (site_packages,) = (tmp_path / "an env").glob("lib/python*/site-packages")
    (site_packages / "only_here.py").write_text("")

    done = start(run_folder, f"{name} -c 'import only_here, sys; print(sys.prefix)'", str(python))

    assert done.stdout == f"{tmp_path / 'an env'}\n", done.stderr


def test_the_other_programs_of_the_environment_are_found_too(
    run_folder: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "env" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    (programs / "some-tool").write_text("#!/bin/sh\necho found\n")
    (programs / "some-tool").chmod(0o755)

    assert start(run_folder, "some-tool", str(programs / "python")).stdout == "found\n"


def test_a_name_instead_of_a_path_is_refused(run_folder: Path) -> None:
    with pytest.raises(AssertionError, match="python3"):
        prepare_launch(run_folder, pack(run_folder), "python3", True)


def test_launching_again_in_the_same_folder_does_no_harm(run_folder: Path) -> None:
    assert start(run_folder, "python -c 'print(1)'").stdout == "1\n"
    assert start(run_folder, "python -c 'print(2)'").stdout == "2\n"


def test_a_sitecustomize_of_the_environment_still_runs(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("print('theirs')")

    done = start(
        run_folder,
        "python -c 'import sitecustomize; print(sitecustomize.__file__)'",
        PYTHONPATH=str(tmp_path / "theirs"),
    )

    assert done.stdout == f"theirs\n{tmp_path / 'theirs' / 'sitecustomize.py'}\n", done.stderr


def test_a_broken_sitecustomize_of_the_environment_is_reported_as_ever(
    run_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text("import nosuchmodule")

    ours = start(run_folder, "python -c ''", PYTHONPATH=str(tmp_path / "theirs"))
    plain = start(run_folder, f"'{sys.executable}' -c ''", PYTHONPATH=str(tmp_path / "theirs"))

    assert "nosuchmodule" in ours.stderr
    assert ours.stderr == plain.stderr


def test_a_folder_called_remote_is_the_user_s_own(run_folder: Path) -> None:
    (run_folder / "remote").mkdir()
    (run_folder / "remote" / "__init__.py").write_text("whose = 'mine'")

    done = start(run_folder, "python -c 'import remote; print(remote.whose)'")

    assert done.stdout == "mine\n", done.stderr


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.parametrize("python", INTERPRETERS)
def test_multiprocessing_works(run_folder: Path, python: str, method: str) -> None:
    (run_folder / "many.py").write_text(
        "import multiprocessing\n"
        "def double(number): return 2 * number\n"
        "if __name__ == '__main__':\n"
        f"    with multiprocessing.get_context('{method}').Pool(2) as pool:\n"
        "        print(pool.map(double, [1, 2, 3]))\n"
    )

    done = start(run_folder, "python many.py", python)

    assert (done.stdout, done.stderr) == ("[2, 4, 6]\n", "")


def test_a_signal_reaches_python_itself(run_folder: Path) -> None:
    done = start(run_folder, "python -c 'import os; print(os.getppid())' & echo $$; wait")
    shell, parent = sorted(map(int, done.stdout.split()))
    assert shell == parent, "something stands between the shell and python"

    done = start(run_folder, "exec python -c 'import os; os.kill(os.getpid(), 15)'")
    assert done.returncode == -signal.SIGTERM


def test_without_metrics_python_starts_as_if_we_were_not_there(run_folder: Path) -> None:
    done = start(
        run_folder,
        "python -c 'import os, sys; print(os.environ.get(\"PYTHONPATH\"), len(sys.meta_path))'",
        metrics=False,
        PYTHONPATH="theirs",
    )
    assert not (run_folder / "site").exists()
    plain = start(run_folder, f"'{sys.executable}' -c 'import sys; print(len(sys.meta_path))'")

    assert done.stdout == f"theirs {plain.stdout}"


@pytest.mark.parametrize("python", INTERPRETERS)
def test_every_module_works_on_this_interpreter(run_folder: Path, python: str) -> None:
    """The VM's side itself, not only the user's script, from the zip as it is executed there."""
    script = """
import json, os, sys
from pathlib import Path
from remote.gpu import GpuTrouble, read_gpu_processes, read_gpus
from remote.launcher import prepare_launch
from remote.sampler import Sampler
run, package = map(Path, sys.argv[1:])
prepare_launch(run, package, sys.executable, True)
sampler = Sampler(run, os.getpid())
sampler.tick()
sampler.close()
print(json.dumps([read_gpus(), read_gpu_processes()]))
"""
    package = pack(run_folder)
    done = subprocess.run(
        [python, "-c", script, run_folder, package],
        env={"PATH": str(run_folder), "PYTHONPATH": str(package)},
        cwd=run_folder,
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.stderr) == ("[[], []]\n", "")
    assert json.loads((run_folder / "usage.jsonl").read_text())["gpus"] == []


@pytest.mark.parametrize(("theirs", "level"), [(None, "1"), ("0", "0"), ("3", "3"), ("", "")])
def test_tensorflow_says_what_went_wrong_and_no_more_unless_the_machine_has_it_otherwise(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, theirs: str | None, level: str
) -> None:
    name = "TF_CPP_MIN_LOG_LEVEL"
    monkeypatch.delenv(name, raising=False)
    if theirs is not None:
        monkeypatch.setenv(name, theirs)

    told = start(run_folder, f"python -c 'import os; print(os.environ[\"{name}\"])'")
    own = start(run_folder, f"{name}=2 python -c 'import os; print(os.environ[\"{name}\"])'")

    assert (told.stdout, own.stdout) == (f"{level}\n", "2\n")
