"""What is left out of a snapshot; git itself is the judge of the ignore files."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.source.ignore import Ignore, Verdict
from tests.faults.points import chosen

NAMES = ("a", "b", "ab", "foo", "a b", "é", "x]", "[a]", "*", "\\", "A", "-", "1")
PIECES = (
    *("a", "b", "foo", "ab", "A", "1", "é", " ", "-", "!", "#", "/", "/", "*", "**", "?"),
    *("**/", "/**", "***", "[a-c]", "[!a]", "[^b]", "[]a]", "[[:alpha:]]", "[[:x]", "[[:foo:]]"),
    *("\\", "\\*", "\\ ", "\\[", "[a", "[a-", "[\\]a]", "[a-\\c]", "[b-a]", "[--a]", "\t", "\r"),
)

lines = st.tuples(
    st.sampled_from(["", "", "!"]), st.lists(st.sampled_from(PIECES), min_size=1, max_size=5)
).map(lambda line: line[0] + "".join(line[1]))
ignore_files = st.lists(lines, min_size=1, max_size=4).map("\n".join)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two levels of every name as a folder, with files of every name at three."""
    if shutil.which("git") is None:
        pytest.skip("git is the judge, and is not here")
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", root], check=True)
    for name in NAMES:
        (root / f"{name}.d").mkdir()
        (root / name).touch()
    for name in NAMES[:6]:
        folder = root / "foo.d" / name
        folder.mkdir()
        for inner in NAMES[:8]:
            (folder / inner).touch()
        (root / "ab.d" / name).touch()
    (root / "ab.d" / "foo").unlink()
    (root / "ab.d" / "foo" / "a").mkdir(parents=True)
    (root / "ab.d" / "foo" / "a" / "b").touch()
    return root


