"""What a `remote.zip` does when Python is given it: supervise a run, guard the machine, look
whether models can be loaded, what a cluster's compute node sees, or serve TensorBoard.
"""

from __future__ import annotations

import sys


def _main(arguments: tuple[str, ...]) -> None:
    if arguments[0] == "guard":
        from remote import guard

        guard.main(arguments[1:])
    elif arguments[0] == "load":
        from remote import loading

        loading.main(arguments[1:])
    elif arguments[0] == "look":
        from remote import survey

        survey.main(arguments[1:])
    elif arguments[0] == "board":
        from remote import boardserver

        boardserver.main(arguments[1:])
    else:
        from remote import supervisor

        supervisor.main(arguments)


if __name__ == "__main__":
    _main(tuple(sys.argv[1:]))
