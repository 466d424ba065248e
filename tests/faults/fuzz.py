"""Bytes that nobody wrote, made by what they reach in the code, into what reads foreign bytes.

    python -m tests.faults.fuzz TARGET SECONDS [SEED_FOLDER]

It ends with 0 after that time, or with the input that broke a promise in a file `crash-...`, which
belongs among the tests then. Needs atheris.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import tempfile
import zipfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["remote", "orchestrator.grades.modelcheck", "orchestrator.declared"]
):
    from orchestrator.grades import modelcheck
    from remote import protocol, record, tree
    from remote.protocol import News, Submit, Wanted
    from remote.wanted import unpack_wanted

RECORDS = (protocol.Hello, News, protocol.RunReport, Wanted, Submit, protocol.No, protocol.Patch)
KNOWN = frozenset({"Dense", "Functional", "Sequential", "InputLayer", "relu"})
MEMORY_LIMIT_MB = 1024
# Of the records and of JSON; they are never found by chance.
_WORDS = {
    *(rf"\"{name}\"" for kind in RECORDS for name in kind._fields),
    *(rf"\"{name}\"" for name in ("kind", "result", "class_name", "config", "module", "keras")),
    *(
        "[]",
        "{}",
        "null",
        "true",
        "NaN",
        "Infinity",
        "1e999",
        "-1",
        r"\x22\x5cud800\x22",
        "[[",
        "]]",
        ",",
        ":",
    ),
}
SIZES = {f"{number:064x}": number for number in range(3)}


def frames(data: bytes) -> None:
    """Frames or a violation, then records or what is wrong with them; written as they were read."""
    _frames(data)
    # Nor need it guess lengths.
    _frames(struct.pack(">II", len(data), 0) + data)


def _frames(data: bytes) -> None:
    stream = io.BytesIO(data)
    try:
        while (frame := protocol.read_frame(stream.read)) is not None:
            _again(frame)
            for kind in RECORDS:
                _record(kind, dict(frame.head))
    except protocol.Violation:
        pass


def _again(frame: protocol.Frame) -> None:
    try:
        written = protocol.pack(frame)
    except ValueError:
        return  # an infinity, which is read, since 1e999 is JSON, and taken for no record
    assert protocol.read_frame(io.BytesIO(written).read) == frame


def _record(kind: type[tuple[object, ...]], head: dict[str, object]) -> None:
    try:
        read = record.decode(kind, head)
    except record.Malformed:
        return
    assert record.from_bytes(kind, record.to_bytes(read)) == read
    if isinstance(read, Wanted):
        with suppress(ValueError):
            assert {wanted.sha256 for wanted in unpack_wanted(read, SIZES)} <= SIZES.keys()


def manifests(data: bytes) -> None:
    """A tree or what is wrong with it; and every name of it stays in the folder."""
    try:
        read = tree.decode_tree(data)
    except tree.BadTree:
        return
    written = tree.encode_tree(read)
    assert tree.decode_tree(written) == read == tree.read_tree(written)
    for path in read:
        assert not path.startswith("/")
        assert not {"", ".", ".."} & set(path.split("/"))


def models(data: bytes) -> None:
    """A fault or none, in one line for a terminal."""
    faults = [
        modelcheck.config_fault(data, KNOWN),
        modelcheck.archive_fault(io.BytesIO(data), 2**20),
    ]
    for fault in faults:
        assert fault.isprintable(), fault
    if not faults[1]:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            modelcheck.saved_by(archive)


def seeds() -> dict[str, tuple[bytes, ...]]:
    """Sound inputs, so that it need not find out what one looks like."""
    sha = "ab" * 32
    config = {
        "class_name": "Sequential",
        "config": {
            "name": "s",
            "layers": [
                {
                    "class_name": "Dense",
                    "config": {"name": "d", "activation": "relu"},
                    "module": "keras.layers",
                    "registered_name": None,
                }
            ],
        },
    }
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("config.json", json.dumps(config))
        file.writestr("metadata.json", '{"keras_version": "3.8.0"}')
    report = protocol.RunReport("run", "job", True, "x")
    news = News((report,), (protocol.Piece("run", "log", 0, 3),), ())
    wanted = Wanted((protocol.Span(0, 2),), (protocol.Lacking(f"{2:064x}", 2, 1),))
    return {
        "frames": tuple(
            protocol.pack(protocol.Frame(protocol.RESULT, record.encode(each), b"abc"))
            for each in (news, wanted, protocol.No("code", "message"))
        ),
        "manifests": (
            tree.encode_tree(
                {
                    "a/b": tree.Entry(tree.FILE, 1, sha, False),
                    "c": tree.Entry(tree.LINK, 0, "", False, "a/b"),
                }
            ),
        ),
        "models": (json.dumps(config).encode(), archive.getvalue()),
    }


def main() -> None:
    name, seconds = sys.argv[1:3]
    target = {"frames": frames, "manifests": manifests, "models": models}[name]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds()[name]):
            (Path(folder) / str(number)).write_bytes(seed)
        words = Path(folder).with_suffix(".words")
        words.write_text("".join(f'"{word}"\n' for word in sorted(_WORDS)))
        atheris.Setup(
            [
                sys.argv[0],
                folder,
                f"-dict={words}",
                f"-max_total_time={seconds}",
                "-timeout=10",
                f"-rss_limit_mb={MEMORY_LIMIT_MB}",
                "-max_len=65536",
                "-print_final_stats=1",
            ],
            target,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
