"""An exported notebook: executed by a real kernel in an empty folder, and its result taken home."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.elsewhere import exporting
from orchestrator.elsewhere.bundle import make_bundle
from orchestrator.plan import Overrides, make_request
from orchestrator.records.shelf import file_sha256
from orchestrator.screen.printable import printable_lines
from orchestrator.screen.tell import Silence
from orchestrator.settings.spec import Job, Remote, Workspace
from orchestrator.source.snapshot import take_snapshot
from tests.laptop import Laptop, make_laptop

# Beside the result: what a person would see in the notebook.
EXECUTE = """\
import json, sys
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
try:
    NotebookClient(notebook, timeout=100).execute()
except CellExecutionError as error:
    sys.exit(str(error))
shown = [o.get("text", "") for c in notebook.cells for o in c.get("outputs", [])]
sys.stdout.write("".join(shown))
"""

# An HDF5 file as far as its first bytes tell; there is no grader that would look further.
SCRIPT = """\
import os, sys
from pathlib import Path
here = Path(__file__).parent
print("seed", os.environ.get("SEED"), "lr", os.environ.get("PARAM_lr"))
print("data", (here / "data" / "x.txt").read_text(), "link", os.readlink(here / "link"))
print("tool", os.access(here / "tool.sh", os.X_OK))
print("secret" if [*Path().rglob(".env"), *Path("b").rglob("*")] else "no secret")
(here / "mymodel.h5").write_bytes(b"\\x89HDF\\r\\n\\x1a\\n" + os.environ["PARAM_lr"].encode())
with open(os.environ["TRAINSHED_METRICS"], "a") as metrics:
    print("metrics at", metrics.tell())
