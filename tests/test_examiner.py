"""Grading while other runs still train."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.errors import Interrupted
from orchestrator.grades.examiner import Examiner
from orchestrator.grades.grade import Abandoned, Grading, Limits
from orchestrator.grades.verdict import Outcome
from orchestrator.records.ledger import ArtifactFact, Ledger, RunFact
from orchestrator.records.mirror import Mirror
from orchestrator.roundtrip import RoundTrip
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Job, Remote, Workspace
from orchestrator.vm.link import Link
from remote.runfolder import RunRequest
from tests.laptop import Laptop, make_laptop, wait_until
from tests.servers import SshServer

JOB = Job("a", "python3 a/a.py", ("a/mymodel.h5",))
PLAIN = Job("plain", "make", ("plain/table.csv",))
# What a grading process is asked to open; only its beginning is looked at before.
MODEL = b"\x89HDF\r\n\x1a\n"
GOOD = """echo '{"outcome": "graded", "metric": "r2", "value": 1, "thresholds": [0, 0, 0, 0, 2]}'"""


@dataclass
class Heard(Silence):
    """Keeps the steps."""

    steps: list[str] = field(default_factory=list)

    def step(self, text: str) -> None:
        self.steps.append(text)


class Setting:
    """A workspace with a grader for one of its two jobs, and grading processes that are scripts.

    Attributes:
        script: what the next one runs.
        started: how many there were.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.script = f"echo '{{}}'; while read x; do {GOOD}; done"
        self.started = 0
        self.workspace = Workspace(root, (JOB, PLAIN))
        self.ledger = Ledger.open(root / "ledger.sqlite3")
        self.told = Heard()
        self.trip = RoundTrip(self.workspace, self.ledger, nowhere, self.told)
        (root / "a").mkdir()
        (root / "a" / "grader.py").touch()

        def spawn(grading: Grading) -> subprocess.Popen[bytes]:
            self.started += 1
            grading._noise.write_bytes(b"")
            command = ("/bin/sh", "-c", self.script)
            pipe = subprocess.PIPE
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)

        monkeypatch.setattr(Grading, "_spawn", spawn)

    def model(self, content: bytes = MODEL) -> str:
        """Stands in the folder."""
        (self.workspace.root / "a" / "mymodel.h5").write_bytes(content)
        self.trip.exam.adopt(JOB)
        return hashlib.sha256(content).hexdigest()

    def examiner(self) -> Examiner:
        return Examiner(self.workspace, self.ledger.path, self.told)

    def outcomes(self) -> list[str]:
        """As the ledger has them."""
        return [fact.outcome for fact in self.ledger.verdicts(str(self.workspace.root), "a")]

    def mirror(self, job: str) -> Mirror:
        request = RunRequest(f"{job}-1", job, "0" * 64, "true", ("a/mymodel.h5",))
        return self.trip.mirrors.make(request)


def nowhere(remote: Remote, ahead: object | None = None) -> Link:
    raise AssertionError("nothing here connects")


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    setting = Setting(tmp_path, monkeypatch)
    yield setting
    setting.ledger.close()


def scratch_folders(folder: Path) -> list[Path]:
    return list(folder.glob("trainshed-grade-*"))


def test_the_process_is_there_before_a_model_is_and_grades_each_model_once(
    setting: Setting,
) -> None:
    sha256 = setting.model()
    with setting.examiner() as examiner:
        assert setting.started == 1
        examiner.examine(JOB, sha256)
        examiner.examine(JOB, sha256)
        examiner.finish()

        (verdict,) = examiner.verdicts
        assert (verdict.points, verdict.sha256) == (4, sha256)
        assert setting.outcomes() == ["graded"]
    assert setting.told.steps == ["graded a: 4 of 5 points, r2 1"]
    assert setting.started == 1


def test_a_model_of_an_earlier_run_is_told_with_that_run(setting: Setting) -> None:
    earlier, again, by_hand = (setting.model(MODEL + bytes([number])) for number in range(3))
    root = str(setting.workspace.root)
    for number, sha256 in enumerate((earlier, again, again)):
        at, run_id = datetime(2026, 1, 31, 12, number, tzinfo=UTC), f"a-{number}"
        setting.ledger.add(
            RunFact(run_id, root, "a", "vm", "0" * 64, "true", at, None, "", ""),
            ArtifactFact(run_id, "a/mymodel.h5", 9, sha256, at),
        )
    with setting.examiner() as examiner:
        for sha256 in (earlier, again, by_hand):
            examiner.examine(JOB, sha256)
        examiner.finish()

    assert [step.partition(":")[0] for step in setting.told.steps] == [
        "graded the model of a-0",
        "graded a",
        "graded a",
    ]


