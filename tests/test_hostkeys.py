"""known_hosts files, judged against ssh-keygen where it can judge."""

from __future__ import annotations

import base64
import errno
import shlex
import subprocess
import threading
from pathlib import Path

import pytest

from orchestrator.connection import hostkeys
from orchestrator.connection.hostkeys import HostKey, admit, known_keys, parse, remember, replace
from orchestrator.errors import ConnectError, HostKeyChanged, HostKeyUnknown

BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)).decode()
KEY = HostKey("ssh-ed25519", base64.b64decode(BLOB))
OTHER = HostKey("ssh-ed25519", KEY.blob[:-1] + b"x")


@pytest.mark.parametrize(
    ("patterns", "name", "is_about"),
    [
        ("vm", "vm", True),
        ("VM", "vm", True),
        ("vm", "vmx", False),
        ("a,vm,b", "vm", True),
        ("10.0.0.?", "10.0.0.7", True),
        ("*.example.com", "gpu.example.com", True),
        ("*.example.com", "example.com", False),
        ("*,!vm", "vm", False),
        ("!vm,*", "vm", False),
        ("[vm]:2222", "[vm]:2222", True),
        ("[vm]:2222", "v", False),
        ("[*]:2222", "[vm]:2222", True),
        ("[vm]:2222", "vm", False),
        ("|1|bm90IDIwIGJ5dGVz|AAAA", "vm", False),
        ("|1|", "vm", False),
        ("|1|%%%|x", "vm", False),
    ],
)
def test_a_line_is_about_the_hosts_its_patterns_match(
    patterns: str, name: str, is_about: bool
) -> None:
    assert bool(list(parse(f"{patterns} ssh-ed25519 {BLOB}", name, "f"))) == is_about


@pytest.mark.parametrize(
    "line",
    [
        "",
        "#",
        "vm",
        "vm ssh-ed25519",
        "# vm ssh-ed25519 AAAA",
        "vm ssh-ed25519 no=base64",
        "@x",
        "é",
        "vm ssh-ed25519 AAé=",
        "|1|é|AAAA ssh-ed25519 AAAA",
        "|1|AAAA|é ssh-ed25519 AAAA",
        "|1| ssh-ed25519 AAAA",
    ],
)
def test_a_line_nobody_can_read_is_left_out_and_the_next_still_counts(line: str) -> None:
    found = list(parse(f"{line}\nvm ssh-ed25519 {BLOB} a comment\r\n", "vm", "f"))

    assert [(entry.key, entry.place) for entry in found] == [(KEY, "f:2")]


def test_files_that_are_missing_or_no_text_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(bytes(range(256)))

    assert known_keys("vm", [tmp_path / "missing", tmp_path, tmp_path / "noise"]) == ()


def admitted(
    key: HostKey,
    lines: str,
    tmp_path: Path,
    accept: str | None = None,
    *,
    may_replace: bool = True,
) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(lines)
    admit(
        "vm (me@vm:22)",
        "vm",
        key,
        known_keys("vm", [file]),
        asker=None,
        accept=accept,
        own=file,
        may_replace=may_replace,
    )


def test_any_line_with_the_same_key_is_enough(tmp_path: Path) -> None:
    other = base64.b64encode(OTHER.blob).decode()

    admitted(KEY, f"vm ssh-ed25519 {other}\nvm ssh-ed25519 {BLOB}\n", tmp_path)


def test_a_host_known_by_another_type_of_key_has_changed(tmp_path: Path) -> None:
    with pytest.raises(HostKeyChanged, match="known is ssh-rsa"):
        admitted(KEY, "vm ssh-rsa AAAA\n", tmp_path)


LINES = (
    f"other ssh-ed25519 {BLOB}\n"
    "vm ssh-rsa AAAA a comment\n"
    "# vm, a comment\n"
    f"@revoked vm ssh-ed25519 {base64.b64encode(OTHER.blob).decode()}\n"
    "*.vm ssh-rsa AAAA\n"
    "v? ssh-rsa AAAB"
)


@pytest.mark.parametrize(
    "accept",
    [None, "", "SHA256:", OTHER.fingerprint, KEY.fingerprint.lower(), KEY.fingerprint[:-1]],
)
def test_a_changed_key_is_refused_unless_exactly_its_fingerprint_is_accepted(
    tmp_path: Path, accept: str | None
) -> None:
    with pytest.raises(HostKeyChanged) as caught:
        admitted(KEY, LINES, tmp_path, accept=accept)

    own = tmp_path / "known_hosts"
    assert own.read_text() == LINES
    assert KEY.fingerprint in str(caught.value)
    assert f"--accept-host-key {KEY.fingerprint}" in caught.value.fix
    assert f"ssh-keygen -f {own} -R vm" in caught.value.fix


def test_the_old_fingerprint_accepts_nothing_new(tmp_path: Path) -> None:
    old = base64.b64encode(OTHER.blob).decode()
    with pytest.raises(HostKeyChanged, match="accepted is SHA256"):
        admitted(KEY, f"vm ssh-ed25519 {old}\n", tmp_path, accept=OTHER.fingerprint)


def test_a_changed_key_that_is_accepted_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    own = tmp_path / "known_hosts"
    for _ in range(2):
        admitted(KEY, LINES, tmp_path, accept=KEY.fingerprint)
        kept = LINES.splitlines(keepends=True)
        assert own.read_text() == "".join((kept[0], *kept[2:5])) + f"vm ssh-ed25519 {BLOB}\n"
    assert [entry.key for entry in known_keys("vm", [own]) if not entry.marker] == [KEY]
    assert own.stat().st_mode & 0o777 == 0o600

    with pytest.raises(HostKeyChanged):
        admitted(HostKey("ssh-rsa", b"\0\0\0"), own.read_text(), tmp_path)


