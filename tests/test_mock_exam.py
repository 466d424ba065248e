"""A whole exam at the command line: the practice pack, a VM, and what of it ever leaves here."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from orchestrator.exams.report import exam_blocks
from orchestrator.records.mirror import is_final
from tests.conftest import ISOLATED_SSH_CONFIG
from tests.exams import HOUR_S, Clocks, at_exam
from tests.laptop import Laptop, make_laptop, wait_until
from tests.leakage import ENCODINGS, Search, below, pieces, unpacked
from tests.servers import SshServer, embedded

CATEGORIES = tuple(f"category{number}" for number in range(1, 6))

# The exam is prepared once.
pytestmark = pytest.mark.xdist_group("mock exam")

# In each category's script: it reads its data, as a solution would, and saves a model at once.
TRAINING = """\
import pathlib, shutil
folder = pathlib.Path(__file__).parent
print({name: len(file.read_bytes()) for name, file in
       ((file.name, file) for file in sorted((folder / "data").iterdir()))})
plain = folder / "plain"
shutil.copy(plain, folder / "mymodel.h5") if plain.exists() else None
"""
# A model of each category that was never trained.
MODELS = """\
import importlib.util, math, os, sys
import keras
for name in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location(name, f"{name}/grader.py")
    grader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(grader)
    shape = grader.OUTPUT_SHAPE
    layers = [keras.layers.Flatten(), keras.layers.Dense(math.prod(shape)),
              keras.layers.Reshape(shape)]
    dtype = "int32" if name == "category4" else "float32"
    if dtype == "int32":
        layers = [keras.layers.Rescaling(0.001), *layers]
    keras.Sequential([keras.Input(grader.INPUT_SHAPE, dtype=dtype), *layers]).save("plain.h5")
    os.rename("plain.h5", f"{name}/plain")
