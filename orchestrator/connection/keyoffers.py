"""Which keys to offer a server, in which order, and what to say when it took none.

Knows key files and their order, not how a key is read: that comes as a function.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from orchestrator.connection.hostkeys import Asker
from orchestrator.connection.sshconfig import Hop
from orchestrator.errors import ConnectError, LoginRefused

PASSPHRASE_TRIES = 3

# No key file is larger; what is larger is something else, /dev/zero for one.
KEY_LIMIT_BYTES = 2**20

Key = TypeVar("Key")


class Locked(Exception):
    """A key file that needs its passphrase."""


class Unusable(Exception):
    """A key file that cannot be used; the text says why."""


@dataclass(frozen=True)
class Offers(Generic[Key]):
    """The keys to offer, one by one: the agent's, then files, those with a passphrase last.

    Iterating asks for passphrases, and only when all keys before were refused.

    Attributes:
        held: the agent's keys by their public half, each with its name.
        load: reads a key file with a passphrase or without one and gives what to offer, with
            names; raises FileNotFoundError, Locked or Unusable.
        unusable: what could not be offered and why; grows while iterating.
    """

    hop: Hop
    asker: Asker | None
    held: Mapping[bytes, tuple[str, Key]]
    load: Callable[[Path, str | None], Sequence[tuple[str, Key]]]
    unusable: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, Key]]:
        halves = {file: public_half(file) for file in self.hop.identities}
        # As ssh: the agent's keys that are also named come first, then its others. A server hangs
        # up after a few wrong keys (MaxAuthTries), so the order matters.
        first = [half for half in halves.values() if half in self.held]
        others = [] if self.hop.identities_only else list(self.held)
        for half in dict.fromkeys([*first, *others]):
            if half is not None:
                name, key = self.held[half]
                yield f"{name} (agent)", key
        locked = []
        for file in [file for file, half in halves.items() if half not in self.held]:
            try:
                yield from self.load(file, None)
            except Locked:
                locked.append(file)
            except Unusable as error:
                self.unusable.append(f"{file} ({error})")
            except FileNotFoundError:
                # ssh_config's defaults name files nobody needs to have.
                if self.hop.identities_only:
                    self.unusable.append(f"{file} (no such file)")
        for file in locked:
            try:
                yield from self._unlock(file)
            except Unusable as error:
                self.unusable.append(f"{file} ({error})")

    def _unlock(self, file: Path) -> Sequence[tuple[str, Key]]:
        if self.asker is None:
            raise Unusable("needs its passphrase, and there is no terminal to ask")
        for _ in range(PASSPHRASE_TRIES):
            passphrase = self.asker.passphrase(str(file))
            if passphrase is None:
                raise Unusable("passphrase not given")
            try:
                return self.load(file, passphrase)
            except (Locked, Unusable):
                continue
        raise Unusable("wrong passphrase")

    def refusal(self, refused: str, tried: Sequence[str]) -> ConnectError:
        """The error for when none was taken.

        Args:
            refused: the start of the message.
            tried: the names of what was offered.
        """
        cause = "; ".join(
            f"{what}: {', '.join(names)}"
            for what, names in (("tried", tried), ("not usable", self.unusable))
            if names
        )
        if self.unusable and not tried:
            return ConnectError(
                f"{refused}: no usable key",
                cause=cause,
                fix="repair the key file, name another in the remote's `key`, "
                "or give it to the agent: ssh-add FILE",
            )
        return LoginRefused(
            f"{refused}: no key is accepted for user {self.hop.user}",
            cause=cause or "there is no key: no agent, and no key file",
            fix="check the remote's `user` and `key`; the public key must be in "
            f"~{self.hop.user}/.ssh/authorized_keys there",
        )


def public_half(file: Path) -> bytes | None:
    """The public key, from the .pub file beside a key file, or from the file itself where the
    private half is only in the agent."""
    for candidate in (Path(f"{file}.pub"), file):
        try:
            with candidate.open("rb") as stream:
                fields = stream.read(KEY_LIMIT_BYTES).split()
            if len(fields) >= 2 and fields[0].startswith((b"ssh-", b"ecdsa-", b"sk-")):
                return base64.b64decode(fields[1], validate=True)
        except (OSError, binascii.Error):
            continue
    return None
