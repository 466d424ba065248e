"""One job of a pool's order, and the runs that have it by now."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from orchestrator.plan import Order
from orchestrator.records.mirror import LOST, Mirror
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Job
from remote.protocol import CHUNK_BYTES
from remote.runfolder import Ended, State, worker_name


@dataclass(eq=False)
class Work:
    """Attributes:
    order: of the one job; its remote is the host's that gets it.
    run_id: of its first run, where somebody has written it down before; else one is made up.
    runs: one for each of its hosts, the chief's first; none before they are made.
    told: how much of each one's log was told, in bytes.
    is_asked_back: whether its host was asked to give it back.
    home: those for which nothing more is to be done.
    """

    order: Order
    run_id: str = ""
    runs: tuple[Mirror, ...] = ()
    told: Counter[Mirror] = field(default_factory=Counter)
    is_asked_back: bool = False
    home: set[Mirror] = field(default_factory=set)

    @property
    def name(self) -> str:
        """For people."""
        return self.run_id or self.job.name

    @property
    def job(self) -> Job:
        return self.order.jobs[0]

    @property
    def gpus(self) -> int:
        """On each of its hosts."""
        return self.order.overrides.gpus_of(self.job)

    @property
    def is_gang(self) -> bool:
        return self.job.nodes > 1

    @property
    def chief(self) -> Mirror:
        return self.runs[0]

    @property
    def is_home(self) -> bool:
        return bool(self.runs) and self.home.issuperset(self.runs)

    @property
    def is_accepted(self) -> bool:
        """Whether all of its hosts have it."""
        return len(self.runs) == self.job.nodes and all(run.was_heard_of for run in self.runs)

    @property
    def waits(self) -> bool:
        """Whether its one run waits for a slot that others have. One that was just accepted does
        not wait yet, and may begin at once.
        """
        seen = self.chief.seen
        state = seen.report.state if seen else None
        if self.is_gang or state is None or self.is_asked_back or self.chief.has_begun:
            return False
        return state.state is State.QUEUED and state.reason != ""

    @property
    def fallen(self) -> Ended | None:
        """Of a gang, the run that ended first and without success: none goes on without it."""
        ends = []
        for rank, run in enumerate(self.runs if self.is_gang else ()):
            seen = run.seen
            if seen and seen.report.state and run.ended and run.verdict != State.SUCCEEDED.value:
                word = State.FAILED if run.verdict == LOST else seen.report.state.state
                ends.append((seen.report.state.ended_at or "", rank, word))
        return Ended(worker_name(min(ends)[1]), min(ends)[2]) if ends else None

    def move(self, runs: tuple[Mirror, ...]) -> None:
        """From now on it is done by these."""
        self.runs, self.is_asked_back = runs, False

    def tell_log(self, tell: Teller) -> None:
        """What came of it since."""
        for run in self.runs:
            try:
                with run.log.open("rb") as copy:
                    copy.seek(self.told[run])
                    while block := copy.read(CHUNK_BYTES):
                        self.told[run] += len(block)
                        tell.log(run.request.label, block)
            except FileNotFoundError:
                pass  # nothing came yet