def test_a_hashed_line_is_replaced_too(tmp_path: Path) -> None:
    own = tmp_path / "known_hosts"
    remember(own, "a b", OTHER)
    remember(own, "a c", OTHER)
    replace(own, "a b", KEY)

    assert [entry.key for entry in known_keys("a b", [own])] == [KEY]
    assert [entry.key for entry in known_keys("a c", [own])] == [OTHER]


def test_a_known_hosts_file_that_is_a_link_stays_one(tmp_path: Path) -> None:
    target = tmp_path / "dotfiles"
    target.write_text("vm ssh-rsa AAAA\n")
    (tmp_path / "link").symlink_to(target)
    replace(tmp_path / "link", "vm", KEY)

    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == f"vm ssh-ed25519 {BLOB}\n"


@pytest.mark.parametrize("ours_too", [False, True])
def test_a_file_that_is_not_ours_is_never_changed_and_the_command_for_it_is_told(
    tmp_path: Path, ours_too: bool
) -> None:
    own, theirs = tmp_path / "own", tmp_path / "it's theirs"
    theirs.write_text(LINES)
    own.write_text("vm ssh-rsa AAAA\n" if ours_too else "")
    before = own.read_text()

    def attempt() -> None:
        known = known_keys("vm", [own, theirs])
        admit(
            *("vm", "vm", KEY, known),
            asker=None,
            accept=KEY.fingerprint,
            own=own,
            may_replace=True,
        )

    with pytest.raises(HostKeyChanged, match="it's theirs:2") as caught:
        attempt()
    assert (own.read_text(), theirs.read_text()) == (before, LINES)
    removal, _, rest = caught.value.fix.partition("same: ")[2].partition(", then ")
    assert removal == shlex.join(["ssh-keygen", "-f", str(theirs), "-R", "vm"])
    assert rest.endswith(f"--accept-host-key {KEY.fingerprint}")

    # A pattern is not what that command looks for.
    theirs.write_text(LINES.replace("v? ", "w? "))
    subprocess.run(removal, shell=True, check=True, capture_output=True)
    attempt()
    assert [entry.key for entry in known_keys("vm", [own])] == [KEY]


def test_a_changed_key_that_cannot_be_recorded_is_not_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(hostkeys, "replace_file", full)
    with pytest.raises(ConnectError, match="cannot be recorded"):
        admitted(KEY, LINES, tmp_path, accept=KEY.fingerprint)
    assert (tmp_path / "known_hosts").read_text() == LINES


def test_a_revoked_key_is_refused_even_where_it_is_also_known(tmp_path: Path) -> None:
    lines = f"vm ssh-ed25519 {BLOB}\n@revoked * ssh-ed25519 {BLOB}\n"

    with pytest.raises(HostKeyChanged, match="is revoked") as caught:
        admitted(KEY, lines, tmp_path, accept=KEY.fingerprint)
    assert "known_hosts:2" in caught.value.cause


def test_a_certificate_authority_is_no_known_key_and_is_mentioned(tmp_path: Path) -> None:
    with pytest.raises(HostKeyUnknown) as caught:
        admitted(KEY, f"@cert-authority * ssh-ed25519 {BLOB}\n", tmp_path)
    assert "known_hosts:1" in caught.value.cause
    assert "not supported" in caught.value.cause


def test_a_key_that_cannot_be_recorded_is_not_admitted(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="cannot be recorded"):
        admit(
            *("vm", "vm", KEY, ()),
            asker=None,
            accept=KEY.fingerprint,
            own=tmp_path,
            may_replace=True,
        )


@pytest.mark.parametrize("name", ["vm", "[10.0.0.1]:2222", "[fe80::1]:22", "é", "x" * 300])
@pytest.mark.parametrize("before", ["", "other ssh-ed25519 AAAA\n", "a line without an end"])
def test_what_is_remembered_is_known(tmp_path: Path, name: str, before: str) -> None:
    file = tmp_path / "new folder" / "known hosts"
    if before:
        file.parent.mkdir()
        file.write_text(before)

    remember(file, name, KEY)
    remember(file, name, KEY)

    assert [entry.key for entry in known_keys(name, [file])] == [KEY]
    assert file.read_text().startswith(before)


@pytest.mark.parametrize("name", ["*", "a,b", "#a", "@revoked", "|1|a|b", "a b", "!a", "a?"])
def test_a_name_with_what_is_special_in_the_file_is_remembered_for_itself_alone(
    tmp_path: Path, name: str
) -> None:
    remember(tmp_path / "file", name, KEY)

    assert [entry.key for entry in known_keys(name, [tmp_path / "file"])] == [KEY]
    assert known_keys("a", [tmp_path / "file"]) == ()


def test_a_host_whose_name_ends_anothers_is_remembered_too(tmp_path: Path) -> None:
    for name in ("gpu.vm", "vm"):
        remember(tmp_path / "file", name, KEY)

    assert len(known_keys("vm", [tmp_path / "file"])) == 1


def test_many_at_once_leave_whole_lines_and_each_only_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    names = [f"host{number % 10}" for number in range(40)]
    threads = [threading.Thread(target=remember, args=(file, name, KEY)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(file.read_text().splitlines()) == [
        f"host{number} ssh-ed25519 {BLOB}" for number in range(10)
    ]


def test_the_fingerprint_is_the_one_openssh_shows(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_text(f"ssh-ed25519 {BLOB}\n")
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], capture_output=True, text=True, check=True
    )

    assert shown.stdout.split()[1] == KEY.fingerprint
