"""Whatever a VM calls its files: what is accepted has a place of its own below the folder."""

from __future__ import annotations

import os
import unicodedata
from pathlib import PurePosixPath, PureWindowsPath

from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.declared import accept
from orchestrator.screen.printable import printable
from remote.runfolder import Artifact

SHA = "ab" * 32
# What tempts a file system to take a name for another place.
PARTS = st.sampled_from(
    [
        *(
            "..",
            ".",
            "",
            "/",
            "\\",
            "a",
            "A",
            "a.",
            "a ",
            ".a",
            "~",
            "-rf",
            "$HOME",
            "`x`",
            "%TEMP%",
        ),
        *(
            "CON",
            "con.txt",
            "aux ",
            "COM1",
            "LPT¹.h5",
            "conout$",
            "C:",
            "c:a",
            "a:b",
            "NUL:",
            "a*",
            "?",
        ),
        *("\0", "\n", "\r", "\x1b[2J", "\u202e", "\ud800", "\udcff", "\x7f", "\x9b", "\u2028"),
        *(
            "é",
            "e\u0301",
            "É",
            "ß",
            "ss",
            "ﬁ",
            "fi",
            "\u0131",
            "I",
            "\u212a",
            "k",
            "x" * 255,
            "é" * 128,
        ),
    ]
)
PATHS = st.lists(PARTS | st.text(max_size=3), min_size=1, max_size=5).map("/".join) | st.text()


def accepted(*paths: str) -> list[str]:
    return [artifact.path for artifact in accept([Artifact(p, 1, SHA) for p in paths], ["**"])]


@given(PATHS)
@example("a/COM¹.h5")
@example("a//b")
def test_an_accepted_name_stays_below_the_folder_on_every_system(path: str) -> None:
    for found in accepted(path):
        windows, posix = PureWindowsPath(found), PurePosixPath(found)
        assert windows.parts == posix.parts == tuple(found.split("/"))
        assert not windows.drive
        assert not windows.root
        assert not windows.is_reserved()
        assert not any(part in ("", ".", "..") or part[-1] in ". " for part in posix.parts)
        assert all(len(os.fsencode(part)) <= 255 for part in posix.parts)
        assert printable(found) == found


@given(st.lists(PATHS, max_size=6))
def test_no_two_accepted_names_are_one_place_on_any_system(paths: list[str]) -> None:
    found = [unicodedata.normalize("NFC", path.casefold()) for path in accepted(*paths)]
    assert len(set(found)) == len(found)
    assert not any(above.startswith(f"{below}/") for above in found for below in found)


@given(st.lists(st.sampled_from("ab*/?[]!."), max_size=8).map("".join), PATHS)
def test_a_pattern_of_one_folder_takes_nothing_beside_it(pattern: str, path: str) -> None:
    for artifact in accept([Artifact(path, 1, SHA)], [f"out/{pattern}"]):
        assert artifact.path.startswith("out/") or artifact.path == "out"
