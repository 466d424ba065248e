"""What sbatch is asked for, and what Slurm's answers are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.settings.config import format_remotes, parse_remotes
from orchestrator.settings.spec import Remote
from remote import slurm
from remote.listing import Listing, by_name
from remote.runfolder import RunRequest, Slurm
from remote.slurm import Place
from remote.terms import job_options, job_script

RUN = RunRequest("a-1", "a", "0" * 64, "true", grace_s=30.0, slurm=Slurm())
FILE = Path("remotes.yaml")


def test_a_job_has_one_node_one_gpu_and_a_warning_before_its_end() -> None:
    assert set(job_options(RUN)) == {
        *("--output=/dev/null", "--chdir=/", "--nodes=1", "--ntasks=1"),
        *("--signal=B:TERM@90", "--no-requeue", "--gres=gpu:1"),
    }


def test_the_jobs_gpus_fill_the_remotes_kind() -> None:
    assert "--gres=gpu:a100:4" in job_options(RUN._replace(gpus=4, slurm=Slurm(gres="gpu:a100")))


@pytest.mark.parametrize("run", [RUN._replace(gpus=0), RUN._replace(slots=0)])
def test_what_needs_no_gpu_asks_for_none(run: RunRequest) -> None:
    assert not [option for option in job_options(run) if option.startswith("--gres")]


@pytest.mark.parametrize(
    ("run", "minutes"),
    [
        # The limit, the grace, and five minutes around the command.
        (RUN._replace(time_limit_s=600.0), 16),
        # And the time that an environment may take.
        (RUN._replace(time_limit_s=600.0, requirements="requirements.txt"), 46),
        (RUN._replace(slurm=Slurm(time_s=7200.0)), 120),
        (RUN._replace(slurm=Slurm(time_s=7200.0), time_limit_s=600.0), 16),
    ],
)
def test_a_jobs_time_is_never_met_before_the_runs_own_limit(run: RunRequest, minutes: int) -> None:
    assert f"--time={minutes}" in job_options(run)


def test_a_run_that_may_go_on_is_put_into_the_queue_again() -> None:
    assert "--requeue" in job_options(RUN._replace(restarts=3))


def test_lines_stand_before_the_first_command_as_sbatch_wants_them() -> None:
    script = job_script("true\n", Slurm(lines=("--constraint=volta", "-C b")))

    assert script == "#!/bin/sh\n#SBATCH --constraint=volta\n#SBATCH -C b\ntrue\n"


def test_a_cluster_is_read_back_as_it_was_written() -> None:
    terms = Slurm("gpu", "lab", "long", "gpu:a100", 8, "16G", 5400.0, ("--constraint=volta",))
    remotes = (
        Remote("hpc", "login", slurm=terms),
        Remote("plain", "login", slurm=Slurm(), queued=9),
    )

    assert parse_remotes(format_remotes(remotes), FILE) == remotes


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("engine: slum", "expected ssh or slurm, found"),
        ("slurm: {partition: gpu}", "expected engine: slurm beside it"),
        ("queued: 5", "expected engine: slurm beside it"),
        ("engine: slurm, queued: 0", "a number of runs, 1 or more"),
        ("engine: slurm, slurm: {gres: 'gpu:a100:2'}", "a kind of GPU such as gpu:a100"),
        ("engine: slurm, slurm: {memory: 16}", "an amount of memory such as 16G"),
        ("engine: slurm, slurm: {cpus: 0}", "a number of cores, 1 or more"),
        ("engine: slurm, slurm: {lines: [volta]}", "an option of sbatch"),
        ("engine: slurm, slurm: {time: 60}", "a duration above 0"),
        ("engine: slurm, slurm: {partion: gpu}", "partition"),
    ],
)
def test_what_makes_no_sense_of_a_cluster_is_told(said: str, found: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_remotes(f"remotes: {{hpc: {{host: login, {said}}}}}\n", FILE)

    assert found in str(raised.value)


def answers(monkeypatch: pytest.MonkeyPatch, text: str) -> list[Sequence[str]]:
    """What any of Slurm's commands says from now on; the words it was asked with."""
    asked: list[Sequence[str]] = []

    def ask(
        words: Sequence[str], tick: slurm.Tick, text_in: str = "", *, limit_s: float = 90.0
    ) -> str:
        asked.append(words)
        return text

    monkeypatch.setattr(slurm, "ask", ask)
    return asked


def test_places_are_told_apart_by_name_and_task(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(
        monkeypatch,
        "7|N/A|PENDING|1795296105|Resources|a-1\n"
        "8|3|RUNNING|1795296000|None|b|with|bars\n"
        "what no format has\n",
    )

    assert slurm.places(lambda: None) == (
        Place("a-1", "", "7", "PENDING", "Resources", 1795296105.0),
        Place("b|with|bars", "3", "8_3", "RUNNING", "None", 1795296000.0),
    )


@pytest.mark.parametrize("first", [0, 1])
def test_of_a_job_that_was_handed_in_twice_the_living_one_counts(first: int) -> None:
    ended, lives = Place("a-1", "", "7", "FAILED"), Place("a-1", "", "9", "PENDING")
    places = (ended, lives) if first == 0 else (lives, ended)

    assert by_name(places)["a-1", ""] == lives


@pytest.mark.parametrize(
    ("said", "left_s"),
    [
        ("3:04\n", 184.0),
        ("2:03:04", 7384.0),
        ("1-02:03:04", 93784.0),
        ("UNLIMITED", None),
        ("INVALID", None),
    ],
)
def test_the_time_that_a_job_has_left_is_read(
    monkeypatch: pytest.MonkeyPatch, said: str, left_s: float | None
) -> None:
    answers(monkeypatch, said)

    assert slurm.time_left() == left_s


def test_how_jobs_ended_is_asked_for_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch, "7|CANCELLED by 1000\n8_3|NODE_FAIL\n")

    assert slurm.endings(["7", "8_3"], lambda: None) == {"7": "CANCELLED", "8_3": "NODE_FAIL"}
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("age_s", "unchanged_s", "fresh"),
    [
        *((2, 2, True), (4, 4, False), (9, 100, True), (12, 100, False)),
        *((29, 9000, True), (31, 9000, False), (-1, 0, False)),
    ],
)
def test_an_answer_may_be_the_older_the_longer_nothing_changes(
    age_s: float, unchanged_s: float, fresh: bool
) -> None:
    assert Listing(1000.0 - age_s, 1000.0 - unchanged_s).is_fresh(1000.0) is fresh