sys.exit(int(os.environ.get("PARAM_code", "0")))
"""


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    laptop = make_laptop(tmp_path, None)
    folder = laptop.add_job("a", script=SCRIPT, command="python a/job.py", data=["a/data"], gpus=0)
    (folder / "data").mkdir()
    (folder / "data" / "x.txt").write_text("some data")
    # In another category, so that models of this one need no grading.
    graded = laptop.root / "b"
    graded.mkdir()
    (graded / "grader.py").write_text("never to be sent")
    (graded / "heldout.npz").write_text("never to be sent")
    (folder / "link").symlink_to("job.py")
    (folder / "tool.sh").write_text("#!/bin/sh\n")
    (folder / "tool.sh").chmod(0o755)
    (laptop.root / ".env").write_text("TOKEN=hush")
    return laptop


def execute(notebook: Path, empty: Path) -> subprocess.CompletedProcess[str]:
    """In an empty folder, by a kernel that has neither this repository nor the user's files."""
    empty.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-P", "-c", EXECUTE, str(notebook)],
        cwd=empty,
        env={**kept, "HOME": str(empty), "JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(empty)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def export(laptop: Laptop, *words: str) -> tuple[str, Path]:
    said = laptop.json("export", "a", "--notebook", "-p", "lr=0.5", *words)
    return said["run"], Path(said["file"])


def away_and_back(laptop: Laptop, notebook: Path, empty: Path) -> tuple[str, Path]:
    """What the notebook showed, and the one file it left; meanwhile there is no workspace."""
    carried = notebook.rename(empty.with_name("carried.ipynb"))
    hidden = laptop.root.rename(laptop.root.with_name("hidden"))
    done = execute(carried, empty)
    hidden.rename(laptop.root)
    assert done.returncode == 0, done.stderr
    (result,) = empty.glob("result-*.zip")
    return done.stdout, result


def test_a_run_goes_away_in_a_notebook_and_comes_home(laptop: Laptop, tmp_path: Path) -> None:
    run_id, notebook = export(laptop, "--seed", "7")
    shown, result = away_and_back(laptop, notebook, tmp_path / "empty")

    for line in (
        "seed 7 lr 0.5",
        "data some data link job.py",
        "tool True",
        "no secret",
        "metrics at 0",
    ):
        assert f"{line}\n" in shown

    home = laptop.json("import", str(result))
    model = laptop.root / "a" / "mymodel.h5"
    assert model.read_bytes() == b"\x89HDF\r\n\x1a\n0.5"
    assert [run["run"] for run in home["runs"]] == [run_id]
    (row,) = laptop.json("status")
    assert (row["state"], row["remote"], row["exit_code"]) == ("succeeded", "notebook", 0)
    assert row["reason"].startswith("on notebook: ")
    assert "Python 3." in row["reason"]
    assert float(row["cost"]["amount"]) == 0
    assert "seed 7 lr 0.5\n" in laptop.ok("logs", "a").stdout
    assert laptop.json("cost", "--by", "remote")[0]["key"] == "notebook"
    # A second time it is the same run.
    laptop.ok("import", str(result), "a")
    assert len(laptop.json("status")) == 1


def test_a_failed_run_comes_home_with_its_log(laptop: Laptop, tmp_path: Path) -> None:
    run_id, notebook = export(laptop, "-p", "code=3")
    shown, result = away_and_back(laptop, notebook, tmp_path / "empty")
    done = laptop.train("import", str(result))

    assert "it FAILED with exit code 3" in shown
    assert done.returncode == 1
    assert f"error: {run_id} failed" in done.stderr
    assert (laptop.json("status")[0]["state"], laptop.states()) == ("failed", {run_id: "failed"})
    assert "lr 0.5" in laptop.ok("logs", run_id).stdout


def test_a_notebook_that_was_changed_on_its_way_executes_nothing(
    laptop: Laptop, tmp_path: Path
) -> None:
    _, notebook = export(laptop)
    content = json.loads(notebook.read_text())
    cell = next(c for c in content["cells"] if "BUNDLE = " in c["source"])
    at = len(cell["source"]) // 2
    other = "B" if cell["source"][at] == "A" else "A"
    cell["source"] = cell["source"][:at] + other + cell["source"][at + 1 :]
    notebook.write_text(json.dumps(content))
    done = execute(notebook, tmp_path / "empty")

    said = printable_lines(done.stderr)
    assert "RuntimeError: this notebook was cut or changed on its way: export it again" in said
    assert not list((tmp_path / "empty").glob("result*"))


def test_a_notebook_carries_what_a_machine_would_be_sent_and_no_more(laptop: Laptop) -> None:
    (laptop.root / "b" / "notes.txt").write_text("sent")
    (laptop.root / "big.bin").write_bytes(b"ignored")
    (laptop.root / ".trainignore").write_text("big.bin\n")
    _, notebook = export(laptop)
    would_go = {one["path"] for one in laptop.json("run", "a", "--dry-run")}
    carried = {
        name.removeprefix("tree/")
        for name in unpacked(notebook).getnames()
        if name.startswith("tree/")
    }

    assert carried == would_go
    assert "a/data/x.txt" in carried
    assert not [n for n in carried if n.endswith(("grader.py", "heldout.npz", ".env", ".ipynb"))]
    text = notebook.read_text()
    assert str(laptop.root) not in text
    assert str(laptop.home) not in text
    # Nor does a later one carry this one.
    assert len(export(laptop)[1].read_bytes()) < 1.1 * len(text)


def unpacked(notebook: Path) -> tarfile.TarFile:
    names: dict[str, Any] = {}
    for cell in json.loads(notebook.read_text())["cells"]:
        if "BUNDLE = " in cell["source"]:
            exec(cell["source"], names)
    return tarfile.open(fileobj=io.BytesIO(base64.b64decode(names["BUNDLE"])))


def test_equal_contents_are_packed_into_equal_bytes(laptop: Laptop) -> None:
    workspace = Workspace(laptop.root)
    job = Job("a", "true", ("a/mymodel.h5",))
    snapshots = [take_snapshot(workspace, [job], Silence()) for _ in range(2)]
    request = make_request(job, Remote("notebook", ""), snapshots[0], Overrides(), "a-1")

    one, other = (make_bundle(snapshot, request) for snapshot in snapshots)
    assert one == other


def test_a_large_notebook_is_told_with_what_makes_it_large(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (laptop.root / "a" / "data" / "noise.bin").write_bytes(os.urandom(50_000))
    monkeypatch.setattr(exporting, "WARN_BYTES", 50_000)
    told = Told()
    workspace = Workspace(laptop.root)
    job = Job("a", "true", ("a/mymodel.h5",), data=("a/data",))
    exporting.export_notebook(workspace, job, Overrides(), "", None, told)

    assert any("The largest in it: a/data/noise.bin (50.0 kB)" in line for line in told.warnings)


class Told(Silence):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


NETWORK = """\
import os
import keras
import numpy as np
keras.utils.set_random_seed(int(os.environ["SEED"]))
x = np.random.default_rng(1).random((400, 3), dtype="float32")
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
model.compile(keras.optimizers.Adam(0.05), "mse")
model.fit(x, x.sum(axis=1), epochs=25, verbose=0)
model.save("a/mymodel.h5")
"""
GRADER = """\
import numpy as np
INPUT_SHAPE, OUTPUT_SHAPE = (3,), (1,)
METRIC, HIGHER_IS_BETTER, THRESHOLDS = "mean absolute error", False, (9.0, 8.0, 2.0, 1.0, 0.3)
def held_out():
    x = np.random.default_rng(2).random((50, 3), dtype="float32")
    return x, x.sum(axis=1)
def score(y, predictions):
    return float(np.abs(predictions.reshape(y.shape) - y).mean())
"""


@pytest.mark.tf
def test_a_model_trained_in_a_notebook_is_graded_and_placed(laptop: Laptop, tmp_path: Path) -> None:
    (laptop.root / "a" / "job.py").write_text(NETWORK)
    (laptop.root / "a" / "grader.py").write_text(GRADER)
    _, notebook = export(laptop, "--seed", "1")
    _, result = away_and_back(laptop, notebook, tmp_path / "empty")
    home = laptop.json("import", str(result), "--cost", "0.40")

    assert home["verdicts"][0]["points"] == 5
    assert home["categories"][0]["sha256"] == file_sha256(laptop.root / "a" / "mymodel.h5")
    assert laptop.json("cost")[0]["cost"] == {"USD": "0.400000000"}
    assert "TensorFlow 2." in laptop.json("status")[0]["reason"]
