"""Artifacts: the bytes the VM hashed, or nothing; and no file that was not declared."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.declared import accept
from orchestrator.errors import (
    AgentBroken,
    ConnectionLost,
    ModelDamaged,
    Refused,
    TrainshedError,
    UsageError,
)
from orchestrator.records.shelf import Shelf
from orchestrator.screen.tell import Silence, Teller
from orchestrator.vm.link import Link
from orchestrator.vm.pull import first_fetch, pull
from remote.protocol import CHUNK_BYTES
from remote.runfolder import Artifact
from tests.servers import Relay, SshServer
from tests.vm import WAIT_LIMIT_S, Vm, practice

MIB = 2**20


@pytest.fixture
def vm(server: SshServer, tmp_path: Path) -> Iterator[Vm]:
    with practice(server, tmp_path) as vm:
        yield vm


@dataclass(frozen=True)
class Laptop:
    """Where pulled files go."""

    partial: Path
    shelf: Shelf

    def pull(self, link: Link, artifact: Artifact, tell: Teller | None = None) -> Path:
        (pulled,) = pull(link, "run", [artifact], self.partial, self.shelf, tell or Silence())
        return pulled.kept.result()

    def files(self) -> list[Path]:
        """All that was kept, whole or in part."""
        folders = (self.partial, self.shelf.folder)
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path / "partial", Shelf(tmp_path / "state"))


def made(vm: Vm, link: Link, command: str, *outputs: str) -> tuple[Artifact, ...]:
    """The artifacts of a run that made `outputs`."""
    (report,) = vm.finish(link, vm.start(link, command, outputs=outputs))
    return report.artifacts


def artifact_of(content: bytes, path: str = "model.h5") -> Artifact:
    return Artifact(path, len(content), hashlib.sha256(content).hexdigest())


def test_an_artifact_is_pulled_once_and_verified(vm: Vm, laptop: Laptop) -> None:
    link = vm.connect()
    (artifact,) = made(vm, link, "head -c 1000000 /dev/urandom > model.h5", "model.h5")
    path = laptop.pull(link, artifact)
    assert path.read_bytes() == (vm.run_folder().tree / "model.h5").read_bytes()
    assert artifact_of(path.read_bytes()) == artifact
    calls = list(vm.wire.calls)
    assert laptop.pull(link, artifact) == path
    assert vm.wire.calls == calls
    assert laptop.files() == [path]


def test_an_empty_file_is_an_artifact_too(vm: Vm, laptop: Laptop) -> None:
    link = vm.connect()
    (artifact,) = made(vm, link, ": > empty.h5", "empty.h5")
    assert laptop.pull(link, artifact).read_bytes() == b""


def test_the_time_that_each_artifact_took_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0

    def fetch(_: object, artifact: Artifact) -> None:
        nonlocal now_s
        now_s += artifact.size_bytes / MIB

    monkeypatch.setattr("orchestrator.vm.pull._Pulling.fetch", fetch)
    monkeypatch.setattr("orchestrator.vm.pull._Pulling.keep", lambda *_: tmp_path)
    monkeypatch.setattr("orchestrator.vm.pull.time", SimpleNamespace(monotonic=lambda: now_s))
    artifacts = [Artifact(f"{n}.h5", n * MIB, f"{n:064}") for n in (40, 2, 3)]
    link: Any = None

    pulled = pull(link, "run", artifacts, tmp_path, Shelf(tmp_path), Silence())

    assert [one.seconds for one in pulled] == [40.0, 2.0, 3.0]


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_pull_cut_at_any_byte_goes_on_from_there(vm: Vm, laptop: Laptop, share: float) -> None:
    size = 24 * MIB
    with Relay(vm.server.port) as relay:
        link = vm.connect(port=relay.port)
        (artifact,) = made(vm, link, f"head -c {size} /dev/urandom > model.h5", "model.h5")
        relay.cut_after(int(size * share))
        with pytest.raises(ConnectionLost):
            laptop.pull(link, artifact)
    # Where the machine is slow today, further connections have brought pieces of it.
    came = sum(path.stat().st_size for path in laptop.files())
    # What lay in the buffers of sockets when the line was reset is lost with them.
    assert came >= size * share - 6 * MIB
    assert not laptop.shelf.folder.exists()
    link = vm.connect()
    before = vm.wire.received_bytes
    path = laptop.pull(link, artifact)
    assert vm.wire.received_bytes - before <= size - came + CHUNK_BYTES
    assert artifact_of(path.read_bytes()) == artifact
    assert laptop.files() == [path]


def test_a_pull_that_was_cut_after_its_last_byte_needs_none(vm: Vm, laptop: Laptop) -> None:
    link = vm.connect()
    (artifact,) = made(vm, link, "head -c 1000000 /dev/urandom > model.h5", "model.h5")
    content = (vm.run_folder().tree / "model.h5").read_bytes()
    laptop.partial.mkdir()
    (laptop.partial / artifact.sha256).write_bytes(content)
    before = vm.wire.received_bytes
    assert laptop.pull(link, artifact).read_bytes() == content
    assert vm.wire.received_bytes - before < 1000


@pytest.mark.parametrize("left", [b"wrong" * 10, b"x" * 5_000_000], ids=["short", "long"])
def test_what_lies_there_from_before_never_makes_a_wrong_model(
    vm: Vm, laptop: Laptop, left: bytes
) -> None:
    link = vm.connect()
    (artifact,) = made(vm, link, "head -c 1000000 /dev/urandom > model.h5", "model.h5")
    laptop.partial.mkdir()
    (laptop.partial / artifact.sha256).write_bytes(left)
    try:
        path = laptop.pull(link, artifact)
    except ModelDamaged:
        assert laptop.files() == []
        path = laptop.pull(link, artifact)
    assert artifact_of(path.read_bytes()) == artifact


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.write_bytes(b"x" * file.stat().st_size), id="other bytes"),
        pytest.param(lambda file: os.truncate(file, 10), id="shorter"),
    ],
)
def test_an_output_changed_on_the_vm_after_the_run_is_not_kept(
    vm: Vm, laptop: Laptop, change: object
) -> None:
    assert callable(change)
    link = vm.connect()
    (artifact,) = made(vm, link, "head -c 1000000 /dev/urandom > model.h5", "model.h5")
    change(vm.run_folder().tree / "model.h5")
    with pytest.raises(ModelDamaged) as raised:
        laptop.pull(link, artifact)
    assert artifact.sha256 in raised.value.cause
    assert laptop.files() == []


def test_what_an_output_grew_by_after_the_run_is_not_pulled(vm: Vm, laptop: Laptop) -> None:
    link = vm.connect()
    (artifact,) = made(vm, link, "echo 1 > model.h5", "model.h5")
    with (vm.run_folder().tree / "model.h5").open("ab") as file:
        file.write(b"more")
    assert laptop.pull(link, artifact).read_bytes() == b"1\n"


def test_an_output_removed_on_the_vm_after_the_run_is_told(vm: Vm, laptop: Laptop) -> None:
    link = vm.connect()
    (artifact,) = made(vm, link, "echo 1 > model.h5", "model.h5")
    (vm.run_folder().tree / "model.h5").unlink()
    with pytest.raises(Refused, match="was removed"):
        laptop.pull(link, artifact)
    assert laptop.shelf.find(artifact.sha256) is None


def test_no_other_file_of_the_vm_is_handed_out(vm: Vm, laptop: Laptop) -> None:
    link = vm.connect()
    made(vm, link, "echo 1 > model.h5", "model.h5")
    for path in ("../request.json", "/etc/passwd", "other", "", "model.h5/", "./model.h5"):
        with pytest.raises(Refused):
            laptop.pull(link, artifact_of(b"x", path))


def test_globs_and_folders_are_outputs_and_links_are_left_out(vm: Vm) -> None:
    vm.write("make.sh", MAKES)
    artifacts = made(vm, vm.connect(), "sh make.sh", "out", "*.h5", "deep/**/*.keras", "missing")
    assert [artifact.path for artifact in artifacts] == [
        "a.h5",
        "deep/m.keras",
        "deep/x/y/m.keras",
        "it's a model.h5",
        "out/.hidden",
        "out/sub/f",
    ]
    assert accept(artifacts, ("out", "*.h5", "deep/**/*.keras")) == artifacts


MAKES = """
mkdir -p out/sub deep/x/y elsewhere
for f in out/sub/f out/.hidden a.h5 "it's a model.h5" deep/m.keras deep/x/y/m.keras other; do
    echo "$f" > "$f"
