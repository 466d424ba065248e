"""The store keeps its promises: cut, damaged, killed, filled up, written to, and asked by many."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote.atomic import discard
from remote.lock import is_held
from remote.parts import gaps
from remote.protocol import CHUNK_BYTES, Lacking, Span
from remote.store import STAMP_S, Store, StoreTrouble
from remote.tree import FILE, LINK, Entry, Tree, digest_of, encode_tree
from tests.forks import at_once, fork, killed_at_each_step

CONTENTS = {
    "train.py": b"print('hello')\n",
    "empty": b"",
    "data/a b/'ugly'\n" + "ü" * 100: os.urandom(3000),
    "data/again": b"print('hello')\n",
    "x" * 255: os.urandom(700),
}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tree_of(contents: dict[str, bytes]) -> Tree:
    tree = {path: Entry(FILE, len(c), sha(c), path == "train.py") for path, c in contents.items()}
    tree["data/link"] = Entry(LINK, 0, "", False, "../train.py")
    return tree


TREE = tree_of(CONTENTS)
DIGEST = digest_of(encode_tree(TREE))
BY_SHA = {sha(content): content for content in CONTENTS.values()}


def stream(wanted: tuple[Lacking, ...], chunk_bytes: int = 64) -> list[bytes]:
    """What the laptop sends for `wanted`."""
    raw = b"".join(BY_SHA[item.sha256][item.have_bytes :] for item in wanted)
    data = zlib.compress(raw)
    return [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]


def send(store: Store) -> None:
    """A whole upload, as the laptop does it."""
    wanted = store.lacking(TREE)
    store.receive(wanted, stream(wanted))
    store.complete(encode_tree(TREE), store.lacking(TREE))


def assert_true(store: Store) -> None:
    """What must hold after any crash: whatever has a final name is whole."""
    for path in (store.root / "objects").glob("*/*"):
        assert sha(path.read_bytes()) == path.name
        assert path.stat().st_mode & 0o222 == 0
    for path in (store.root / "snapshots").glob("*.json"):
        tree = store.load_tree(path.stem)
        assert digest_of(encode_tree(tree)) == path.stem
        assert not store.lacking(tree)
    for folder in (store.root / "data").glob("[0-9a-f]*"):
        assert_is_tree(folder)


def assert_is_tree(folder: Path) -> None:
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}
    assert found == set(TREE)
    assert all((folder / path).read_bytes() == content for path, content in CONTENTS.items())
    assert (folder / "data/link").readlink() == Path("../train.py")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "it's a store")


@pytest.fixture
def resumable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contents as small as these are gone on with, too."""
    monkeypatch.setattr("remote.store.SMALL_BYTES", -1)


@pytest.fixture
def full(store: Store) -> Store:
    send(store)
    return store


def test_a_sent_tree_is_there_and_its_copy_is_the_same(full: Store, tmp_path: Path) -> None:
    assert full.has_tree(DIGEST)
    assert not full.lacking(TREE)
    full.copy_tree(DIGEST, tmp_path / "copy")
    assert_is_tree(tmp_path / "copy")
    assert_true(full)


def test_a_copy_is_private_writable_and_executable_where_it_was(
    full: Store, tmp_path: Path
) -> None:
    full.copy_tree(DIGEST, tmp_path / "copy")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "copy").iterdir()}
    assert modes["train.py"] == 0o755
    assert modes["empty"] == 0o644
    (tmp_path / "copy" / "train.py").write_text("changed")
    assert not full.lacking(TREE)


def test_each_content_is_asked_for_once(store: Store) -> None:
    assert [item.sha256 for item in store.lacking(TREE)] == sorted(BY_SHA)


