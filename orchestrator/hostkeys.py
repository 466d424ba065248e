"""Whose key is this: known_hosts files, and the decision to go on or not."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.errors import ConnectError, HostKeyChanged, HostKeyUnknown
from orchestrator.filelock import alone


class Asker(Protocol):
    """How questions reach the user; without a terminal there is none."""

    def trust(self, host: str, key_type: str, fingerprint: str) -> bool:
        """Whether this is the machine the user means."""

    def passphrase(self, key: str) -> str | None:
        """What unlocks the key file; None when the user does not want to say."""


@dataclass(frozen=True)
class HostKey:
    """A server's public key.

    Attributes:
        kind: as in known_hosts, `ssh-ed25519` for one.
        blob: the key in SSH's own encoding, what known_hosts has in base64.
    """

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """As OpenSSH shows it: `SHA256:` and unpadded base64."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


@dataclass(frozen=True)
class KnownKey:
    """A line of a known_hosts file that is about this host.

    Attributes:
        marker: "", `@revoked` or `@cert-authority`.
        place: file and line, `/home/ann/.ssh/known_hosts:3`.
    """

    marker: str
    key: HostKey
    place: str


def known_keys(name: str, files: Iterable[Path]) -> tuple[KnownKey, ...]:
    """What the files say about a host; a file that is missing or unreadable says nothing."""
    found: list[KnownKey] = []
    for file in files:
        try:
            text = file.read_text("utf-8", "replace")
        except OSError:
            continue
        found.extend(parse(text, name, str(file)))
    return tuple(found)


def parse(text: str, name: str, file: str) -> Iterator[KnownKey]:
    """The lines of a known_hosts file that are about `name`; lines nobody can read are left out.

    Source: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
    """
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or not _is_about(fields[0], name):
            continue
        try:
            blob = base64.b64decode(fields[2], validate=True)
        except ValueError:  # no base64, or not even ASCII
            continue
        yield KnownKey(marker, HostKey(fields[1], blob), f"{file}:{number}")


def _is_about(patterns: str, name: str) -> bool:
    if patterns.startswith("|1|"):
        hashed = _hashed(name, patterns.split("|")[2])
        # As text it takes ASCII only, and a damaged line may hold anything.
        return hmac.compare_digest(hashed.encode("utf-8"), patterns.encode("utf-8"))
    about = False
    for pattern in patterns.lower().split(","):
        # In a known_hosts pattern only * and ? are special; [host]:port is meant as it stands.
        if fnmatch.fnmatchcase(name, pattern.lstrip("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            about = True
    return about


def _hashed(name: str, salt: str) -> str:
    try:
        key = base64.b64decode(salt, validate=True)
    except ValueError:
        return ""
    # SHA-1 because the file format says so; nothing here depends on its strength.
    digest = hmac.digest(key, name.encode("utf-8"), "sha1")
    return f"|1|{salt}|{base64.b64encode(digest).decode('ascii')}"


def admit(
    where: str,
    name: str,
    key: HostKey,
    known: Sequence[KnownKey],
    *,
    asker: Asker | None,
    accept: str | None,
    own: Path,
) -> None:
    """Return only if this key may be trusted; a key trusted for the first time is recorded.

    Args:
        where: the server, for messages.
        name: the server's name in known_hosts files.
        known: what all files say about that name, our own among them.
        accept: a fingerprint the user has checked beforehand.
        own: our known_hosts file.

    Raises:
        HostKeyUnknown: never seen, and nobody vouches for it.
        HostKeyChanged: another key is known, or this one is revoked.
        ConnectError: the trusted key cannot be recorded.
    """
    for entry in known:
        if entry.marker == "@revoked" and entry.key == key:
            raise HostKeyChanged(
                f"the host key of {where} is revoked: {key.fingerprint}",
                cause=f"{entry.place} says @revoked",
                fix="do not connect; ask who runs this machine",
            )
    plain = [entry for entry in known if not entry.marker]
    if any(entry.key == key for entry in plain):
        return
    if plain:
        # The same type first: that is the one it should have shown.
        old = sorted(plain, key=lambda entry: entry.key.kind != key.kind)[0]
        file = old.place.rpartition(":")[0]
        raise HostKeyChanged(
            f"the host key of {where} is not the one we know: it shows {key.kind} "
            f"{key.fingerprint}, known is {old.key.kind} {old.key.fingerprint} ({old.place})",
            cause="the machine was made anew, or another one pretends to be it",
            fix=f"if it was made anew: ssh-keygen -f '{file}' -R '{name}'",
        )
    if accept is None and asker is not None and asker.trust(name, key.kind, key.fingerprint):
        accept = key.fingerprint
    if accept != key.fingerprint:
        authorities = [entry.place for entry in known if entry.marker == "@cert-authority"]
        raise HostKeyUnknown(
            f"the host key of {where} is unknown: it shows {key.kind} {key.fingerprint}"
            + (f", not the accepted {accept}" if accept else ""),
            cause=f"host certificates ({authorities[0]}) are not supported" if authorities else "",
            fix="compare it with what the machine's console or cloud shows; if it is the same: "
            f"--accept-host-key {key.fingerprint}",
        )
    try:
        remember(own, name, key)
    except OSError as error:
        raise ConnectError(
            f"the host key of {where} cannot be recorded in {own}",
            fix="make that file writable",
        ) from error


def remember(file: Path, name: str, key: HostKey) -> None:
    """Append a host's key; two at once leave two whole lines.

    The file is made for the user alone; after return the line survives a power cut.

    Raises:
        OSError: no space, no permission; the file may then end in a part of a line, which the
            next append closes and `parse` leaves out.
    """
    if set(name) & set(",*?!|#@ \t"):
        # An alias may hold what is special in the file; hashed it is not.
        name = _hashed(name, base64.b64encode(os.urandom(20)).decode("ascii"))
    line = f"{name} {key.kind} {base64.b64encode(key.blob).decode('ascii')}\n"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        alone(file.with_name(f"{file.name}.lock")),
        open(file, "a+b", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream,
    ):
        stream.seek(0)
        before = stream.read()
        if line.encode("utf-8") in before.splitlines(keepends=True):
            return
        stream.write(
            (b"" if before.endswith(b"\n") or not before else b"\n") + line.encode("utf-8")
        )
        stream.flush()
        os.fsync(stream.fileno())