def judged_by_git(root: Path, paths: list[str]) -> set[str]:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(
        ["git", "-C", root, "check-ignore", "--stdin", "-z", "--no-index"],
        input=os.fsencode("\0".join(paths)),
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return set(os.fsdecode(done.stdout).split("\0")) - {""}


def paths_of(root: Path) -> list[str]:
    paths = (path.relative_to(root) for path in root.rglob("*"))
    return sorted(str(path) for path in paths if path.parts[0] != ".git")


@settings(max_examples=150, deadline=None)
@given(outer=ignore_files, inner=ignore_files)
@example(outer="foo.d**/b", inner="x")
@example(outer="a\r\n*.d\r\n!foo.d\r", inner="\r\na b\r")
def test_ignore_files_mean_what_git_says(repository: Path, outer: str, inner: str) -> None:
    (repository / ".gitignore").write_bytes(outer.encode())
    (repository / "foo.d" / ".gitignore").write_bytes(inner.encode())
    ignore = Ignore(repository)
    paths = paths_of(repository)
    ours = {
        path
        for path in paths
        if not ignore.verdict_below(path, is_folder=(repository / path).is_dir()).is_sent
    }
    assert ours == judged_by_git(repository, paths)


# What a tree is made of, and its ignore files of any bytes that git takes for lines.
PARTS = st.sampled_from(
    [*NAMES, "foo.d", "b\n", " ", "a ", "ab]", "!a", "#b", "**", "x" * 255, "\udcff"]
)
TREE = st.lists(st.lists(PARTS, min_size=1, max_size=4), min_size=1, max_size=8)
LINES = st.tuples(
    st.sampled_from(["", "", "", "!", "/", "!/"]),
    st.lists(
        st.sampled_from([*PIECES, *NAMES, "foo.d", "\udcff", "\\!", "\\#", "\\\\", "[!]", "[^]]"]),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["", "", "", "/", " ", "\\ ", "\r", "/**", "\\"]),
).map(lambda line: line[0] + "".join(line[1]) + line[2])
FILES = st.dictionaries(
    st.integers(0, 3), st.lists(LINES, min_size=1, max_size=4).map("\n".join), max_size=3
)


@settings(max_examples=5 * len(chosen(range(100))), deadline=None)
@given(tree=TREE, files=FILES)
def test_ignore_files_of_any_tree_mean_what_git_says(
    tree: list[list[str]], files: dict[int, str]
) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is the judge, and is not here")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        subprocess.run(["git", "init", "-q", "--template=", root], check=True)
        for parts in tree:
            with contextlib.suppress(OSError):  # a file is where another needs a folder
                (root / "/".join(parts[:-1])).mkdir(parents=True, exist_ok=True)
                (root / "/".join(parts)).touch()
        folders = [
            root,
            *sorted(p for p in root.rglob("*") if p.is_dir() and ".git" not in p.parts),
        ]
        for number, text in files.items():
            (folders[number % len(folders)] / ".gitignore").write_bytes(os.fsencode(text))
        ignore = Ignore(root)
        paths = paths_of(root)
        ours = {
            path
            for path in paths
            if not ignore.verdict_below(path, is_folder=(root / path).is_dir()).is_sent
        }
        assert ours == judged_by_git(root, paths)


def verdict(root: Path, path: str, *outputs: str) -> Verdict:
    """The verdict on `path`, which is made when it is not there; a folder ends in a slash."""
    full = root / path
    if path.endswith("/"):
        full.mkdir(parents=True, exist_ok=True)
    else:
        full.parent.mkdir(parents=True, exist_ok=True)
        full.touch()
    return Ignore(root, outputs).verdict_below(path.rstrip("/"), is_folder=full.is_dir())


def test_a_trainignore_is_read_after_the_gitignore_beside_it(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.csv\n/data/\n")
    (tmp_path / ".trainignore").write_text("!small.csv\n*.log\n")
    assert verdict(tmp_path, "a/small.csv").is_sent
    assert verdict(tmp_path, "a/big.csv") is Verdict.RULE
    assert verdict(tmp_path, "a/x.log") is Verdict.RULE
    assert verdict(tmp_path, "data/small.csv") is Verdict.RULE


def test_a_deeper_gitignore_outweighs_an_outer_trainignore(tmp_path: Path) -> None:
    (tmp_path / ".trainignore").write_text("!x\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".gitignore").write_text("x\n")
    assert verdict(tmp_path, "a/x") is Verdict.RULE
    assert verdict(tmp_path, "x") is not Verdict.RULE


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "sub/.git",
        ".GIT/config",
        ".train/ledger",
        "a/__pycache__/x.pyc",
        "a/.tmp-0123456789abcdef",
    ],
)
def test_what_is_never_sent_is_not_sent_whatever_the_files_say(tmp_path: Path, path: str) -> None:
    (tmp_path / ".trainignore").write_text(f"!{path}\n!{path.rpartition('/')[2]}\n!/**\n")
    assert verdict(tmp_path, path) is Verdict.NEVER


def test_a_virtual_environment_is_known_by_its_file_not_its_name(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "env 3").mkdir()
    (tmp_path / "env 3" / "pyvenv.cfg").touch()
    assert verdict(tmp_path, "venv/a.py") is Verdict.SENT
    assert verdict(tmp_path, "env 3/a.py") is Verdict.NEVER


@pytest.mark.parametrize(
    "path",
    [
        "c/grader.py",
        "c/heldout.npz",
        "c/HeldOut_labels.csv",
        "c/heldout",
        "c/heldout/x/y.png",
        "c/heldout\nname",
        "c/heldout" + "x" * 200,
    ],
)
def test_held_out_test_data_stays_whatever_the_files_say(tmp_path: Path, path: str) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "grader.py").touch()
    (tmp_path / ".trainignore").write_text(f"!{path}\n!grader.py\n!heldout*\n!/**\n")
    (tmp_path / "c" / ".trainignore").write_text("!*\n!heldout/\n")
    assert verdict(tmp_path, path) is Verdict.HELD_OUT


@pytest.mark.parametrize("path", ["c/data/heldout.npz", "c/a/b/HELDOUT", "c/data/heldout/x.png"])
def test_held_out_test_data_stays_in_every_folder_below_a_grader(tmp_path: Path, path: str) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "grader.py").touch()
    (tmp_path / ".trainignore").write_text(f"!{path}\n!heldout.npz\n")
    assert verdict(tmp_path, path) is Verdict.HELD_OUT
    assert verdict(tmp_path, "c/data/train.npz").is_sent
    assert verdict(tmp_path, "d/heldout.npz").is_sent


def test_a_grader_of_any_case_guards_its_folder(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "Grader.PY").touch()
    assert verdict(tmp_path, "c/heldout.npz") is Verdict.HELD_OUT
    assert verdict(tmp_path, "c/Grader.PY") is Verdict.HELD_OUT


