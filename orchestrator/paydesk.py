"""What the commands about machines that cost money do, each a method."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Self

from orchestrator.config import find_remote, known_remotes, workspace_here
from orchestrator.console import Console
from orchestrator.errors import (
    CloudError,
    ConfigError,
    ConnectError,
    ConnectionLost,
    Forbidden,
    NoCapacity,
    TrainshedError,
    UsageError,
)
from orchestrator.home import config_folder, ledger_file, remotes_file
from orchestrator.hostkeys import carry_over
from orchestrator.ledger import Ledger, StintFact
from orchestrator.lifecycle import Clock, Lifecycle, wait_for_login
from orchestrator.link import Link
from orchestrator.machines import open_runs
from orchestrator.payments import Payments
from orchestrator.power import Machine, Power, Provenance, Provider, Quote
from orchestrator.purse import Budget, check, hourly, paid_s
from orchestrator.reach import open_link
from orchestrator.remotes import change_remote
from orchestrator.sessions import (
    Session,
    Tally,
    all_sessions,
    begin,
    budgets,
    end,
    open_session,
    per_hour_on,
    session_of,
    tally,
)
from orchestrator.spec import Remote, Workspace
from orchestrator.sshconfig import known_as
from remote.protocol import Done, HowKept, Keep, Kept, LetGo

_USERS_KNOWN_HOSTS = (Path("~/.ssh/known_hosts"),)


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
class Priced:
    """Attributes:
    quote: None where nobody knows.
    """

    remote: Remote
    quote: Quote | None


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
            remote = self._follow(remote, lifecycle.start(capacity_limit_s))
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
        was_on = not lifecycle.describe().power.is_down
        # Not before: should the cloud say no, its guard is all that would stop it.
        machine = lifecycle.stop(lambda: self._let_go(remote, session))
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
        now = self._clock.now()
        self._let_go(remote, session)
        if payments.provider is None:
            # Nobody else will say when it goes off.
            payments.close(now, Provenance.VM, "the session ended")
        end(self.ledger, session, now, Provenance.VM)
        price = hourly(remote.price)
        how = f"train down {name}" if payments.provider else "stop it where you rented it"
        self.console.warn(f"{name} is on, and costs {price}; to end that: {how}")
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
        for remote in known_remotes(self._workspace):
            if remote.cloud is not None or open_session(self.ledger, remote.name):
                found.append(self._look(remote))
        return found

    def prices(self, name: str, *, refresh: bool) -> list[Priced]:
        """What each remote costs, or one of them; asked of its cloud, or as it is known."""
        remotes = (find_remote(self._workspace, name),) if name else known_remotes(self._workspace)
        return [self._priced(remote, refresh=refresh) for remote in remotes]

    def _priced(self, remote: Remote, *, refresh: bool) -> Priced:
        payments = self._payments(remote)
        if not refresh:
            last = self.ledger.last_stint(remote.name)
            return Priced(remote, payments.known_quote() or _frozen(last))
        if payments.provider is None:
            return Priced(remote, payments.known_quote())
        self.console.doing(f"asking what {remote.name} costs")
        quote = payments.asked_quote()
        if quote is not None and remote.price is not None:
            _warn_of_other(self.console, remote, quote)
        return Priced(remote, quote or payments.known_quote())

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
            self._guard(link, payments, session, on_s)
        return self._tally(session)

    @contextmanager
    def _unguarded(self, remote: Remote) -> Iterator[None]:
        """Until its guard knows the session's terms, nobody leaves it without a word."""
        try:
            yield
        except NoCapacity:
            raise
        except TrainshedError:
            self.console.warn(
                f"nothing stops {remote.name}: it may be on, and cost {hourly(remote.price)}; try "
                f"again, or: train down {remote.name}"
            )
            raise

    def _guard(self, link: Link, payments: Payments, session: Session, on_s: float) -> None:
        """Have the machine keep the session's terms itself, and say plainly where it cannot.

        Args:
            on_s: for so long it was on in the session by its own count.
        """
        remote = payments.remote
        keep = self._keep(payments, session, on_s)
        kept = link.call(keep, Kept)
        name = remote.name
        if kept.trouble:
            self.console.warn(
                f"{name} CANNOT STOP ITSELF: {kept.trouble}; its runs end with the session, but it "
                f"costs {hourly(remote.price)} until: train down {name}"
            )
        elif keep.ends_in_s is None and keep.paid_s is None and keep.idle_s is None:
            self.console.warn(
                f"nothing ends this session by itself: {name} costs {hourly(remote.price)} until: "
                f"train down {name}"
            )
        elif kept.fragile:
            self.console.warn(f"{name} would not stop itself after a reboot: {kept.fragile}")

    def _keep(self, payments: Payments, session: Session, on_s: float) -> Keep:
        now, remote, provider = self._clock.now(), payments.remote, payments.provider
        per_hour = per_hour_on(self.ledger, remote)
        bounds = budgets(self.ledger, remote, now)
        ends_in = (session.ends_at - now).total_seconds() if session.ends_at else None
        try:
            way = provider.self_stop if provider else None
        except CloudError as error:
            self.console.warn(f"{remote.name} may not stop itself: {error}")
            way = None
        return Keep(
            session.id,
            ends_in_s=None if ends_in is None else max(0.0, ends_in),
            paid_s=_left_s(session, bounds, per_hour, on_s) if per_hour else None,
            idle_s=session.idle_s,
            how=way.how if way else "",
            options=(
                *(way.options if way else ()),
                *([("spot", "yes")] if payments.is_spot else ()),
            ),
        )

    def _check_terms(self, payments: Payments, terms: Terms) -> None:
        """Raises:
        Forbidden: a budget without a price, or one that is used up.
        """
        now, remote = self._clock.now(), payments.remote
        limited = terms.budget is not None or remote.budget.session or remote.budget.month
        if not limited:
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

    def _let_go(self, remote: Remote, session: Session | None) -> None:
        if session is None:
            return
        try:
            with self._link(remote) as link:
                link.call(LetGo(session.id), Done)
        except (ConnectError, ConnectionLost) as error:
            self.console.warn(
                f"{remote.name} could not be told that the session is over ({error}); started "
                "again, it may stop itself by this session's terms"
            )

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

    def _follow(self, remote: Remote, machine: Machine) -> Remote:
        """The remote at the address that it has now, with the host keys it had."""
        if machine.address in ("", remote.host) or not _is_address(remote.host):
            return remote
        own, port = config_folder() / "known_hosts", remote.port
        elsewhere = [file.expanduser() for file in _USERS_KNOWN_HOSTS]
        carry_over(own, known_as(remote.host, port), known_as(machine.address, port), elsewhere)
        moved = replace(remote, host=machine.address)
        with suppress(UsageError):
            change_remote(
                remotes_file(), remote.name, lambda known: replace(known, host=machine.address)
            )
        self.console.step(f"{remote.name} has a new address: {machine.address}")
        if self._workspace is not None:
            now = find_remote(workspace_here(), remote.name)
            if now.host != machine.address:
                self.console.warn(
                    f"train.yaml says that {remote.name} is at {now.host}; it is at "
                    f"{machine.address}"
                )
        return moved

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
        return None

    def _tally(self, session: Session) -> Tally:
        return tally(self.ledger, session_of(self.ledger, session.id), self._clock.now())