@pytest.mark.usefixtures("resumable")
def test_an_upload_cut_at_any_chunk_goes_on_from_there(tmp_path: Path) -> None:
    arrived = 0
    total = sum(map(len, BY_SHA.values()))
    for cut in range(1, len(stream(Store(tmp_path / "0").lacking(TREE)))):
        store = Store(tmp_path / str(cut))
        wanted = store.lacking(TREE)
        with pytest.raises(StoreTrouble, match="ended inside"):
            store.receive(wanted, stream(wanted)[:cut])
        assert_true(store)

        rest = store.lacking(TREE)
        left = sum(item.size_bytes - item.have_bytes for item in rest)
        assert total - left >= arrived, "a later cut kept less"
        arrived = total - left
        store.receive(rest, stream(rest))
        store.complete(encode_tree(TREE), store.lacking(TREE))
        assert_true(store)
        assert not list((store.root / "incoming").iterdir())
    assert arrived > total - 200


def test_every_cut_of_the_same_upload_brings_it_further(store: Store) -> None:
    for _ in range(20):
        wanted = store.lacking(TREE)
        with pytest.raises(StoreTrouble):
            store.receive(wanted, stream(wanted)[:5])
        if sum(item.have_bytes for item in store.lacking(TREE)) > 2000:
            break
    send(store)
    assert_true(store)


@pytest.mark.usefixtures("resumable")
def test_a_broken_line_keeps_what_has_come(store: Store) -> None:
    def cut() -> Iterator[bytes]:
        yield from stream(wanted)[:30]
        raise SystemExit(0)

    wanted = store.lacking(TREE)
    with pytest.raises(SystemExit):
        store.receive(wanted, cut())
    left = store.lacking(TREE)
    assert sum(item.size_bytes - item.have_bytes for item in left) < 3000
    send(store)
    assert_true(store)


@pytest.mark.parametrize("at", [0, 5, 200, 1500])
def test_a_damaged_stream_is_noticed_and_sending_again_heals(store: Store, at: int) -> None:
    wanted = store.lacking(TREE)
    data = bytearray(b"".join(stream(wanted)))
    data[at] ^= 0xFF
    with pytest.raises(StoreTrouble):
        store.receive(wanted, [bytes(data)])
    assert_true(store)
    # A damaged part may have been kept: then its digest is wrong at the end, and it is dropped.
    for _ in range(2):
        try:
            send(store)
            break
        except StoreTrouble:
            assert_true(store)
    assert store.has_tree(DIGEST)
    assert_true(store)


@pytest.mark.parametrize("small_bytes", [-1, 2**16])
def test_nothing_of_a_content_with_a_wrong_digest_is_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    monkeypatch.setattr("remote.store.SMALL_BYTES", small_bytes)
    wanted = (Lacking(sha(b"right"), 5, 0),)
    with pytest.raises(StoreTrouble, match=sha(b"wrong")):
        store.receive(wanted, [zlib.compress(b"wrong")])
    assert not list((store.root / "incoming").iterdir())
    assert not list((store.root / "objects").glob("*/*"))


@pytest.mark.parametrize(
    "chunks", [[zlib.compress(b"right!")], [zlib.compress(b"right") + b"!"], [b"!"]]
)
def test_too_much_is_noticed_inside_the_stream_and_behind_it(
    store: Store, chunks: list[bytes]
) -> None:
    if chunks == [b"!"]:
        chunks = [zlib.compress(b"right"), b"!"]
    with pytest.raises(StoreTrouble, match="more came"):
        store.receive((Lacking(sha(b"right"), 5, 0),), chunks)
    assert_true(store)


@pytest.mark.parametrize("chunks", [[], [b""], [zlib.compress(b"")], [zlib.compress(b"righ")]])
def test_too_little_is_noticed(store: Store, chunks: list[bytes]) -> None:
    with pytest.raises(StoreTrouble, match="ended inside"):
        store.receive((Lacking(sha(b"right"), 5, 0),), chunks)
    assert_true(store)


def test_an_empty_content_needs_no_bytes(store: Store) -> None:
    store.receive((Lacking(sha(b""), 0, 0),), [])
    assert store.object_path(sha(b"")).read_bytes() == b""


