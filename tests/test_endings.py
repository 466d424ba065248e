"""How runs ended whose jobs have left Slurm's queue, by accounts that are there, away or absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remote import jobs, listing, slurm
from remote.jobs import Job, Word, read_job
from remote.record import to_bytes
from remote.runfolder import RunFolder, RunRequest
from remote.store import Store
from tests.hpc import programs, put

__all__ = ["programs"]

NONE_KEPT = "echo 'Slurm accounting storage is disabled' >&2\nexit 1\n"
AWAY = "echo asked >> asked\necho 'sacct: error: Connection refused' >&2\nexit 1\n"
SILENT = "job 12_3 has left Slurm's queue, and sacct does not say how it ended"


def says(*lines: str) -> str:
    return "echo asked >> asked\n" + "".join(f"echo '{line}'\n" for line in lines)


@pytest.fixture
def store(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    put(programs, "squeue", "")
    found = Store(tmp_path / "store", lambda: None)
    found.cluster.mkdir()
    return found


@pytest.fixture
def run(store: Store) -> RunFolder:
    """Handed in, and never heard of."""
    folder = RunFolder(store.runs / "a-run")
    folder.path.mkdir()
    folder.request.write_bytes(to_bytes(RunRequest("a-run", "a", "0" * 64, "true")))
    folder.job.write_bytes(to_bytes(Job("a-run", "3", "12_3")))
    return folder


def ask(store: Store, run: RunFolder) -> Word:
    return jobs.ask(store, [run])["a-run"]


def times_asked(programs: Path) -> int:
    return len((programs / "asked").read_text().splitlines())


def test_ten_thousand_jobs_are_asked_for_in_pieces(store: Store, programs: Path) -> None:
    put(programs, "sacct", 'echo asked >> asked\necho "$7" | tr , "\\n" | sed "s/$/|FAILED/"\n')
    numbers = [f"123456789_{task}" for task in range(10_000)]

    assert slurm.endings(numbers, store.tick) == dict.fromkeys(numbers, "FAILED")
    assert times_asked(programs) == 10


@pytest.mark.parametrize("script", [NONE_KEPT, says("12_4|FAILED"), None])
def test_where_no_accounts_know_a_job_that_is_said_at_once(
    store: Store, programs: Path, run: RunFolder, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    if script:
        put(programs, "sacct", script)
    else:
        (programs / "squeue").write_text("#!/bin/sh\n")
        monkeypatch.setenv("PATH", str(programs))

    assert ask(store, run) == Word(lost="Slurm knows nothing of its job 12_3 any more")


def test_accounts_that_are_away_for_a_while_are_asked_again(
    store: Store, programs: Path, run: RunFolder
) -> None:
    put(programs, "sacct", AWAY)
    assert [ask(store, run), ask(store, run)] == [Word(SILENT)] * 2
    assert times_asked(programs) == 1

    put(programs, "sacct", says("12_3|RUNNING"))
    os.utime(store.cluster / "silent", (1, 1))
    assert ask(store, run) == Word(SILENT)

    put(programs, "sacct", says("12_3|CANCELLED by 1000"))
    os.utime(store.cluster / "silent", (1, 1))
    assert ask(store, run) == Word(lost="its job was cancelled in Slurm (CANCELLED)")


def test_accounts_that_stay_away_do_not_keep_a_run_from_being_lost(
    store: Store, programs: Path, run: RunFolder
) -> None:
    put(programs, "sacct", AWAY)
    ask(store, run)
    job = read_job(run)
    assert job is not None
    run.job.write_bytes(to_bytes(job._replace(seen_s=job.seen_s - 601)))
    assert ask(store, run) == Word(lost=SILENT)

    put(programs, "sacct", says("12_3|TIMEOUT"))
    os.utime(store.cluster / "silent", (1, 1))
    assert ask(store, run) == Word(lost="its job reached its time limit in Slurm (TIMEOUT)")


def test_a_squeue_that_fails_leaves_the_accounts_alone(
    store: Store, programs: Path, run: RunFolder
) -> None:
    put(programs, "squeue", "echo 'squeue: error: no' >&2; exit 1\n")
    put(programs, "sacct", AWAY)

    assert ask(store, run) == Word("Slurm does not answer: no")
    assert not (programs / "asked").exists()
    assert listing.look(store).trouble == "no"
