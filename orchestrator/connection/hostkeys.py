"""Whose key is this: known_hosts files, and the decision to go on or not."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import hmac
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.errors import ConnectError, HostKeyChanged, HostKeyUnknown
from orchestrator.filelock import alone
from remote.atomic import replace_file


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

    @property
    def file(self) -> str:
        return self.place.rpartition(":")[0]


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
    may_replace: bool,
) -> None:
    """Return only if this key may be trusted; a key trusted for the first time is recorded.

    A key that another one is known for is trusted only if `accept` names it, and takes the other's
    place in our own file. Other files are never written: what they know stands until the user
    takes it out.

    Args:
        where: the server, for messages.
        name: the server's name in known_hosts files.
        known: what all files say about that name, our own among them.
        accept: a fingerprint the user has checked beforehand.
        own: our known_hosts file.
        may_replace: whether `accept` may be about a server that another key is known for; it is
            not about jump hosts.

    Raises:
        HostKeyUnknown: never seen, and nobody vouches for it.
        HostKeyChanged: another key is known and not given up, or this one is revoked.
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
        is_ours = all(entry.file == str(own) for entry in plain)
        if accept != key.fingerprint or not (is_ours and may_replace):
            raise _changed(where, name, key, plain, accept, own)
    elif accept is None and asker is not None and asker.trust(name, key.kind, key.fingerprint):
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
        (replace if plain else remember)(own, name, key)
    except OSError as error:
        raise ConnectError(
            f"the host key of {where} cannot be recorded in {own}",
            fix="make that file writable",
        ) from error


def _changed(
    where: str,
    name: str,
    key: HostKey,
    plain: Sequence[KnownKey],
    accept: str | None,
    own: Path,
) -> HostKeyChanged:
    """The error of a key that another one is known for, with the ways to make it the known one."""
    files = dict.fromkeys(entry.file for entry in plain)
    # The same type first: that is the one it should have shown. Then what we cannot replace.
    old = min(plain, key=lambda entry: (entry.key.kind != key.kind, entry.file == str(own)))
    removals = {file: shlex.join(["ssh-keygen", "-f", file, "-R", name]) for file in files}
    accepting = f"--accept-host-key {key.fingerprint}"
    if set(files) == {str(own)}:
        how = f"the same command with {accepting} (or, to be asked: {removals[str(own)]})"
    else:
        mine = [removal for file, removal in removals.items() if file != str(own)]
        how = f"{' && '.join(mine)}, then the same command with {accepting}"
    return HostKeyChanged(
        f"the host key of {where} is not the one we know: it shows {key.kind} "
        f"{key.fingerprint}, known is {old.key.kind} {old.key.fingerprint} ({old.place})"
        + (f"; accepted is {accept}" if accept and accept != key.fingerprint else ""),
        cause="the machine was made anew, or another one pretends to be it",
        fix="compare the key it shows with what the machine's console or cloud shows; "
        f"only if it is the same: {how}",
    )


def replace(file: Path, name: str, *keys: HostKey) -> None:
    """Put a host's keys in the place of all that the file has known for it; @-lines stay.

    A line that names other hosts too goes as a whole: they are asked about again. After a crash
    the file is the old or the new one.

    Raises:
        OSError: no space, no permission; the file is then unchanged.
    """
    with alone(_lock(file)):
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        kept = b"".join(line for line in lines if not _is_plain(line, name))
        before = kept if kept.endswith(b"\n") or not kept else kept + b"\n"
        # A link, as dotfiles often are, stays a link.
        target = Path(os.path.realpath(file))
        replace_file(target, before + b"".join(_line(name, key) for key in keys))
        target.chmod(0o600)


def carry_over(file: Path, old: str, new: str, elsewhere: Iterable[Path] = ()) -> bool:
    """Know at the machine's new name exactly the keys it had at the old; whether it had any.

    The new name may be an address that was another machine's before: what was known of that is
    forgotten.

    Args:
        elsewhere: further files that may know the old name; they are not written.

    Raises:
        OSError: no space, no permission; the file is then unchanged.
    """
    keys = [known.key for known in known_keys(old, (file, *elsewhere)) if not known.marker]
    if not keys:
        return False
    replace(file, new, *dict.fromkeys(keys))
    return True


def _is_plain(line: bytes, name: str) -> bool:
    return any(not entry.marker for entry in parse(line.decode("utf-8", "replace"), name, ""))


def _line(name: str, key: HostKey) -> bytes:
    if set(name) & set(",*?!|#@ \t"):
        # An alias may hold what is special in the file; hashed it is not.
        name = _hashed(name, base64.b64encode(os.urandom(20)).decode("ascii"))
    return f"{name} {key.kind} {base64.b64encode(key.blob).decode('ascii')}\n".encode()


def _lock(file: Path) -> Path:
    return file.with_name(f"{file.name}.lock")


def remember(file: Path, name: str, key: HostKey) -> None:
    """Append a host's key; two at once leave two whole lines.

    The file is made for the user alone; after return the line survives a power cut.

    Raises:
        OSError: no space, no permission; the file may then end in a part of a line, which the
            next append closes and `parse` leaves out.
    """
    line = _line(name, key)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        alone(_lock(file)),
        open(file, "a+b", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream,
    ):
        stream.seek(0)
        before = stream.read()
        if line in before.splitlines(keepends=True):
            return
        stream.write((b"" if before.endswith(b"\n") or not before else b"\n") + line)
        stream.flush()
        os.fsync(stream.fileno())
