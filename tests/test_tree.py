"""A tree's bytes are canonical, and no manifest can name what lies outside it."""

from __future__ import annotations

import json
import os
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.tree import (
    FILE,
    LINK,
    BadTree,
    Entry,
    check_path,
    decode_tree,
    digest_of,
    encode_tree,
    is_digest,
    link_leaves,
)

SHA = "ab" * 32
DIGEST = "38f1e4cd6038c76c5197114fd651261628ba319defbf2a71b53089a52dec2aef"

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
PATHS = st.lists(
    NAMES.filter(lambda name: name not in (".", "..") and len(name.encode()) < 256),
    min_size=1,
    max_size=3,
).map("/".join)
FILES = st.builds(
    Entry, st.just(FILE), st.integers(0, 2**53 - 1), st.just(SHA), st.booleans(), st.just("")
)
LINKS = st.builds(Entry, st.just(LINK), st.just(0), st.just(""), st.just(False), PATHS)
TREES = st.dictionaries(PATHS, FILES | LINKS, max_size=5).filter(
    lambda tree: not any(a.startswith(b + "/") for a in tree for b in tree)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(FILE),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)


def row(path: object = "a", **changes: object) -> bytes:
    """A manifest of one file, with parts of it changed."""
    parts = {"kind": FILE, "size": 1, "sha256": SHA, "executable": False, "target": "", **changes}
    return json.dumps([[path, *parts.values()]]).encode()


def link(path: str, target: str) -> bytes:
    return row(path, kind=LINK, size=0, sha256="", target=target)


@given(TREES)
def test_decoding_undoes_encoding(tree: dict[str, Entry]) -> None:
    assert decode_tree(encode_tree(tree)) == tree


@given(TREES, st.randoms())
def test_the_digest_does_not_depend_on_the_order_of_insertion(
    tree: dict[str, Entry], random: object
) -> None:
    items = list(tree.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert digest_of(encode_tree(dict(items))) == digest_of(encode_tree(tree))


@given(TREES, TREES)
def test_different_trees_have_different_digests(
    one: dict[str, Entry], other: dict[str, Entry]
) -> None:
    assert (digest_of(encode_tree(one)) == digest_of(encode_tree(other))) == (one == other)


@given(TREES)
def test_a_tree_is_written_as_json_would_be(tree: dict[str, Entry]) -> None:
    rows = [[path, *tree[path]] for path in sorted(tree)]
    assert encode_tree(tree) == json.dumps(rows, separators=(",", ":")).encode()


def test_the_digest_of_a_tree_never_changes_between_versions() -> None:
    tree = {"b/ü\n": Entry(FILE, 3, SHA, True), "a": Entry(LINK, 0, "", False, "b")}
    assert digest_of(encode_tree(tree)) == DIGEST


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_tree_or_say_that_they_are_none(data: bytes) -> None:
    try:
        decode_tree(data)
    except BadTree:
        pass


@given(st.lists(st.tuples(JSON, JSON, JSON, JSON, JSON, JSON), max_size=2), st.data())
def test_rows_of_any_parts_give_a_tree_or_say_that_they_are_none(
    rows: list[tuple[object, ...]], data: st.DataObject
) -> None:
    path = data.draw(st.text())
    good = [path, FILE, 1, SHA, False, ""]
    good[data.draw(st.integers(0, 5))] = data.draw(JSON)
    try:
        tree = decode_tree(json.dumps([*rows, good]).encode())
    except BadTree:
        return
    assert all(isinstance(entry.size_bytes, int) for entry in tree.values())


@pytest.mark.parametrize("form", ["%s", "[%s]", "[[%s,1,1,1,1,1]]"])
def test_json_nested_to_any_depth_is_no_tree(form: str) -> None:
    for depth in [*range(1, 1100, 3), 10**5]:
        with pytest.raises(BadTree):
            decode_tree((form % ("[" * depth + "1" + "]" * depth)).encode())


@given(st.text(st.sampled_from("a./\0\ud800\udc80é\n")))
def test_an_accepted_path_stays_in_the_tree(path: str) -> None:
    try:
        check_path(path)
    except BadTree:
        return
    joined = posixpath.normpath(posixpath.join("/tree", path))
    assert joined == f"/tree/{path}"
    assert os.fsdecode(os.fsencode(path)) == path


@pytest.mark.parametrize(
    "path",
    [
        *["", "/", "/etc/passwd", ".", "..", "../a", "a/..", "a/../../b", "a//b", "a/", "./a"],
        *["a/.", "a\0b", "a" * 256, "é" * 128, "a/" * 2000 + "a", "\ud800"],
    ],
)
def test_a_path_that_leaves_the_tree_or_fits_no_file_system_is_refused(path: str) -> None:
    with pytest.raises(BadTree):
        check_path(path)
    with pytest.raises(BadTree):
        decode_tree(row(path))


@pytest.mark.parametrize(
    "path", ["a", "a b/'\"\n\t", "...", "..a", "a" * 255, "é" * 127, "-rf", "~", "\udcff", "a\\b"]
)
def test_an_ugly_name_is_still_a_name(path: str) -> None:
    check_path(path)
    assert list(decode_tree(row(path))) == [path]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        *[("a", "/etc"), ("a", ".."), ("a", "../b"), ("d/a", "../../b"), ("a", "b/../../c")],
        *[("a", ""), ("a", "b\0"), ("a", "\ud800"), ("a", "b" * 5000)],
    ],
)
def test_a_link_that_leaves_the_tree_or_cannot_be_made_is_refused(path: str, target: str) -> None:
    with pytest.raises(BadTree, match=r"outside|no file name"):
        decode_tree(link(path, target))


@pytest.mark.parametrize(
    ("path", "target"), [("a", "b"), ("d/a", "../b"), ("d/a", "."), ("a", ".")]
)
def test_a_link_within_the_tree_is_accepted(path: str, target: str) -> None:
    assert not link_leaves(path, target)
    assert decode_tree(link(path, target))[path].target == target


@pytest.mark.parametrize(
    "data",
    [
        row(size=-1),
        row(size=2**53),
        row(size=True),
        row(size=1.0),
        row(kind="fifo"),
        row(sha256="AB" * 32),
        row(sha256="../../etc/passwd"),
        row(target="b"),
        row(executable=1),
        row(kind=LINK, target="b"),
        row(kind=LINK, size=0, sha256="", executable=True, target="b"),
        json.dumps([["a", FILE, 1, SHA, False, ""]] * 2).encode(),
        json.dumps([["a", FILE, 1, SHA, False, ""], ["a/b", FILE, 1, SHA, False, ""]]).encode(),
        json.dumps([["a/b/c", FILE, 1, SHA, False, ""], ["a", LINK, 0, "", False, "x"]]).encode(),
        b"{}",
        b"[[]]",
        b"",
    ],
)
def test_what_no_tree_can_hold_is_refused(data: bytes) -> None:
    with pytest.raises(BadTree):
        decode_tree(data)


def test_only_64_lower_case_hex_digits_are_a_digest() -> None:
    assert is_digest(SHA)
    for text in ["", SHA[1:], SHA + "a", SHA.upper(), "g" + SHA[1:], SHA[:-1] + "\n"]:
        assert not is_digest(text)