def test_a_small_chunk_that_swells_is_never_whole_in_memory(store: Store) -> None:
    size = 32 * 2**20
    digest = sha(bytes(size))
    command = f"""
import resource, sys, zlib
from pathlib import Path
from remote.protocol import Lacking
from remote.store import Store
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
data = zlib.compressobj(9)
chunks = [data.compress(bytes(2**20)) for _ in range(32)] + [data.flush()]
Store(Path(sys.argv[1])).receive([Lacking({digest!r}, {size}, 0)], [b"".join(chunks)])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used)
"""
    python = [sys.executable, "-c", command, str(store.root)]
    grown_kib = int(subprocess.run(python, capture_output=True, check=True).stdout)
    assert grown_kib < 16 * 1024
    assert store.object_path(digest).stat().st_size == size


def test_completing_a_tree_whose_contents_did_not_come_is_refused(store: Store) -> None:
    with pytest.raises(StoreTrouble, match="4 contents are missing"):
        store.complete(encode_tree(TREE), store.lacking(TREE))
    assert not store.has_tree(DIGEST)


def test_many_sending_the_same_at_once_all_get_there(tmp_path: Path) -> None:
    def keep_sending(root: Path) -> None:
        for _ in range(20):
            try:
                return send(Store(root))
            except StoreTrouble:
                time.sleep(0.01)  # a part was there when asked, and then was somebody else's
        raise AssertionError("never got there")

    for turn in range(5):
        root = tmp_path / str(turn)
        assert at_once(4, lambda number, root=root: keep_sending(root)) == [0] * 4  # type: ignore[misc]
        assert_true(Store(root))
        assert not list((root / "incoming").iterdir())


def test_two_sending_the_same_content_at_once_do_not_disturb_each_other(store: Store) -> None:
    wanted = store.lacking(TREE)

    def first() -> Iterator[bytes]:
        yield from stream(wanted)[:30]
        # In the middle of the first's upload, a second one does all of it.
        assert not any(item.have_bytes for item in store.lacking(TREE))
        send(Store(store.root))
        assert_true(store)
        yield from stream(wanted)[30:]

    store.receive(wanted, first())
    assert_true(store)
    assert not list((store.root / "incoming").iterdir())


@pytest.mark.usefixtures("resumable")
def test_the_rest_of_a_content_that_is_arriving_from_elsewhere_is_refused(store: Store) -> None:
    wanted = (Lacking(sha(CONTENTS["x" * 255]), 700, 0),)

    def first() -> Iterator[bytes]:
        yield from stream(wanted)[:3]
        later = (Lacking(wanted[0].sha256, 700, 100),)
        with pytest.raises(StoreTrouble, match="from elsewhere"):
            Store(store.root).receive(later, stream(later))
        yield from stream(wanted)[3:]

    store.receive(wanted, first())
    assert_true(store)


def test_what_is_arriving_from_elsewhere_is_sent_anew_beside_it(store: Store) -> None:
    big = os.urandom(3 * CHUNK_BYTES)
    tree = tree_of({"big": big})
    data = zlib.compress(big)

    def first() -> Iterator[bytes]:
        yield data[: 2 * CHUNK_BYTES]
        (wanted,) = Store(store.root).lacking(tree)
        assert wanted == Lacking(sha(big), len(big), 0)
        with pytest.raises(StoreTrouble, match="ended inside"):
            Store(store.root).receive([wanted], [data[:CHUNK_BYTES]])
        assert [path.name for path in (store.root / "incoming").iterdir()] == [sha(big)]
        Store(store.root).receive([wanted], [data])
        yield data[2 * CHUNK_BYTES :]

    store.receive(store.lacking(tree), first())
    store.complete(encode_tree(tree), store.lacking(tree))
    assert_true(store)


