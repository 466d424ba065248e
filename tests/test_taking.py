"""Models from elsewhere become runs like any other, once each; what is refused changes nothing."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from orchestrator.costs.cost import By
from orchestrator.costs.money import recorded_costs
from orchestrator.elsewhere import foreign, modelfile
from orchestrator.elsewhere.exported import Exported, Exports
from orchestrator.elsewhere.foreign import Paid
from orchestrator.elsewhere.taking import Origin, take_in
from orchestrator.errors import UsageError
from orchestrator.grades.confine import Limits
from orchestrator.records.ledger import Ledger
from orchestrator.records.mirror import Mirror, Mirrors
from orchestrator.records.rebuild import rebuild
from orchestrator.records.shelf import Shelf
from orchestrator.screen.tell import Silence
from orchestrator.settings.config import load_workspace
from remote import clock
from remote.runfolder import RunRequest
from tests.laptop import Laptop, make_laptop, without_patience

HDF5 = b"\x89HDF\r\n\x1a\n"


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    laptop = make_laptop(tmp_path, None)
    laptop.add_job("a")
    return laptop


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """As a browser saves it."""
    path = tmp_path / "mymodel (1).h5"
    path.write_bytes(HDF5 + b"one")
    return path


def take(laptop: Laptop, file: Path, paid: str = "0", origin: Origin = Origin()) -> Mirror:  # noqa: B008
    workspace = load_workspace(laptop.root)
    with Ledger.open(laptop.home / "ledger.sqlite3") as ledger:
        _, mirror = take_in(file, "a", origin, Paid.parse(paid), workspace, ledger, Silence())
    return mirror


def kept(laptop: Laptop) -> list[str]:
    """Everything the workspace has, with the content; the lock is none of it."""
    return sorted(
        f"{path.relative_to(laptop.root)} {path.read_bytes()!r}"
        for path in laptop.root.rglob("*")
        if path.is_file() and path.name not in ("importing", "stat-cache")
    )


def test_a_model_file_is_taken_in_as_a_run_that_says_where_it_is_from(
    laptop: Laptop, model: Path
) -> None:
    said = laptop.ok("import", str(model), "a", "--from", "colab", "--time", "25m")
    (row,) = laptop.json("status")

    assert (laptop.root / "a" / "mymodel.h5").read_bytes() == HDF5 + b"one"
    assert "took in a/mymodel.h5" in said.stderr
    assert (row["state"], row["remote"], row["note"]) == ("succeeded", "colab", "")
    assert row["reason"] == f"imported from {model}"
    (cost,) = laptop.json("cost")
    assert (Decimal(cost["cost"]["USD"]), cost["seconds"], cost["unknown_runs"]) == (
        Decimal(0),
        1500.0,
        0,
    )
    assert without_patience(laptop.ok("pull").stderr) == "• everything is home\n"
    assert laptop.ok("cancel", "a").stdout.endswith("has already ended: succeeded\n")


def test_what_stood_in_the_folder_before_is_kept(laptop: Laptop, model: Path) -> None:
    (laptop.root / "a" / "mymodel.h5").write_bytes(HDF5 + b"own")
    laptop.ok("import", str(model), "a")

    kept_models = [p.read_bytes() for p in (laptop.root / ".train/models").glob("*/*")]
    assert sorted(kept_models) == [HDF5 + b"one", HDF5 + b"own"]


def test_the_same_file_twice_is_one_run_whatever_its_name(laptop: Laptop, model: Path) -> None:
    laptop.ok("import", str(model), "a", "--cost", "0.40")
    again = laptop.ok("import", str(model.rename(model.with_name("copy.h5"))), "a", "--cost", "9")

    assert len(laptop.json("status")) == 1
    assert "is here already: it is what a-" in again.stderr
    assert laptop.json("cost")[0]["cost"] == {"USD": "0.400000000"}


@pytest.mark.parametrize("text", ["0.40", "0.1", "123.456789", "0.000000001", "7"])
@pytest.mark.parametrize("lasted_s", [0.0, 0.5, 1.0, 1234.567891])
def test_what_was_paid_is_the_cost_to_the_last_place(
    laptop: Laptop, model: Path, text: str, lasted_s: float
) -> None:
    take(laptop, model, f"{text} EUR", Origin(lasted_s=lasted_s))

    with Ledger.open(laptop.home / "ledger.sqlite3") as ledger:
        (row,) = recorded_costs(ledger, By.CATEGORY)
    assert row.total.by_currency == (("EUR", Decimal(text)),)
    assert abs(row.seconds - lasted_s) < 0.00001


def test_two_that_trained_at_the_same_time_do_not_share_what_was_paid(
    laptop: Laptop, model: Path
) -> None:
    other = model.with_name("other.h5")
    other.write_bytes(HDF5 + b"two")
    for file in (model, other):
        take(laptop, file, "0.40", Origin("", "colab", 3600.0))

    assert Decimal(laptop.json("cost")[0]["cost"]["USD"]) == Decimal("0.80")


class Cut(BaseException):
    """The process was killed here."""


@pytest.mark.parametrize("step", ["keep", "_make_folder", "see", "rename", "_facts", "add"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_cut_anywhere_the_same_command_makes_one_run_of_it(
    laptop: Laptop, model: Path, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    place: object = {
        "keep": Shelf,
        "see": Mirror,
        "rename": Path,
        "add": Ledger,
    }.get(step, foreign)
    true = getattr(place, step)

    def cut(*args: object, **more: object) -> object:
        if when == "after":
            true(*args, **more)
        raise Cut

    with monkeypatch.context() as patched:
        patched.setattr(place, step, cut)
        # What cleans up would not run after a kill.
        patched.setattr(shutil, "rmtree", lambda folder: None)
        with pytest.raises(Cut):
            take(laptop, model)
    mirror = take(laptop, model)

    assert laptop.states() == {mirror.run_id: "succeeded"}
    with Ledger.open(laptop.home / "ledger.sqlite3") as ledger:
        (run,) = ledger.runs()
        assert run.run_id == mirror.run_id
        assert len(ledger.artifacts(run.run_id)) == 1
        assert [event.state for event in ledger.events(run.run_id)][-1] == "succeeded"


def test_a_ledger_made_again_knows_what_was_imported(laptop: Laptop, model: Path) -> None:
    mirror = take(laptop, model, "0.40", Origin("", "colab", 60.0))
    path = laptop.home / "ledger.sqlite3"
    path.write_bytes(b"damage")
    assert rebuild(path, None) is not None

    with Ledger.open(path) as ledger:
        (run,) = ledger.runs()
        (made,) = ledger.artifacts(mirror.run_id)
    assert (run.run_id, run.remote) == (mirror.run_id, f"colab {mirror.run_id[-4:]}")
    assert Shelf(laptop.root / ".train").find(made.sha256) is not None
    assert Decimal(laptop.json("cost")[0]["cost"]["USD"]) == Decimal("0.40")


def test_a_model_file_of_an_exported_run_bears_its_id(laptop: Laptop, model: Path) -> None:
    request = RunRequest("a-20261121-120000-0001", "a", "7" * 64, "true", ("a/mymodel.h5",))
    Exports(laptop.root / ".train").add(Exported(request, "b" * 64, "k", clock.now()))
    mirror = take(laptop, model, origin=Origin(run=request.run_id))

    assert (mirror.run_id, mirror.request.tree) == (request.run_id, request.tree)
    model.write_bytes(HDF5 + b"two")
    with pytest.raises(UsageError, match="is here already, with other outputs"):
        take(laptop, model, origin=Origin(run=request.run_id))
    with pytest.raises(UsageError, match="no run b-1 of a was exported from this workspace"):
        take(laptop, model, origin=Origin(run="b-1"))


def test_an_exported_run_is_none_until_it_comes_home(laptop: Laptop) -> None:
    laptop.ok("export", "a", "--notebook")

    assert laptop.json("status") == []
    assert Mirrors(laptop.root / ".train").all() == ()
    assert laptop.json("cost") == []


def write(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def folder(name: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / name).write_text("x")

    return make


def unreadable(path: Path) -> None:
    os.mkfifo(path)


STRANGE: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "nothing": ("m.h5", lambda path: None, "there is no file"),
    "empty": ("m.h5", write(b""), "m.h5 is empty"),
    "a web page": ("m.h5", write(b"<html>"), "m.h5 is no Keras model, neither .h5 nor .keras"),
    "a pickle": ("m.h5", write(pickle.dumps({})), "m.h5 is a pickle, and opening one executes"),
    "a pickle's name": ("m.pkl", write(HDF5), "m.pkl is a pickle"),
    "the other format": ("m.h5", write(b"PK\x03\x04"), "is a .keras file, and the model of a is"),
    "a SavedModel": ("m", folder("saved_model.pb"), "m is a SavedModel, not a model file"),
    "a folder": ("m", folder("x"), "m is a folder, not a model file"),
    "an unpacked result": ("m", folder("run.json"), "m is a notebook's result that was unpacked"),
    "a pipe": ("m.h5", unreadable, "m.h5 is not a file"),
    "a giant": ("m.h5", write(HDF5 + bytes(200)), "and a model at most 100 B"),
    "a zip": ("m.zip", write(b"PK\x03\x04"), "m.zip cannot be imported"),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_model_is_refused_and_nothing_is_changed(
    laptop: Laptop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strange: str
) -> None:
    name, make, words = STRANGE[strange]
    monkeypatch.setattr(modelfile, "Limits", lambda: Limits(model_bytes=100))
    make(tmp_path / name)
    (laptop.root / "a" / "mymodel.h5").write_bytes(HDF5 + b"own")
    before = kept(laptop)
    with pytest.raises(UsageError) as refusal:
        take(laptop, tmp_path / name)

    assert words in str(refusal.value)
    assert kept(laptop) == before
    assert not list((laptop.root / ".train").glob(".tmp-*"))
    assert laptop.json("status") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["FILE"], "does not say of which category it is"),
        (["FILE", "b"], "no category is named 'b'"),
        (["FILE", "a", "--cost", "much"], "--cost takes an amount, not 'much'"),
        (["FILE", "a", "--cost", "-1"], "--cost takes an amount, not '-1'"),
        (["FILE", "a", "--cost", "nan"], "--cost takes an amount, not 'nan'"),
        (["FILE", "a", "--cost", "1 euro"], "--cost takes an amount, not '1 euro'"),
        (["FILE", "a", "--time", "long"], "--time: "),
        (["FILE", "a", "--from", "x\ny"], "--from takes a word"),
    ],
)
def test_what_was_typed_wrong_is_told_and_nothing_is_changed(
    laptop: Laptop, model: Path, words: list[str], said: str
) -> None:
    before = kept(laptop)
    done = laptop.train("import", *(str(model) if word == "FILE" else word for word in words))

    assert done.returncode == 2
    assert said in done.stderr
    assert kept(laptop) == before