"""


@dataclass(frozen=True)
class Sat:
    laptop: Laptop
    server: SshServer


@pytest.fixture(scope="module")
def sat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sat]:
    """An exam that was begun, with a session on the VM."""
    monkeypatch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("exam")
    (folder / "config").write_text(ISOLATED_SSH_CONFIG)
    monkeypatch.setenv("TRAINSHED_SSH_CONFIG", str(folder / "config"))
    with embedded(folder / "vm") as server:
        here = make_laptop(folder, server, "elsewhere")
        begun = json.loads(
            here.ok("exam", "start", "../exam", "--remote", "vm", "--seed", "7", "--json").stdout
        )
        laptop = Laptop(Path(begun["folder"]), here.home)
        assert begun["seed"] == 7
        assert all("**Input** of the model" in brief for brief in begun["briefs"].values())
        for name in CATEGORIES:
            (laptop.root / name / f"{name}.py").write_text(TRAINING)
        text = (laptop.root / "train.yaml").read_text()
        (laptop.root / "train.yaml").write_text(text.replace("python category", "python3 category"))
        monkeypatch.setenv("TRAINSHED_HOME", str(laptop.home))
        yield Sat(laptop, server)
        monkeypatch.undo()


@pytest.fixture(scope="module")
def search(sat: Sat) -> Search:
    return Search(sorted(sat.laptop.root.glob("*/heldout*")))


def test_no_held_out_row_or_label_is_ever_sent(sat: Sat, search: Search) -> None:
    laptop = sat.laptop
    ids = laptop.json("--remote", "vm", "--detach")["runs"]
    laptop.ok("status")

    def all_ended() -> bool:
        return all(is_final(row["state"]) for row in laptop.json("status"))

    wait_until(all_ended, "the runs' ends")
    assert len(ids) == 5
    sent = below(sat.server.home)
    found = {
        f"{path.relative_to(sat.server.home)}: {what}"
        for path in sent.values()
        for data in unpacked(path.read_bytes())
        for what in search.found(data)
    }

    assert found == set()
    # It looked where the data is: the training data was there, and read by the runs.
    trained = {path.read_bytes() for path in laptop.root.glob("*/data/train.npz")}
    assert trained <= {path.read_bytes() for path in sent.values()}
    assert {name.rpartition(".")[2] for name in map(str, sent.values())} >= {"json"}


@pytest.mark.parametrize("pack", ["plain", "gz", "npz"])
def test_the_search_finds_every_row_however_it_is_written(
    sat: Sat, search: Search, tmp_path: Path, pack: str
) -> None:
    for held_out in sorted(sat.laptop.root.glob("*/heldout.npz")):
        name, piece = list(pieces(held_out))[-1]
        for how, encode in ENCODINGS.items():
            data = b"odd" + encode(piece) + b"end"
            if pack == "gz":
                data = gzip.compress(data)
            if pack == "npz":
                np.savez_compressed(tmp_path / "x.npz", x=np.frombuffer(data, "u1"))
                data = (tmp_path / "x.npz").read_bytes()
            hits = {hit for part in unpacked(data) for hit in search.found(part)}
            assert f"{name} {how}" in hits


@pytest.mark.tf
def test_a_whole_exam_from_the_briefs_to_the_verdict(sat: Sat) -> None:
    laptop = sat.laptop
    clocks = Clocks()
    subprocess.run(
        [sys.executable, "-P", "-c", MODELS, *CATEGORIES], cwd=laptop.root, check=True,
        env=laptop.environment({"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}),
    )  # fmt: skip

    # One command trains all five; what it shows has points, and no metric.
    done = laptop.ok("run", *CATEGORIES[:4], "--remote", "vm", "--json")
    ran = json.loads(done.stdout)
    told = [line for line in done.stderr.splitlines() if "graded category" in line]
    assert len(told) == 4
    assert all(line.endswith(" of 5 points") for line in told), told
    assert len(ran["verdicts"]) == 4, ran
    assert {verdict["outcome"] for verdict in ran["verdicts"]} == {"graded"}
    assert {verdict["metric"] for verdict in ran["verdicts"]} == {""}
    assert {verdict["value"] for verdict in ran["verdicts"]} == {None}

    clocks.slept_s = HOUR_S
    with at_exam(laptop.root, clocks) as desk:
        commands = [one.command for one in desk.status().advice]
        assert commands[:4] == [f"train submit {name}" for name in CATEGORIES[:4]]
        assert commands[4] == "train category5 --remote vm"
        for category in CATEGORIES[:4]:
            desk.submit(category)

    # The fifth comes from elsewhere, at the last moment, and is graded after the end.
    with at_exam(laptop.root, clocks) as desk:
        clocks.slept_s += desk.status().left_s - 60
    shutil.copy(laptop.root / "category5" / "plain", laptop.root / "category5" / "mymodel.h5")
    with at_exam(laptop.root, clocks) as desk:
        handed = desk.submit("category5")
        assert handed.attempt.fact.run_id is None
        assert handed.attempt.points is not None
    clocks.slept_s += 120
    with at_exam(laptop.root, clocks) as desk:
        report = desk.finish()

    assert [mark.attempts for mark in report.score.marks.values()] == [1, 1, 1, 1, 1]
    # Models that know nothing do not pass.
    assert report.score.points < 15
    assert not report.score.passed
    assert report.tally is not None
    assert report.tally.session.ended_at is not None
    assert all(course.cost.by_currency[0][1] > 0 for course in report.courses[:4])
    assert report.spent.training > 0
    assert sum(vars(report.spent).values()) == pytest.approx(5 * HOUR_S, rel=0.01)
    assert str(list(exam_blocks(report))[-1]).startswith("not passed with ")

    said = laptop.ok("exam", "finish").stdout
    assert "not passed with " in said
    assert laptop.train("submit", "category1").returncode == 6
    rows = laptop.json("history", "category5")
    assert [row["what"] for row in rows][-1] == "attempt"
    # It is over: the metrics may be seen.
    assert {row["metric"] for row in laptop.json("history") if row["what"] == "attempt"} != {None}