@pytest.mark.usefixtures("resumable")
def test_one_that_waited_for_a_content_that_is_complete_now_locks_its_own_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = store.lacking(TREE)
    incoming = store.root / "incoming" / wanted[0].sha256

    def open_then_lock(path: Path) -> int | None:
        monkeypatch.undo()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        send(Store(store.root))  # the file that was opened is the content now
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def watched() -> Iterator[bytes]:
        assert is_held(incoming)
        yield from stream(wanted)

    monkeypatch.setattr("remote.store.take", open_then_lock)
    store.receive(wanted, watched())
    assert_true(store)


@pytest.mark.parametrize("how", ["rewritten", "longer", "same size", "touched", "gone"])
def test_a_content_changed_in_place_is_noticed_and_sending_again_heals(
    full: Store, tmp_path: Path, how: str
) -> None:
    victim = full.object_path(sha(CONTENTS["train.py"]))
    victim.chmod(0o644)
    if how == "rewritten":
        victim.write_bytes(b"")
    elif how == "longer":
        with victim.open("ab") as file:
            file.write(b"x")
        os.utime(victim, (STAMP_S, STAMP_S))
    elif how == "same size":
        victim.write_bytes(b"x" * len(CONTENTS["train.py"]))
    elif how == "touched":
        os.utime(victim)
    else:
        victim.unlink()

    with pytest.raises(StoreTrouble, match="changed or lost; the same again heals it"):
        full.copy_tree(DIGEST, tmp_path / "first")
    assert not full.has_tree(DIGEST)
    with pytest.raises(StoreTrouble):  # the next run of the same tree, already in the queue
        full.copy_tree(DIGEST, tmp_path / "second")
    assert [item.sha256 for item in full.lacking(TREE)] == [victim.name]
    send(full)
    full.copy_tree(DIGEST, tmp_path / "third")
    assert_is_tree(tmp_path / "third")


def test_a_damaged_manifest_makes_the_tree_unknown(full: Store, tmp_path: Path) -> None:
    full.snapshot_path(DIGEST).write_bytes(b"[[")
    with pytest.raises(StoreTrouble, match="heals"):
        full.copy_tree(DIGEST, tmp_path / "copy")
    assert not full.has_tree(DIGEST)


def test_shared_data_is_one_folder_of_read_only_files_that_cost_no_space(full: Store) -> None:
    shared = full.share_tree(DIGEST)
    assert_is_tree(shared)
    for path in CONTENTS:
        assert (shared / path).stat().st_mode & 0o222 == 0
        assert (shared / path).samefile(full.object_path(TREE[path].sha256))
    made = shared.stat().st_ino
    assert full.share_tree(DIGEST) == shared
    assert shared.stat().st_ino == made


def test_shared_data_is_made_once_even_by_many_at_once(full: Store, tmp_path: Path) -> None:
    def share(number: int) -> None:
        folder = full.share_tree(DIGEST)
        assert_is_tree(folder)
        (tmp_path / f"seen{number}").write_text(str(folder.stat().st_ino))

    assert at_once(5, share) == [0] * 5
    assert len({file.read_text() for file in tmp_path.glob("seen*")}) == 1
    assert [path.name for path in (full.root / "data").iterdir()] == [DIGEST]


@pytest.mark.parametrize("how", ["written to", "removed", "replaced by a folder"])
def test_shared_data_changed_by_a_job_is_noticed_and_sending_again_heals(
    full: Store, how: str
) -> None:
    shared = full.share_tree(DIGEST)
    victim = shared / "data" / "again"
    at_work = os.open(shared / "data", os.O_RDONLY)
    for folder in (shared, victim.parent):
        folder.chmod(0o755)
    if how == "written to":
        victim.chmod(0o644)
        victim.write_text("mine now")
    else:
        victim.unlink()
    if how == "replaced by a folder":
        shutil.rmtree(shared / "data")
        (shared / "data").touch()
    with pytest.raises(StoreTrouble, match="heals"):
        full.share_tree(DIGEST)
    assert not shared.exists()
    assert not full.has_tree(DIGEST)
    if how != "replaced by a folder":  # else the job itself removed it
        # A run that is at work there goes on with what it sees.
        assert os.stat("link", dir_fd=at_work, follow_symlinks=False)
    os.close(at_work)
    send(full)
    assert_is_tree(full.share_tree(DIGEST))