def test_leaving_ends_a_grading_in_the_middle_and_records_nothing(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    setting.script = f"echo '{{}}'; read x; touch '{tmp_path}/asked'; sleep 100; {GOOD}"
    with setting.examiner() as examiner:
        examiner.examine(JOB, setting.model())
        wait_until((tmp_path / "asked").exists, "the question")
        assert scratch_folders(tmp_path)

    assert examiner.verdicts == []
    assert setting.outcomes() == []
    assert scratch_folders(tmp_path) == []
    assert "examiner" not in {thread.name for thread in threading.enumerate()}


def test_a_grading_that_was_abandoned_is_not_started_again(
    setting: Setting, tmp_path: Path
) -> None:
    with Grading() as grading:
        grading.abandon()
        with pytest.raises(Abandoned):
            grading.ask(tmp_path / "m.h5", tmp_path / "grader.py", Limits())
    assert setting.started == 0


def test_a_process_that_dies_before_it_is_asked_costs_no_verdict(setting: Setting) -> None:
    good, setting.script = setting.script, "exit 3"
    with setting.examiner() as examiner:
        wait_until(lambda: examiner._grading.process is not None, "a process")
        process = examiner._grading.process
        assert process is not None
        process.wait()
        setting.script = good
        examiner.examine(JOB, setting.model())
        examiner.finish()

    assert [verdict.outcome for verdict in examiner.verdicts] == [Outcome.GRADED]
    assert setting.started == 2


def test_trouble_while_examining_is_left_to_whoever_settles(setting: Setting) -> None:
    sha256 = setting.model()
    ledger = setting.ledger.path
    moved = ledger.rename(ledger.with_suffix(".moved"))
    ledger.mkdir()
    with setting.examiner() as examiner:
        examiner.examine(JOB, sha256)
        examiner.finish()
    ledger.rmdir()
    moved.rename(ledger)

    assert examiner.verdicts == []
    assert setting.trip.settle([JOB], [], best=True).verdicts[0].points == 4


def test_what_was_graded_meanwhile_is_in_the_result_and_not_graded_twice(setting: Setting) -> None:
    setting.model()
    with setting.trip.examining([setting.mirror("a")]):
        pass
    result = setting.trip.settle([JOB], [], best=True)

    assert [verdict.points for verdict in result.verdicts] == [4]
    assert (setting.outcomes(), setting.started) == (["graded"], 1)


def test_a_broken_grader_is_tried_once_a_command(setting: Setting) -> None:
    setting.script = """echo '{}'; while read x; do echo '{"outcome": "broken"}'; done"""
    setting.model()
    with setting.trip.examining([setting.mirror("a")]):
        pass
    result = setting.trip.settle([JOB], [], best=True)

    assert [verdict.outcome for verdict in result.verdicts] == [Outcome.BROKEN]
    assert (setting.outcomes(), setting.started) == (["broken"], 1)


def test_nothing_is_started_where_nothing_will_be_graded(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = setting.mirror("a")
    with setting.trip.examining([]), setting.trip.examining([setting.mirror("plain")]):
        pass
    grader = setting.workspace.root / "a" / "grader.py"
    grader.rename(grader.with_name("elsewhere.py"))
    with setting.trip.examining([mirror]):
        pass
    grader.touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with setting.trip.examining([mirror]):
        pass

    assert setting.started == 0


def test_who_does_not_wait_for_the_last_grade_is_told_what_to_do(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press_ctrl_c(examiner: Examiner) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    setting.model()
    monkeypatch.setattr(Examiner, "finish", press_ctrl_c)
    with (
        pytest.raises(Interrupted, match="before all was graded; what was pulled is here"),
        setting.trip.examining([setting.mirror("a")]),
    ):
        pass


# The real process, beside the real command


@pytest.fixture
def laptop(tmp_path: Path, embedded_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Laptop:
    """With a job that waits for a file, and its own folder for temporary ones."""
    laptop = make_laptop(tmp_path, embedded_server)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    script = (
        "import os, time\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
        "open('slow/mymodel.h5', 'w').write('a model')\n"
    )
    folder = laptop.add_job("slow", script=script, gpus=0)
    (folder / "grader.py").touch()
    return laptop


def grading_processes(user: int) -> list[int]:
    children = Path(f"/proc/{user}/task").glob("*/children")
    found = [int(pid) for file in children for pid in file.read_text().split()]
    return [pid for pid in found if b"orchestrator.grades.grading" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


def test_a_verdict_comes_while_another_run_still_trains(laptop: Laptop, tmp_path: Path) -> None:
    (laptop.add_job("quick", gpus=0) / "grader.py").touch()
    with laptop.start("--remote", "vm") as user:
        assert user.stderr is not None
        said = ""
        while "graded quick: invalid: not a Keras model" not in said:
            said = user.stderr.readline()
            assert said
        (tmp_path / "go").touch()
        out, rest = user.communicate()

    assert user.returncode == 1
    assert "graded slow: invalid: not a Keras model" in rest
    assert rest.count("graded slow") == 1
    assert "quick" in out


@linux
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_process_and_no_file_outlives_a_command_that_was_ended(
    laptop: Laptop, tmp_path: Path, end: signal.Signals
) -> None:
    temporary = tmp_path / "tmp"
    with laptop.start("--remote", "vm") as user:
        wait_until(lambda: bool(grading_processes(user.pid)), "the grading process")
        (grading,) = grading_processes(user.pid)
        # It may not have come so far as to be gentle; nor does a kill wait for that.
        user.send_signal(end)
        _, said = user.communicate()
        wait_until(lambda: not _command(grading), "its end")
        wait_until(lambda: not scratch_folders(temporary), "its folder's removal")
    (tmp_path / "go").touch()

    if end == signal.SIGINT:
        assert user.returncode == 130
        assert "detached; on vm goes on: slow-" in said
