"""Jobs that write event files, and what TensorBoard's page would ask."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.laptop import LIMIT_S, Laptop

# A script with its own event files, written by nothing but TensorBoard (`notf` keeps it from
# importing TensorFlow, which takes ten seconds).
OWN = """
import pathlib, sys, types
sys.modules["tensorboard.compat.notf"] = types.ModuleType("notf")
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
writer = EventFileWriter("logs/mine")
loss = Summary.Value(tag="loss", simple_value=0.5)
writer.add_event(Event(step=7, wall_time=1.0, summary=Summary(value=[loss])))
writer.close()
(pathlib.Path(__file__).parent / "done.txt").touch()
"""


def add(laptop: Laptop, name: str, script: str, **keys: object) -> None:
    """A job without a model, so that nothing is graded, with the tests' own Python."""
    outputs = [f"{name}/done.txt"]
    laptop.add_job(name, script=script, command=f"python {name}/job.py", outputs=outputs, **keys)


class Board:
    """What TensorBoard's page would ask.

    Attributes:
        address: of its server, as a browser gets it.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def runs(self) -> set[str]:
        return set(self._ask("runs"))

    def steps(self, run: str, tag: str) -> list[int]:
        """The steps of a curve; none where it does not know it yet."""
        try:
            found = self._ask(f"plugin/scalars/scalars?run={run.replace('/', '%2F')}&tag={tag}")
        except urllib.error.HTTPError:
            return []
        return [step for _, step, _ in found]

    def _ask(self, what: str) -> Any:  # noqa: ANN401  # whatever JSON can hold
        time.sleep(0.2)  # each question costs TensorBoard more than the wait costs a test
        with urllib.request.urlopen(f"{self.address}data/{what}") as answer:
            return json.loads(answer.read())


@contextmanager
def board(laptop: Laptop, *words: str) -> Iterator[Board]:
    """A `train tensorboard` that is ended by Ctrl-C."""
    with laptop.start("tensorboard", "--no-browser", *words) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), process.communicate()[1]
        yield Board(address)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said