def test_nothing_can_be_added_to_shared_data_or_removed_and_it_can_still_be_discarded() -> None:
    def use() -> None:
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write everywhere
        with tempfile.TemporaryDirectory() as folder:
            use_in(Path(folder))

    def use_in(folder: Path) -> None:
        store = Store(folder / "store")
        send(store)
        shared = store.share_tree(DIGEST)
        for folder in (shared, shared / "data", shared / "data" / "a b"):
            with pytest.raises(PermissionError):
                (folder / "new").touch()
        with pytest.raises(PermissionError):
            (shared / "data" / "again").unlink()
        assert (shared / "data" / "link").read_bytes() == CONTENTS["train.py"]
        assert store.share_tree(DIGEST) == shared
        discard(shared)
        assert not list((store.root / "data").iterdir())

    assert os.waitstatus_to_exitcode(os.waitpid(fork(use), 0)[1]) == 0


def test_without_hard_links_shared_data_is_copied(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    shared = full.share_tree(DIGEST)
    assert_is_tree(shared)
    assert (shared / "train.py").stat().st_mode & 0o222 == 0
    assert not (shared / "train.py").samefile(full.object_path(TREE["train.py"].sha256))
    assert full.share_tree(DIGEST) == shared
    assert not full.lacking(TREE)


@pytest.mark.parametrize("small_bytes", [-1, 2**16])
def test_killed_at_any_step_of_an_upload_nothing_half_has_a_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_bytes: int
) -> None:
    monkeypatch.setattr("remote.store.SMALL_BYTES", small_bytes)
    kept = 0
    for step in killed_at_each_step(lambda step: send(Store(tmp_path / str(step)))):
        store = Store(tmp_path / str(step))
        assert_true(store)
        kept += len(store.lacking(TREE)) < 4
        send(store)
        assert_true(store)
        assert store.has_tree(DIGEST)
    assert kept > 10


def test_killed_at_any_step_of_sharing_nothing_half_is_visible(full: Store) -> None:
    def share(step: int) -> None:
        Store(full.root).share_tree(DIGEST)

    for _ in killed_at_each_step(share):
        assert_true(full)
        assert_is_tree(full.share_tree(DIGEST))
        discard(full.root / "data")
        (full.root / "data").mkdir()
    assert_is_tree(full.root / "data" / DIGEST)


def test_killed_at_any_step_of_noticing_a_change_nothing_half_is_visible(full: Store) -> None:
    def spoil(step: int) -> None:
        send(full)
        victim = full.share_tree(DIGEST) / "train.py"
        victim.chmod(0o644)
        victim.write_text("mine now")

    def notice(step: int) -> None:
        with pytest.raises(StoreTrouble):
            Store(full.root).share_tree(DIGEST)

    for _ in killed_at_each_step(notice, spoil):
        shared = full.root / "data" / DIGEST
        assert not shared.exists() or (shared / "data" / "link").is_symlink()
        # Whatever was known when it died, two more attempts are enough.
        for _ in range(2):
            send(full)
            try:
                full.share_tree(DIGEST)
                break
            except StoreTrouble:
                assert not shared.exists()
        assert_is_tree(shared)


LARGE = os.urandom(20_000)
LARGE_TREE: Tree = {"large": Entry(FILE, len(LARGE), sha(LARGE), False)}


def send_part(store: Store, begin: int, end: int) -> None:
    store.receive_part(sha(LARGE), Span(begin, end), [zlib.compress(LARGE[begin:end])])


