"""What a run's `remote.zip` does when Python is given it: supervise that run."""

from __future__ import annotations

import sys

from remote.supervisor import main

if __name__ == "__main__":
    main(tuple(sys.argv[1:]))
