"""What a `remote.zip` does when Python is given it: supervise a run, or guard the machine."""

from __future__ import annotations

import sys


def _main(arguments: tuple[str, ...]) -> None:
    if arguments[0] == "guard":
        from remote import guard

        guard.main(arguments[1:])
    else:
        from remote import supervisor

        supervisor.main(arguments)


if __name__ == "__main__":
    _main(tuple(sys.argv[1:]))