def _left_s(
    session: Session, bounds: Sequence[Budget], per_hour: Decimal, on_s: float
) -> float | None:
    """For how long the budgets last, by the ledger, and by the machine's count where that is more.

    The ledger may have an estimate where nobody saw the machine go off.
    """
    left_s = paid_s(bounds, per_hour)
    if left_s is None or session.budget is None:
        return left_s
    return max(0.0, min(left_s, float(session.budget / per_hour * 3600) - on_s))


def _needed(payments: Payments) -> Provider:
    if payments.provider is None:
        raise UsageError(
            f"nothing is said of the cloud of {payments.remote.name}",
            fix="say in remotes.yaml who rents it out, under `cloud:` (provider: azure, aws, "
            "gcp, or command with your own start, stop and status)",
        )
    return payments.provider


def _frozen(stint: StintFact | None) -> Quote | None:
    """The price that the last paid time began with."""
    if stint is None or stint.price_per_hour is None or stint.fetched_at is None:
        return None
    return Quote(
        stint.price_per_hour,
        stint.currency,
        stint.price_source,
        stint.fetched_at,
        stint.region,
        stint.spot,
        stint.disk_per_hour,
    )


def _warn_of_other(console: Console, remote: Remote, quote: Quote) -> None:
    assert remote.price is not None
    if (quote.per_hour, quote.currency) != (remote.price.per_hour, remote.price.currency):
        console.warn(
            f"{remote.name} is {hourly(remote.price)} by your word, which counts; for the other: "
            f"train remote set {remote.name} --price {quote.per_hour:f} --currency {quote.currency}"
        )


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
