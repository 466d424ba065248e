"""`up` on a machine that was rented before, on the simulation's stage."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from orchestrator.costs import payments
from orchestrator.costs.account import stints
from orchestrator.costs.paydesk import Terms
from orchestrator.costs.sessions import all_sessions
from orchestrator.settings.home import OVERRIDE, remotes_file
from orchestrator.settings.remotes import add_remote
from orchestrator.settings.spec import CloudSpec, Price, Remote
from remote.protocol import HowKept, Keep
from tests.clouds.world import State, World
from tests.money.fronts import KINDS, Front
from tests.money.laptop import Desk, Ear, Line
from tests.money.machine import Machine, Traits
from tests.money.stage import Stage


class Lucky(Random):
    """Nothing breaks."""

    def random(self) -> float:
        return 0.99


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def cloud() -> str:
    return "gcp"


@pytest.fixture
def world(stage: Stage, cloud: str) -> World:
    return World(stage, KINDS[cloud].rules)


@pytest.fixture
def desk(
    stage: Stage, cloud: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    kind = KINDS[cloud]
    front = Front(kind, world, stage, Lucky())
    monkeypatch.setenv(OVERRIDE, str(tmp_path))
    monkeypatch.setattr(payments, "open_provider", lambda _: front)
    spec = CloudSpec(cloud, kind.options)
    add_remote(remotes_file(), Remote("gpu", "gpu.example", price=Price(Decimal(1)), cloud=spec))
    with Desk(Ear(), stage, Machine(stage, world, Traits()), Lucky()) as desk:
        yield desk


def test_a_session_past_its_hard_end_is_over_and_the_next_has_its_own(
    stage: Stage, desk: Desk
) -> None:
    desk.up("gpu", Terms(lasts_s=3600.0), 60.0)
    stage.sleep(7200.0)
    desk.up("gpu", Terms(lasts_s=3600.0), 60.0)
    first, second = all_sessions(desk.ledger, "gpu")

    assert first.ended_at == first.ends_at
    assert second.ended_at is None
    assert second.ends_at is not None
    assert second.ends_at > stage.now()


def test_how_the_guard_stands_is_asked_before_it_is_given_terms(
    desk: Desk, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []
    answer = Line.call

    def call(line: Line, asked: object, kind: type[object]) -> object:
        calls.append(asked)
        return answer(line, asked, kind)

    monkeypatch.setattr(Line, "call", call)
    desk.up("gpu", Terms(budget=Decimal(5)), 60.0)
    stage.sleep(3600.0)
    desk.up("gpu", Terms(), 60.0)
    kinds = [type(asked) for asked in calls]
    keeps = [asked for asked in calls if isinstance(asked, Keep)]

    assert kinds == [HowKept, Keep, HowKept, Keep]
    assert [round((keep.paid_s or 0.0) / 3600) for keep in keeps] == [5, 4]


@pytest.mark.parametrize("cloud", ["azure"])
def test_down_hears_from_the_machine_that_it_was_off_between_also_without_a_session(
    desk: Desk, stage: Stage, world: World
) -> None:
    """Its cloud tells no starts, and its session had ended before."""
    desk.up("gpu", Terms(lasts_s=3600.0), 60.0)
    stage.sleep(8 * 3600.0)
    assert world.state is State.RELEASED
    world.start()  # by another's hand
    stage.sleep(35.0 + 40.0)
    desk.down("gpu", force=True)
    counted = stints(desk.ledger, "gpu", stage.now())

    assert [round(stint.paid.total_seconds() / 60) for stint in counted] == [62, 2]
    assert not any(stint.is_estimated for stint in counted)
