"""Data sets from the network: fetched by the real code from a server that stands in for theirs."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import shutil
import subprocess
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from orchestrator.errors import UsageError
from orchestrator.init import make_workspace
from orchestrator.problems import ONLINE, Problem, make_problem, online
from orchestrator.screen.tell import Silence
from tests.test_practice_pack import load_grader

EACH = pytest.mark.parametrize("problem", ONLINE, ids=lambda one: one.name.partition("-")[2])
# Nothing listens there: the port is for discarding, and closed.
NOWHERE = "http://127.0.0.1:9/"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def idx(head_bytes: int, values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """A file in the IDX format; nobody reads its head."""
    return gzip.compress(bytes(head_bytes) + values.tobytes())


def pictures(folder: str, kinds: tuple[str, ...], count: int, shade: int) -> bytes:
    """A zip of 300 x 300 pictures in one colour, `count` of each kind."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for kind in kinds:
            for number in range(count):
                flat = np.full((300, 300, 3), shade + number, np.uint8)
                png = imageio.imwrite("<bytes>", flat, extension=".png")
                archive.writestr(f"{folder}/{kind}/{kind}-{number}.png", png)
    return packed.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of tiny files that are named and made up like the real ones."""
    root = tmp_path_factory.mktemp("server")
    ten = np.arange(10, dtype=np.uint8)
    grey = np.repeat(ten * 20, 784)
    (root / "train-images-idx3-ubyte.gz").write_bytes(idx(16, grey))
    (root / "train-labels-idx1-ubyte.gz").write_bytes(idx(8, ten))
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(idx(16, grey[: 5 * 784] + np.uint8(3)))
    (root / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(8, ten[:5]))
    hands, beings = ("rock", "paper", "scissors"), ("horses", "humans")
    (root / "rps.zip").write_bytes(pictures("rps", hands, 2, 50))
    (root / "rps-test-set.zip").write_bytes(pictures("rps-test-set", hands, 1, 60))
    (root / "horse-or-human.zip").write_bytes(pictures("horse-or-human", beings, 2, 50))
    validation = pictures("validation-horse-or-human", beings, 1, 60)
    (root / "validation-horse-or-human.zip").write_bytes(validation)
    reviews = np.empty(10, object)
    reviews[:] = [[1, 9, 20_000, *range(20, 20 + number)] for number in range(10)]
    labels = np.repeat([0, 1], 5)
    imdb = root / "imdb.npz"
    np.savez(imdb, x_train=reviews, y_train=labels, x_test=reviews, y_test=labels)
    # The first that is asked for after the thirty months from 1999 on is 0, the next 1, then 2.
    months = [f"{row},1749-01-31,{max(0, row - 3030)}.0" for row in range(3033)]
    (root / "Sunspots.csv").write_text("\n".join([",Date,Monthly Mean", *months]) + "\n")
    handler = partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}/"
        listening.shutdown()
        thread.join()


@EACH
def test_the_laptop_fetches_what_is_held_out_and_the_vm_is_told_the_address_only(
    problem: Problem, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ORIGIN", server)
    make_problem(problem, 1, tmp_path)

    x, y = load_grader(tmp_path).held_out()
    assert x.shape == (len(y), *load_grader(tmp_path).INPUT_SHAPE)
    assert sorted(set(y.tolist())) == list(range(len(y)))
    sent = {path.name: path.read_text() for path in (tmp_path / "data").iterdir()}
    assert list(sent) == ["origin.txt"]
    assert sent["origin.txt"].split()[0] == server


@EACH
def test_without_a_network_the_laptop_names_the_twin(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ORIGIN", NOWHERE)
    with pytest.raises(UsageError) as raised:
        make_problem(problem, 1, tmp_path)

    assert f"{NOWHERE}" in raised.value.cause
    assert "cannot be fetched" in raised.value.cause
    assert f"{problem.category} of the practice pack" in raised.value.fix
    assert not (tmp_path / "heldout.npz").exists()


def test_an_online_problem_takes_its_categorys_place(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ORIGIN", server)
    for number in (1, 2, 4, 5):
        for file in ("heldout.npz", "data/train.npz"):
            path = tmp_path / f"category{number}" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    make_workspace(tmp_path, solutions=False, tell=Silence(), instead=[ONLINE[1]])

    assert "rock, paper or scissors" in (tmp_path / "category3" / "brief.md").read_text()
    assert "miles per gallon" in (tmp_path / "category1" / "brief.md").read_text()
    assert (tmp_path / "category3" / "data" / "origin.txt").exists()


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("taken",)


@pytest.mark.parametrize("spoilt", ["hostile", "cut", "empty"])
def test_reviews_that_are_not_what_they_should_be_run_no_code_here(
    spoilt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews = np.empty(1, object)
    reviews[0] = Hostile()
    served = tmp_path / "imdb.npz"
    np.savez(served, x_test=reviews, y_test=np.zeros(1))
    if spoilt == "empty":
        np.savez(served)
    if spoilt == "cut":
        served.write_bytes(served.read_bytes()[:100])
    monkeypatch.setenv("DATA_ORIGIN", f"{tmp_path.as_uri()}/")
    with pytest.raises(UsageError) as raised:
        make_problem(online("imdb"), 1, tmp_path / "category4")

    assert "imdb.npz is not what it should be" in raised.value.cause
    assert not (tmp_path / "category4" / "taken").exists()


@pytest.mark.tf
def test_the_vm_fetches_trains_and_says_what_is_wrong_with_the_network(
    server: str, tmp_path: Path
) -> None:
    with urllib.request.urlopen(f"{server}imdb.npz") as reviews:
        digest = hashlib.sha256(reviews.read()).hexdigest()
    for problem in ONLINE:
        folder = tmp_path / problem.name
        shutil.copytree(str(problem.source), folder)
        (folder / "data").mkdir()
        origin = f"{server} {digest}\n" if problem == online("imdb") else f"{server}\n"
        (folder / "data" / "origin.txt").write_text(origin)
    # One process, for TensorFlow's import: train all; then a half download; then no network; then
    # not what the laptop has looked at.
    code = """
import pathlib, runpy, shutil, sys

def run(folder):
    script = f"{folder}/category{folder.split('category')[1][0]}.py"
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        print("ended:", end, file=sys.stderr)

for folder in sys.argv[1:]:
    run(folder)
cache = pathlib.Path(".keras/datasets")
whole = cache / "rock-paper-scissors/rps.zip"
whole.write_bytes(whole.read_bytes()[:1000])
run("online/category3-hands")
assert not whole.exists()
pathlib.Path("online/category3-hands/data/origin.txt").write_text("http://127.0.0.1:9/")
run("online/category3-hands")
origin = pathlib.Path("online/category4-imdb/data/origin.txt")
origin.write_text(origin.read_text().split()[0] + " " + "0" * 64)
run("online/category4-imdb")
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *(problem.name for problem in ONLINE)],
        cwd=tmp_path,
        env={**os.environ, "KERAS_HOME": str(tmp_path / ".keras"), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    said = done.stderr
    assert said.count("ended:") == 3
    assert "rps.zip is damaged and was removed" in said
    assert f"{NOWHERE}rps.zip cannot be fetched" in said
    assert "made without --online" in said
    assert f"{server}imdb.npz cannot be fetched" in said
    for problem in ONLINE:
        assert (tmp_path / problem.name / "mymodel.h5").exists()