def send_rest(store: Store) -> None:
    for wanted in store.lacking(LARGE_TREE):
        left = gaps(wanted.parts, wanted.have_bytes, wanted.size_bytes)
        rest = b"".join(LARGE[span.begin : span.end] for span in left)
        store.receive([wanted], [zlib.compress(rest)])


def test_killed_at_any_step_with_parts_the_rest_is_what_the_store_says(tmp_path: Path) -> None:
    def finish(step: int) -> None:
        store = Store(tmp_path / str(step))
        send_part(store, 9_000, 10_000)
        send_part(store, 10_000, 11_000)
        send_part(store, 15_000, len(LARGE))
        send_rest(store)

    left = []
    for step in killed_at_each_step(finish):
        store = Store(tmp_path / str(step))
        assert_true(store)
        left += [
            sum(span.end - span.begin for span in gaps(w.parts, w.have_bytes, w.size_bytes))
            for w in store.lacking(LARGE_TREE)
        ]
        send_rest(store)
        store.complete(encode_tree(LARGE_TREE), store.lacking(LARGE_TREE))
        assert_true(store)
        assert store.object_path(sha(LARGE)).read_bytes() == LARGE
        assert list((store.root / "incoming").glob(f"{sha(LARGE)}*")) == []
    # Nothing yet, one part after the other, all; and until then no step takes away what was there.
    until_all = left[: left.index(0) + 1]
    assert {20_000, 19_000, 18_000, 13_000} <= set(until_all)
    assert until_all == sorted(until_all, reverse=True)


def test_a_part_that_is_only_claimed_makes_nothing(store: Store) -> None:
    claimed = Lacking(sha(LARGE), len(LARGE), 0, (Span(0, len(LARGE)),))
    with pytest.raises(StoreTrouble, match=r"a part of .* is gone"):
        store.receive([claimed], [zlib.compress(b"")])
    assert not store.object_path(sha(LARGE)).exists()
    send_rest(store)
    store.complete(encode_tree(LARGE_TREE), store.lacking(LARGE_TREE))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_leaves_the_store_usable(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    send(store)
    big = os.urandom(400_000)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left"):
            store.receive([Lacking(sha(big), len(big), 0)], [zlib.compress(big)])
        assert_true(store)
    arrived = (small_disk / "store" / "incoming" / sha(big)).stat().st_size
    assert 0 < arrived < len(big)
    with pytest.raises(OSError, match="No space left"):
        store.copy_tree(DIGEST, small_disk / "copy")

    (small_disk / "store" / "incoming" / sha(big)).unlink()
    shutil.rmtree(small_disk / "copy")
    send(store)
    store.copy_tree(DIGEST, small_disk / "copy")
    assert_is_tree(small_disk / "copy")


def test_a_disk_full_of_parts_is_an_error_and_what_has_come_is_used(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    big = os.urandom(100_000)
    tree: Tree = {"big": Entry(FILE, len(big), sha(big), False)}
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(220_000))
    with pytest.raises(OSError, match="No space left"):
        store.receive_part(sha(big), Span(40_000, len(big)), [zlib.compress(big[40_000:])])
    for is_full in (True, False):
        (wanted,) = store.lacking(tree)
        left = gaps(wanted.parts, wanted.have_bytes, wanted.size_bytes)
        rest = zlib.compress(b"".join(big[span.begin : span.end] for span in left))
        assert 40_000 <= sum(span.end - span.begin for span in left) < len(big)
        if is_full:
            with pytest.raises(OSError, match="No space left"):
                store.receive([wanted], [rest])
            ballast.unlink()
        else:
            store.receive([wanted], [rest])
        assert_true(store)
    assert store.object_path(sha(big)).read_bytes() == big


def test_everything_of_the_store_is_its_owners_alone(store: Store) -> None:
    for folder in store.root.iterdir():
        assert folder.stat().st_mode & 0o077 == 0