def test_without_a_grader_a_name_alone_is_not_held_out(tmp_path: Path) -> None:
    assert verdict(tmp_path, "c/heldout.npz") is Verdict.SENT
    assert verdict(tmp_path, "c/grader_notes.py") is Verdict.SENT


def test_outputs_are_left_out_by_path_and_by_pattern(tmp_path: Path) -> None:
    (tmp_path / ".trainignore").write_text("!m.h5\n")
    outputs = ("c/m.h5", "c/*.json", "d e")
    assert verdict(tmp_path, "c/m.h5", *outputs) is Verdict.OUTPUT
    assert verdict(tmp_path, "c/é.json", *outputs) is Verdict.OUTPUT
    assert verdict(tmp_path, "d e/x", *outputs) is Verdict.OUTPUT
    assert verdict(tmp_path, "m.h5", *outputs).is_sent
    assert verdict(tmp_path, "x/c/m.h5", *outputs).is_sent


SECRETS = [
    *(".env", ".env.production", ".ENV", "a.pem", "a.key", "a.p12", "a.pfx", "b.kdbx", "a.ppk"),
    *("id_rsa", "id_rsa.pub", "id_ed25519_work", "id_ecdsa", ".netrc", ".pypirc", ".npmrc"),
    *(".aws/", ".azure/", ".ssh/", ".gnupg/", ".docker/config.json", "kaggle.json", "credentials"),
    *("credentials.json", "my-service-account-1.json", ".git-credentials", "secrets.yml"),
    *("secrets.yaml", "a\nb.pem", "é.key"),
    *("prod.env", "secret.json", "secrets.toml", "Secrets.INI", "client_secret_1.json", "id_dsa"),
    *("azure-credentials.json", "my_Credentials", ".pgpass", ".htpasswd", "token", "Token.txt"),
    *("hf.token", "secret.txt"),
]


@pytest.mark.parametrize("path", SECRETS)
def test_what_looks_like_a_secret_is_left_out_at_any_depth(tmp_path: Path, path: str) -> None:
    (tmp_path / ".gitignore").write_text("!.env\n!*.pem\n")
    assert verdict(tmp_path, path) is Verdict.SECRET
    assert verdict(tmp_path, f"a b/c/{path}") is Verdict.SECRET


@pytest.mark.parametrize(
    "path",
    [
        *(".env.example", ".env.sample", "env", "key.py", "config.json", "my_id_rsa.py", "ssh/a"),
        *("prod.env.template", "credentials.py", "aws_credentials.md", "Credentials.ipynb"),
        *("id_rsa.py", "tokenizer.json", "tokens.txt", "secret.npz", "secrets_of_training.txt"),
    ],
)
def test_what_only_resembles_a_secret_is_sent(tmp_path: Path, path: str) -> None:
    assert verdict(tmp_path, path) is Verdict.SENT


@pytest.mark.parametrize(
    ("line", "path", "expected"),
    [
        ("!.env", ".env", Verdict.NAMED),
        ("!.env", "a/.env", Verdict.NAMED),
        ("!/a/deploy.pem", "a/deploy.pem", Verdict.NAMED),
        ("!/a/deploy.pem", "b/deploy.pem", Verdict.SECRET),
        ("!.ssh/", ".ssh/config", Verdict.SENT),
        ("!.ssh/", ".ssh/id_rsa", Verdict.SECRET),
        ("!*.pem", "deploy.pem", Verdict.SECRET),
        ("!*", ".env", Verdict.SECRET),
        ("!/**", "a/.env", Verdict.SECRET),
        ("!.env\n.env", ".env", Verdict.RULE),
        (".env\n!.env", ".env", Verdict.NAMED),
    ],
)
def test_a_secret_is_sent_only_when_a_trainignore_names_it(
    tmp_path: Path, line: str, path: str, expected: Verdict
) -> None:
    (tmp_path / ".trainignore").write_text(line)
    assert verdict(tmp_path, path) is expected


def test_a_folder_is_read_once(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("x")
    ignore = Ignore(tmp_path)
    assert ignore.verdict("x", is_folder=False) is Verdict.RULE
    (tmp_path / ".gitignore").unlink()
    assert ignore.verdict("x", is_folder=False) is Verdict.RULE