done
echo secret > elsewhere/secret
ln -s ../elsewhere/secret out/link
ln -s ../elsewhere out/linked
ln -s /etc/passwd passwd.h5
ln -s elsewhere deep/z
mkfifo out/pipe
mkdir folder.h5
"""


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 5 * 2**20])
def test_what_is_asked_first_can_be_sent_ahead_whatever_the_size(
    vm: Vm, laptop: Laptop, size: int
) -> None:
    (artifact,) = made(vm, vm.connect(), f"head -c {size} /dev/urandom > model.h5", "model.h5")
    link = vm.connect(ahead=first_fetch("run", ["model.h5"]))
    before = vm.wire.sent_bytes
    path = laptop.pull(link, artifact)
    assert artifact_of(path.read_bytes()) == artifact
    # What is beyond the first MiB has to be asked for.
    assert (vm.wire.sent_bytes == before) is (size <= 2**20)


def test_an_output_whose_name_only_the_vm_knows_is_not_fetched_ahead() -> None:
    assert first_fetch("run", ["*.h5"]) == first_fetch("run", ["b", "a[1]"]) == ()
    assert first_fetch("run", []) == ()


def test_two_who_pull_the_same_file_at_once_both_have_it(vm: Vm, laptop: Laptop) -> None:
    links = [vm.connect(), vm.connect()]
    (artifact,) = made(vm, links[0], "head -c 4000000 /dev/urandom > model.h5", "model.h5")
    together, found, errors = Together(), [], []

    def bring(link: Link) -> None:
        try:
            found.append(laptop.pull(link, artifact, together))
        except TrainshedError as error:
            errors.append(error)

    threads = [threading.Thread(target=bring, args=(link,)) for link in links]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_LIMIT_S)
    assert errors == []
    assert found == [laptop.shelf.find(artifact.sha256)] * 2
    assert artifact_of(found[0].read_bytes()) == artifact
    assert laptop.files() == [found[0]]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("while True: say(DATA, {}, b'x' * 10**5)", id="endless"),
        pytest.param("say(DATA, {}, b'wrong')\nsay(RESULT, {})", id="wrong bytes"),
        pytest.param("say(DATA, {}, b'rig')\nsay(RESULT, {})", id="too short"),
        pytest.param("say(RESULT, {})", id="nothing"),
    ],
)
def test_a_vm_that_sends_other_bytes_leaves_nothing_behind(
    vm: Vm, laptop: Laptop, body: str
) -> None:
    link = vm.connect(python=vm.fake(f"hear()\n{body}"))
    with pytest.raises(AgentBroken if "while True" in body else ModelDamaged):
        laptop.pull(link, artifact_of(b"right"))
    assert laptop.files() == []


@pytest.mark.parametrize("size", [5, 3_000_000])
@pytest.mark.parametrize("wrong", ["gone", "shorter"])
def test_one_that_cannot_be_had_does_not_keep_the_next_from_coming(
    vm: Vm, laptop: Laptop, wrong: str, size: int
) -> None:
    link = vm.connect()
    command = f"head -c {size} /dev/urandom >a.h5; head -c {size} /dev/urandom >b.h5"
    first, second = made(vm, link, command, "a.h5", "b.h5")
    tree = vm.run_folder().tree
    if wrong == "gone":
        (tree / "a.h5").unlink()
    else:
        (tree / "a.h5").write_bytes(b"12")
    with pytest.raises((Refused, ModelDamaged)):
        laptop.pull(link, first)
    assert laptop.pull(link, second).read_bytes() == (tree / "b.h5").read_bytes()


def test_of_many_small_ones_all_come_but_those_that_are_not_what_was_hashed(
    vm: Vm, laptop: Laptop
) -> None:
    link = vm.connect()
    command = "mkdir out; for n in $(seq 100 199); do echo $((n % 50)) > out/$n; done"
    artifacts = made(vm, link, command, "out")
    tree = vm.run_folder().tree
    (tree / "out/140").unlink()
    for wrong in ("101", "103", "151", "152"):
        (tree / "out" / wrong).write_text("15")
    (tree / "out/190").unlink()  # the same as out/140
    came = pull(link, "run", artifacts, laptop.partial, laptop.shelf, Silence())
    found = {one.artifact: one.kept.exception() or one.kept.result() for one in came}
    assert list(found) == list(artifacts)
    lacking = {artifact.path for artifact, kept in found.items() if isinstance(kept, Exception)}
    # Of one content the first that is whole is enough for those after it.
    assert lacking == {"out/101", "out/103", "out/140", "out/151", "out/190"}
    for artifact, kept in found.items():
        if isinstance(kept, Path):
            assert artifact_of(kept.read_bytes(), artifact.path) == artifact
    # One content of several outputs is one file.
    kept_files = {kept for kept in found.values() if isinstance(kept, Path)}
    assert set(laptop.shelf.folder.glob("*/*")) == kept_files


def test_small_ones_are_asked_for_without_waiting_for_each_others_answers(
    vm: Vm, laptop: Laptop
) -> None:
    answers = "".join(f"say(DATA, {{}}, {text!r})\nsay(RESULT, {{}})\n" for text in (b"1", b"2"))
    link = vm.connect(python=vm.fake(f"hear()\nhear()\n{answers}"))
    artifacts = [artifact_of(b"1", "one"), artifact_of(b"2", "two")]
    came = pull(link, "run", artifacts, laptop.partial, laptop.shelf, Silence())
    assert [pulled.kept.result().read_bytes() for pulled in came] == [b"1", b"2"]


def test_a_vm_that_sends_a_file_in_empty_pieces_is_given_up(vm: Vm, laptop: Laptop) -> None:
    link = vm.connect(python=vm.fake("hear()\nwhile True: say(DATA, {})"))
    with pytest.raises(AgentBroken):
        laptop.pull(link, artifact_of(b"right"))


def test_a_file_too_large_for_the_disk_is_not_begun(vm: Vm, laptop: Laptop) -> None:
    link = vm.connect(python=vm.fake("hear()"))
    with pytest.raises(UsageError, match="does not fit"):
        laptop.pull(link, Artifact("model.h5", 2**52, "0" * 64))
    assert vm.wire.calls == []


BAD_ARTIFACTS = [
    artifact_of(b"", path)
    for path in (
        "../model.h5",
        "/etc/model.h5",
        "out/../../model.h5",
        "out//model.h5",
        "./model.h5",
        "out/./model.h5",
        "",
        "out/..\\..\\model.h5",
        "out/\x1b[2Jmodel.h5",
        "out/mo\ndel.h5",
        "out/\0.h5",
        "out/\u202emodel.h5",
        "out/\ud800.h5",
        "out/\udc80.h5",
        "out/" + "x" * 256,
        "undeclared.h5",
        "outer/model.h5",
        "category1/other/model.h5",
        *(f"out/a{character}b.h5" for character in '\\:*?"<>|'),
        *("out/model.h5.", "out/model ", "out /model.h5", "out/a./m.h5", "out/..."),
        *("out/CON", "out/nul.h5", "out/aux/m.h5", "out/COM1.tar.gz", "out/lpt9", "out/PRN .h5"),
        *("out/com³", "out/conin$"),
    )
]


@pytest.mark.parametrize("artifact", BAD_ARTIFACTS, ids=lambda artifact: ascii(artifact.path[:30]))
def test_an_artifact_that_was_not_declared_or_has_a_bad_name_is_left(artifact: Artifact) -> None:
    good = artifact_of(b"", "out/model.h5")
    assert accept((artifact, good), ("out", "category1/*.h5")) == (good,)


@pytest.mark.parametrize(
    "path", ["out/console.h5", "out/com.h5", "out/com10", "out/.hidden", "out/my nul.h5", "out/a.b"]
)
def test_a_name_that_only_resembles_a_reserved_one_is_kept(path: str) -> None:
    assert accept((artifact_of(b"", path),), ("out",)) != ()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("out/m.h5", "out/m.h5"),
        ("out/m.h5", "out/M.H5"),
        ("out/A/m.h5", "out/a/M.h5"),
        ("out/\u00e9.h5", "out/e\u0301.h5"),
        ("out/\u00c9.h5", "out/e\u0301.h5"),
        ("out/a", "out/a/b"),
        ("out/a/b/c", "out/a"),
        ("out/A", "out/a/b"),
    ],
)
def test_of_two_artifacts_that_need_the_same_place_the_first_is_taken(
    first: str, second: str
) -> None:
    other = artifact_of(b"", "out/other/m.h5")
    one, two = artifact_of(b"1", first), artifact_of(b"2", second)
    assert accept((one, two, other), ("out",)) == (one, other)
    assert accept((two, one, other), ("out",)) == (two, other)


@pytest.mark.parametrize(
    "artifact",
    [
        Artifact("out/m.h5", -1, "0" * 64),
        Artifact("out/m.h5", 10**400, "0" * 64),
        Artifact("out/m.h5", 1, "0" * 63),
        Artifact("out/m.h5", 1, "../" + "0" * 61),
        Artifact("out/m.h5", 1, "A" * 64),
    ],
)
def test_an_artifact_with_an_absurd_size_or_digest_is_left(artifact: Artifact) -> None:
    assert accept((artifact,), ("out",)) == ()


@pytest.mark.parametrize(
    ("path", "pattern", "meant"),
    [
        ("m.h5", "m.h5", True),
        ("a/m.h5", "m.h5", False),
        ("a/m.h5", "a", True),
        ("a/m.h5", "a/", True),
        ("a/m.h5", "*", True),
        ("a/m.h5", "*.h5", False),
        ("a/b/m.h5", "a/*.h5", False),
        ("a/b/m.h5", "a/**/*.h5", True),
        ("a/m.h5", "a/**/*.h5", True),
        ("m.h5", "**/m.h5", True),
        ("a/b", "a/**", True),
        ("ab", "a", False),
        ("a.h5", "[ab].h5", True),
        ("a", "a/b", False),
    ],
)
def test_a_pattern_means_a_path_or_a_folder_above_it(path: str, pattern: str, meant: bool) -> None:
    assert bool(accept((artifact_of(b"", path),), (pattern,))) is meant


class Together(Silence):
    """Makes two pulls wait for each other at their first progress."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(2)
        self._waited = threading.local()

    def doing(self, text: str, done: int = 0, total: int = 0) -> None:
        if not hasattr(self._waited, "here"):
            self._waited.here = True
            self._barrier.wait(WAIT_LIMIT_S)
