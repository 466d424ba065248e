"""The order in which keys are offered."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from orchestrator.connection.keyoffers import Locked, Offers, Unusable, public_half
from orchestrator.connection.sshconfig import Hop
from orchestrator.errors import LoginRefused


def hop(*identities: Path, only: bool = False) -> Hop:
    return Hop("vm", 22, "ann", "vm", (), identities, only, None)


def public(file: Path, half: bytes) -> Path:
    Path(f"{file}.pub").write_text(f"ssh-ed25519 {base64.b64encode(half).decode()} a comment\n")
    return file


def load(file: Path, passphrase: str | None) -> Sequence[tuple[str, str]]:
    if "locked" in file.name and passphrase is None:
        raise Locked
    if "broken" in file.name:
        raise Unusable("broken")
    if "missing" in file.name:
        raise FileNotFoundError
    return [(file.name, passphrase or "")]


class Silent:
    """Gives an empty passphrase to everything and remembers for what."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def trust(self, host: str, key_type: str, fingerprint: str) -> bool:
        raise AssertionError

    def passphrase(self, key: str) -> str | None:
        self.asked.append(Path(key).name)
        return "open"


HELD = {b"a": ("a", "A"), b"b": ("b", "B"), b"c": ("c", "C")}


def test_named_keys_of_the_agent_come_first_and_locked_files_last(tmp_path: Path) -> None:
    files = [tmp_path / "locked", tmp_path / "plain", public(tmp_path / "b", b"b")]

    offers = Offers(hop(*files), Silent(), HELD, load)

    assert [name for name, _ in offers] == [
        "b (agent)",
        "a (agent)",
        "c (agent)",
        "plain",
        "locked",
    ]


def test_no_passphrase_is_asked_for_while_another_key_may_do(tmp_path: Path) -> None:
    asker = Silent()
    offers = iter(Offers(hop(tmp_path / "locked", tmp_path / "plain"), asker, {}, load))

    assert next(offers)[0] == "plain"
    assert asker.asked == []
    assert next(offers) == ("locked", "open")
    assert asker.asked == ["locked"]


def test_with_identities_only_the_agents_other_keys_are_kept_back(tmp_path: Path) -> None:
    files = [public(tmp_path / "b", b"b"), tmp_path / "plain"]

    offers = Offers(hop(*files, only=True), None, HELD, load)

    assert [name for name, _ in offers] == ["b (agent)", "plain"]


def test_files_that_are_missing_are_only_mentioned_where_they_were_asked_for(
    tmp_path: Path,
) -> None:
    files = [tmp_path / "missing", tmp_path / "broken", tmp_path / "locked", tmp_path / "plain"]

    by_default = Offers(hop(*files), None, {}, load)
    asked_for = Offers(hop(*files, only=True), None, {}, load)

    assert [len(list(by_default)), len(by_default.unusable)] == [1, 2]
    assert [len(list(asked_for)), len(asked_for.unusable)] == [1, 3]
    error = by_default.refusal("cannot log in", ["plain"])
    assert isinstance(error, LoginRefused)
    assert error.cause.startswith("tried: plain; not usable: ")
    assert "broken (broken)" in error.cause


def test_a_public_half_is_found_beside_the_key_or_in_its_place(tmp_path: Path) -> None:
    key = public(tmp_path / "key", b"half")

    assert public_half(key) == b"half"
    assert public_half(tmp_path / "key.pub") == b"half"
    assert public_half(tmp_path / "none") is None
    assert public_half(tmp_path) is None
    for text in (b"", b"ssh-ed25519", b"ssh-ed25519 no=base64", bytes(range(256))):
        (tmp_path / "odd").write_bytes(text)
        assert public_half(tmp_path / "odd") is None
