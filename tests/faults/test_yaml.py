"""Hostile and broken files and names, through the whole command: words, and nothing executed."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.command import train
from tests.faults.points import chosen, tell
from tests.laptop import make_laptop
from tests.servers import SshServer

pytestmark = pytest.mark.faults

TIME_LIMIT_S = 10
# Of which 45 MiB are the command itself.
MEMORY_LIMIT_BYTES = 100 * 2**20
JOB = b"jobs:\n  a: {command: 'true', outputs: [a/m.h5]}\n"


def job(line: str) -> bytes:
    return b"jobs:\n  a:\n    command: 'true'\n    outputs: [a/m.h5]\n    " + line.encode() + b"\n"


def bomb() -> bytes:
    rows = ["a0: &a0 [" + "x," * 9 + "]"]
    rows += [f"a{n}: &a{n} [" + f"*a{n - 1}," * 9 + "]" for n in range(1, 12)]
    return "\n".join(rows).encode()


# What a file holds, and what the user must see.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bomb of aliases": (bomb, "expected at most 10000 values"),
    "an alias of itself": (lambda: b"jobs: &a {a: *a}\n", "expected an anchor &a before"),
    "a merge key": (lambda: b"x: &x {gpus: 0}\n" + job("<<: *x"), "<<"),
    "a key twice": (lambda: JOB + JOB, "line 1"),
    "tabs": (lambda: b"jobs:\n\ta: {}\n", "found a tab"),
    "an unknown key": (lambda: job("time_limt: 4m"), "did you mean time_limit?"),
    "a list for a mapping": (lambda: b"- jobs\n", "found a list"),
    "an octal": (lambda: job("gpus: 0o17"), "expected a number of GPUs"),
    "a date": (lambda: job("time_limit: 2026-01-01"), "time_limit"),
    "no for a number": (lambda: job("gpus: no"), "gpus"),
    "a number for a switch": (lambda: job("metrics: 1"), "metrics"),
    "a number in base 60": (lambda: job("time_limit: 1:30:00"), "time_limit"),
    "a Python object": (
        lambda: b"jobs: !!python/object/apply:os.system [touch x]\n",
        "found the tag",
    ),
    "NUL bytes": (lambda: JOB + b"\0", "U+0000"),
    "a hundred megabytes": (lambda: b"#" * 100_000_000, "expected at most 1048576 bytes"),
    "a deep list": (lambda: b"[" * 10**6, "expected at most 20 levels"),
    "Latin-1": (lambda: b"# caf\xe9\n" + JOB, "found the byte 0xe9"),
    "UTF-16": (lambda: JOB.decode().encode("utf-16"), "expected UTF-8 text"),
    "UTF-16 without a mark": (lambda: JOB.decode().encode("utf-16-le"), "U+0000"),
    "escapes": (lambda: b'jobs: {"\\e[2J\\u202e": 1}\n', "expected"),
    "a long key": (lambda: b"? " + b"k" * 500_000 + b"\n: 1\n", "unknown key"),
    "a number of 5000 digits": (lambda: job("gpus: " + "9" * 5000), "expected a number of GPUs"),
}


@pytest.mark.parametrize("file", ["train.yaml", "remotes.yaml"])
@pytest.mark.parametrize("name", chosen(list(FILES)))
def test_a_broken_config_file_is_an_error_with_its_name_and_line(
    tmp_path: Path, file: str, name: str
) -> None:
    make, says = FILES[name]
    laptop = make_laptop(tmp_path, None)
    (laptop.root / "train.yaml").write_bytes(JOB)
    path = (laptop.root if file == "train.yaml" else laptop.home) / file
    content = make()
    if file == "remotes.yaml":
        content = content.replace(b"jobs:", b"remotes:").replace(b"command: 'true'", b"host: h")
        says = says if "at most" in says or "found" in says or "U+" in says else ""
    path.write_bytes(content)
    done = train(laptop, "--remote", "vm", "--dry-run")
    assert (done.code, "Traceback" in done.said) == (2, False), done.said
    assert (says in done.said, f"{file}:" in done.said) == (True, True), done.said[:2000]
    assert all(line.isprintable() for line in done.said.split("\n"))
    assert (done.memory_bytes < MEMORY_LIMIT_BYTES, done.time_s < TIME_LIMIT_S) == (True, True)
    assert len(done.said) < 5000
    assert not list(tmp_path.rglob("x"))
    tell(f"{file} with {name}", 1, "an error with file and line")


NAMES = [
    "a b",
    'it\'s "quoted"',
    "a'; touch x; '",
    "$(touch x)`touch x`",
    "two\nlines; touch x",
    "-rf --delete",
    "~",
    "*?[a]",
    "\\n\\",
    "é",
    unicodedata.normalize("NFD", "é"),
    "\U0001f600 \u202etxt",
    "-" + "n" * 254,
]


@pytest.mark.parametrize("name", chosen(NAMES, few=3))
def test_names_of_any_characters_go_the_whole_way_and_none_is_executed(
    embedded_server: SshServer, tmp_path: Path, name: str
) -> None:
    laptop = make_laptop(tmp_path, embedded_server, workspace=name)
    folder = laptop.root / "a" / name
    folder.mkdir(parents=True)
    (folder / name).write_text("data")
    (laptop.root / "a" / "job.py").write_text(
        "import pathlib\n"
        "(found,) = [p for p in pathlib.Path('a').glob('*/*') if p.is_file()]\n"
        "assert found.name == found.parent.name\n"
        "out = pathlib.Path('a/out')\n"
        "out.mkdir()\n"
        "(out / found.name).write_text(ascii(found.name))\n"
        "pathlib.Path('a/m.h5').write_text(ascii(found.name))\n"
    )
    (laptop.root / "train.yaml").write_text(
        "jobs:\n  a: {command: python3 a/job.py, outputs: [a/m.h5, a/out]}\n"
    )
    done = train(laptop, "--remote", "vm")
    assert "Traceback" not in done.said
    assert all(line.isprintable() for line in done.said.split("\n"))
    assert (laptop.root / "a" / "m.h5").read_text() == ascii(name)
    assert not [path for path in (tmp_path, embedded_server.home) for path in path.rglob("x")]
    tell("a name that a shell would read", 1, "it goes the whole way, nothing is executed")
