"""What the commands about machines that cost money do, each a method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Self

from orchestrator.clouds.lifecycle import Clock, Lifecycle, wait_for_login
from orchestrator.clouds.power import Machine, Power, Provenance, Provider
from orchestrator.costs.guarding import Guarding
from orchestrator.costs.moving import follow
from orchestrator.costs.payments import Payments
from orchestrator.costs.purse import Budget, check, hourly, way_out
from orchestrator.costs.quoting import Priced, price_asked, price_known
from orchestrator.costs.release import release
from orchestrator.costs.sessions import (
    Session,
    Tally,
    all_sessions,
    apart_from_month,
    begin,
    budgets,
    end,
    open_session,
    session_of,
    tally,
)
from orchestrator.errors import (
    CloudError,
    ConfigError,
    Forbidden,
    NoCapacity,
    TrainshedError,
    UsageError,
)
from orchestrator.records.ledger import Ledger
from orchestrator.screen.console import Console
from orchestrator.settings.config import (
    FILE_NAME,
    find_remote,
    known_machines,
    load_month_limit,
    workspace_here,
)
from orchestrator.settings.home import ledger_file, remotes_file
from orchestrator.settings.spec import Remote, Workspace
from orchestrator.vm.link import Link
from orchestrator.vm.machines import open_runs
from orchestrator.vm.reach import open_link
from remote.protocol import HowKept, Kept


@dataclass(frozen=True)
class Terms:
    """What the user says of a session.

    Attributes:
        lasts_s: from now to its hard end; None for none.
        any_price: whether a budget may be set where the price is unknown.
        assumed: whether nobody said it; then a session that is open goes before it, unmentioned.
    """

    name: str = ""
    lasts_s: float | None = None
    budget: Decimal | None = None
    idle_s: float | None = None
    any_price: bool = False
    assumed: bool = False

    @property
    def are_said(self) -> bool:
        return not self.assumed and replace(self, any_price=False) != Terms()


@dataclass(frozen=True)
class Seen:
    """A remote and its session, as they were found.

    Attributes:
        power: unknown where nobody can be asked.
        trouble: why somebody could not be.
        kept: the guard's word; None where it was not asked.
        clock_off_s: of the machine, for the guard's times.
    """

    remote: Remote
    power: Power
    tally: Tally | None
    kept: Kept | None = None
    clock_off_s: float = 0.0
    trouble: str = ""


@dataclass(frozen=True)
class Up:
    """Attributes:
    was_on: whether nobody had to start it.
    """

    tally: Tally
    was_on: bool


class PayDesk:
    """One command's work.

    Args:
        accept: a host key's fingerprint trusted beforehand.
    """

    def __init__(
        self,
        workspace: Workspace | None,
        console: Console,
        accept: str = "",
        clock: Clock | None = None,
    ) -> None:
        self._workspace = workspace
        self.console = console
        self._accept = accept
        self._clock = clock or Clock()
        self.ledger = Ledger.open(ledger_file())

    @classmethod
    def here(cls, console: Console, accept: str = "") -> Self:
        """Also where train.yaml is wrong: a mistake in a job keeps no machine on."""
        try:
            workspace = workspace_here()
        except ConfigError as error:
            console.warn(f"{error}; only the remotes of {remotes_file()} are known here")
            workspace = None
        return cls(workspace, console, accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()

    def up(self, name: str, terms: Terms, capacity_limit_s: float) -> Up:
        """Start the machine, wait until it lets us in, and open a session unless one is open."""
        remote = find_remote(self._workspace, name)
        payments = self._payments(remote)
        provider = _needed(payments)
        self._open_session(name)
        self._check_terms(payments, terms)
        lifecycle = Lifecycle(name, provider, payments.by_cloud, self.console, self._clock)
        with self._unguarded(remote):
            was_on = lifecycle.describe().power is Power.RUNNING
            address = lifecycle.start(capacity_limit_s).address
            remote = follow(remote, address, self._workspace, self.console)
            return Up(self._enter(remote, payments, terms), was_on)

    def begin(self, name: str, terms: Terms) -> Tally:
        """Open a session on a machine that is on."""
        remote = find_remote(self._workspace, name)
        payments = self._payments(remote)
        session = self._open_session(name)
        self._check_terms(payments, terms)
        if session is not None:
            begin(self.ledger, remote, self._clock.now())  # says that there is one
        if payments.provider is not None:
            machine = self._describe(payments, payments.provider)
            if machine is not None and machine.power is not Power.RUNNING:
                raise UsageError(f"{name} is {machine.power}", fix=f"train up {name}")
        with self._unguarded(remote):
            return self._enter(remote, payments, terms)

    def down(self, name: str, *, force: bool) -> Tally | None:
        """Stop the machine so that it costs nothing; its session ends."""
        remote = find_remote(self._workspace, name)
        payments = self._payments(remote)
        provider = _needed(payments)
        runs = open_runs(name)
        if runs and not force:
            raise UsageError(
                f"runs go on on {name}: {', '.join(runs)}",
                cause="stopping it ends them, and what they made is not here yet",
                fix=f"wait for them: train attach RUN; or end them: train down {name} --force",
            )
        session = self._open_session(name)
        lifecycle = Lifecycle(name, provider, payments.by_cloud, self.console, self._clock)
        power = lifecycle.describe().power
        was_on = not power.is_down
        if power is Power.RUNNING and session is None:
            self._hear(payments)
        with self._release(payments, session if was_on else None) as let_go:
            machine = lifecycle.stop(let_go)
        if was_on:
            # Where the cloud does not say since when, it is since now.
            payments.close(self._clock.now(), Provenance.CLOUD, "stopped by train down")
        self.console.step(f"{name} is {machine.power}, by the cloud's word")
        return None if session is None else self._off(session, machine)

    def finish(self, name: str) -> Tally:
        """End the session; the machine goes on."""
        remote = find_remote(self._workspace, name)
        session = open_session(self.ledger, name)
        if session is None:
            raise UsageError(f"no session is open on {name}", fix="train session list")
        payments = self._payments(remote)
        machine = self._describe(payments, payments.provider) if payments.provider else None
        if machine is not None and machine.power.is_down:
            self.console.step(f"{name} is {machine.power}, by the cloud's word")
            return self._off(session, machine)
        with self._release(payments, session) as let_go:
            let_go()
        now = self._clock.now()
        if payments.provider is None:
            # Nobody else will say when it goes off.
            payments.close(now, Provenance.VM, "the session ended")
        end(self.ledger, session, now, Provenance.VM)
        self.console.warn(f"{name} is on, and costs {hourly(remote.price)}; {way_out(remote)}")
        return self._tally(session)

    def _off(self, session: Session, machine: Machine) -> Tally:
        """What a session came to that ends because its machine is off."""
        end(self.ledger, session, machine.since or self._clock.now(), Provenance.CLOUD)
        return self._tally(session)

    def look(self, name: str) -> list[Seen]:
        """One remote, or all that have a session or a cloud; asked one after the other."""
        if name:
            return [self._look(find_remote(self._workspace, name))]
        found = []
        for remote in known_machines(self._workspace):
            if remote.cloud is not None or open_session(self.ledger, remote.name):
                found.append(self._look(remote))
        return found

    def budgets(self, remote: Remote) -> tuple[Budget, ...]:
        """All that bound what is spent on it now."""
        return budgets(self.ledger, remote, self._clock.now())

    def file_of(self, name: str) -> Path:
        """Where it stands what is said of a remote."""
        here = self._workspace
        is_here = here is not None and name in {remote.name for remote in here.remotes}
        return here.root / FILE_NAME if here is not None and is_here else remotes_file()

    def prices(self, name: str, *, refresh: bool) -> list[Priced]:
        """What each remote costs, or one of them; asked of its cloud, or as it is known."""
        remotes = (find_remote(self._workspace, name),) if name else known_machines(self._workspace)
        found = map(self._payments, remotes)
        if refresh:
            return [price_asked(payments, self.console) for payments in found]
        return [price_known(self.ledger, payments) for payments in found]

    def sessions(self) -> list[Tally]:
        """All there were, by their start."""
        return [self._tally(session) for session in all_sessions(self.ledger)]

    def _look(self, remote: Remote) -> Seen:
        payments = self._payments(remote)
        provider = payments.provider
        session = open_session(self.ledger, remote.name)
        power, trouble = Power.UNKNOWN, ""
        kept, off_s = None, 0.0
        if provider is not None:
            self.console.doing(f"asking the cloud about {remote.name}")
            try:
                machine = provider.describe()
            except CloudError as error:
                trouble = str(error)
            else:
                power = machine.power
                if power is Power.UNKNOWN:
                    trouble = machine.reason
                payments.by_cloud(machine, self._clock.now())
        if session is not None and power in (Power.UNKNOWN, Power.RUNNING):
            try:
                with self._link(remote) as link:
                    kept, off_s = link.call(HowKept(), Kept), link.clock_off_s
                    payments.by_login(link.hello, off_s)
                    power = Power.RUNNING
            except TrainshedError as error:
                trouble = trouble or str(error)
        counted = None if session is None else self._tally(session)
        return Seen(remote, power, counted, kept, off_s, trouble)

    def _enter(self, remote: Remote, payments: Payments, terms: Terms) -> Tally:
        """Log in, open the session, set the guard."""
        links: list[Link] = []

        def try_once() -> None:
            links.append(self._link(remote))

        wait_for_login(try_once, remote.name, self.console, self._clock)
        with links[0] as link:
            kept = link.call(HowKept(), Kept)
            session = open_session(self.ledger, remote.name)
            # Where no cloud is asked, what lies in a session is counted, not all since the boot.
            if payments.provider is not None or session is not None:
                payments.by_login(link.hello, link.clock_off_s)
            now = self._clock.now()
            if session is None:
                session = begin(
                    self.ledger,
                    remote,
                    now,
                    name=terms.name,
                    lasts_s=terms.lasts_s,
                    budget=terms.budget,
                    idle_s=terms.idle_s,
                )
                if payments.provider is None:
                    payments.open_here(session.started_at)
                self.console.step(f"session {session.name} on {remote.name}")
            elif terms.are_said:
                self.console.warn(
                    f"session {session.name} goes on by its own terms, what was said now does "
                    f"not count; for others: train session stop {remote.name}, then the same again"
                )
            on_s = kept.on_s if kept.session == session.id else 0.0
            Guarding(self.ledger, payments, self.console).set(link, session, on_s, now)
        return self._tally(session)

    @contextmanager
    def _unguarded(self, remote: Remote) -> Iterator[None]:
        """Until its guard knows the session's terms, nobody leaves it without a word."""
        try:
            yield
        except NoCapacity:
            raise
        except (TrainshedError, KeyboardInterrupt):
            self.console.warn(
                f"nothing stops {remote.name}: it may be on, and cost {hourly(remote.price)}; try "
                f"again; {way_out(remote)}"
            )
            raise

    def _check_terms(self, payments: Payments, terms: Terms) -> None:
        """Raises:
        Forbidden: a budget without a price, or one that is used up.
        """
        now, remote = self._clock.now(), payments.remote
        for text in apart_from_month(self.ledger, remote):
            self.console.warn(text)
        limited = terms.budget is not None or remote.budget.session or remote.budget.month
        if not limited and load_month_limit(remotes_file()) is None:
            return
        quote = payments.quote()
        if quote is None:
            if terms.any_price:
                self.console.warn(
                    f"the price of {remote.name} is unknown: its budget binds nothing"
                )
                return
            raise Forbidden(
                f"the price of {remote.name} is unknown, so no budget can be kept",
                fix=f"train remote set {remote.name} --price 0.50; or: --allow-unknown-price",
            )
        check(budgets(self.ledger, remote, now), (), quote.per_hour)

    def _release(
        self, payments: Payments, session: Session | None
    ) -> AbstractContextManager[Callable[[], None]]:
        """Gives what lets the session's guard go."""
        if session is None:
            return nullcontext(lambda: None)
        return release(lambda: self._link(payments.remote), payments, session, self.console)

    def _hear(self, payments: Payments) -> None:
        """Its guard's records, before it is off: whether it was on all the time is there only."""
        with suppress(TrainshedError), self._link(payments.remote) as link:
            payments.by_login(link.hello, link.clock_off_s)

    def _describe(self, payments: Payments, provider: Provider) -> Machine | None:
        remote = payments.remote
        try:
            return Lifecycle(
                remote.name, provider, payments.by_cloud, self.console, self._clock
            ).describe()
        except CloudError as error:
            self.console.warn(f"the cloud of {remote.name} could not be asked: {error}")
            return None

    def _payments(self, remote: Remote) -> Payments:
        return Payments(self.ledger, remote, self.console, self._clock)

    def _link(self, remote: Remote) -> Link:
        self.console.doing(f"connecting to {remote.name}")
        return open_link(remote, self.console.asker(), self._accept)

    def _open_session(self, name: str) -> Session | None:
        """The one that goes on there; one whose hard end has passed is over."""
        session = open_session(self.ledger, name)
        if session is None or session.ends_at is None:
            return session
        if not session.is_past_end(self._clock.now()):
            return session
        end(self.ledger, session, session.ends_at, Provenance.VM)
        payments = self._payments(find_remote(self._workspace, name))
        if payments.provider is None:
            # Of one that nobody rents out only sessions are counted.
            payments.close(session.ends_at, Provenance.VM, "the session ended")
        return None

    def _tally(self, session: Session) -> Tally:
        return tally(self.ledger, session_of(self.ledger, session.id), self._clock.now())


def _needed(payments: Payments) -> Provider:
    if payments.provider is None:
        raise UsageError(
            f"nothing is said of the cloud of {payments.remote.name}",
            fix=f"say in {remotes_file()} who rents it out, under `cloud:` (provider: azure, aws, "
            "gcp, or command with your own start, stop and status)",
        )
    return payments.provider
