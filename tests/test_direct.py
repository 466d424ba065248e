"""What a simulation is told without HTTP is what the providers tell over it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from orchestrator.clouds.azure import Azure, AzureMachine
from orchestrator.clouds.gcp import Gcp, GcpMachine
from orchestrator.clouds.power import Machine, Power, Provider
from orchestrator.clouds.rest import Patience
from orchestrator.clouds.secret import Secret, Token
from orchestrator.errors import CloudError, NoCapacity
from tests.clouds import arm, gce
from tests.clouds.clock import MovedClock
from tests.clouds.direct import Direct
from tests.clouds.world import AZURE, GCE, Rules, Shortage, State, World


def over_http(world: World, stack: ExitStack) -> Provider:
    clock = world.clock
    assert isinstance(clock, MovedClock)
    patience = Patience(60, 5, clock.monotonic, clock.sleep)
    if world.rules is AZURE:
        azure = arm.Arm(world)
        stack.enter_context(azure.serving())
        return Azure(
            AzureMachine(arm.SUBSCRIPTION, arm.GROUP, arm.VM),
            endpoint=azure.url,
            log_in=lambda: Token(Secret(azure.new_token())),
            patience=patience,
        )
    google = gce.Gce(world)
    google.tokens.append("t")
    stack.enter_context(google.serving())
    return Gcp(
        GcpMachine(gce.PROJECT, gce.ZONE, gce.INSTANCE),
        endpoint=google.url,
        log_in=lambda: Token(Secret("t")),
        patience=patience,
    )


def told(machine: Machine) -> Machine:
    """Without what each words in its own way, and what Google keeps no time of."""
    keeps = machine.power in (Power.RUNNING, Power.STOPPED_FREE, Power.HIBERNATED)
    since = machine.since.replace(microsecond=0) if machine.since and keeps else None
    started = machine.started_at.replace(microsecond=0) if machine.started_at else None
    return replace(machine, reason="", since=since, started_at=started)


@pytest.mark.parametrize("rules", [AZURE, GCE], ids=lambda rules: rules.name)
def test_both_tell_the_same_of_a_machines_whole_life(rules: Rules) -> None:
    clock = MovedClock()
    world = World(clock, rules, size="g2-standard-4", region="europe-west4", spot=True)
    direct = Direct(world)
    with ExitStack() as stack:
        provider = over_http(world, stack)
        seen = []

        def compare() -> None:
            found = provider.describe()
            assert told(found) == told(direct.describe())
            seen.append(found.power)

        compare()
        for deed in (world.start, world.stop, world.start, world.shut_down, world.start):
            deed()
            compare()
            clock.sleep(60)
            compare()
        world.evict()
        clock.sleep(rules.notice_s + 1)
        compare()
        clock.sleep(60)
        compare()
        assert provider.tariff == direct.tariff
        assert provider.self_stop.how == direct.self_stop.how

    assert {Power.STARTING, Power.RUNNING, Power.STOPPING, Power.STOPPED_FREE} <= set(seen)
    assert (Power.STOPPED_BILLED in seen) is (rules is AZURE)


def test_its_failures_are_the_providers() -> None:
    world = World(MovedClock(), AZURE, shortage=Shortage("AllocationFailed"))
    direct = Direct(world)
    with pytest.raises(NoCapacity) as short:
        direct.start()
    assert short.value.code == "AllocationFailed"
    assert world.state is State.RELEASED

    direct.unreachable = True
    for ask in (direct.describe, direct.start, direct.stop, direct.quote):
        with pytest.raises(CloudError):
            ask()
