"""Sessions on a rented machine: a real login, and the user's own commands for its power."""

from __future__ import annotations

import json
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.records.ledger import Ledger
from tests.laptop import HALF, Laptop, is_awaited, make_laptop, wait_until
from tests.servers import SshServer, embedded


class Rented:
    """A remote `k80` whose power is a word in a file; it answers whatever that says."""

    def __init__(self, laptop: Laptop, folder: Path) -> None:
        self.laptop = laptop
        self._power = folder / "the power"
        self._power.write_text("stopped-free\n")
        file = shlex.quote(str(self._power))
        self.says({
            "start": f"echo running > {file}",
            "stop": f"echo stopped-free > {file}",
            "status": f"cat {file}",
        })  # fmt: skip

    def says(self, commands: dict[str, str], **more: object) -> None:
        """What its `cloud:` and the keys beside it are."""
        cloud = {"provider": "command", **commands}
        path = self.laptop.home / "remotes.yaml"
        lines = [line for line in path.read_text().splitlines() if "cloud:" not in line]
        lines.append(f"    cloud: {json.dumps(cloud)}")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in more.items()]
        path.write_text("\n".join(lines) + "\n")

    @property
    def power(self) -> str:
        return self._power.read_text().strip()

    @power.setter
    def power(self, word: str) -> None:
        self._power.write_text(f"{word}\n")

    def ledger(self) -> Ledger:
        return Ledger.open(self.laptop.home / "ledger.sqlite3")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    """For nobody else: a session that was left open, because the machine was said to be off, ends
    whatever runs there when its hours are over.
    """
    with embedded(tmp_path_factory.mktemp("rented") / "machine") as server:
        yield server


@pytest.fixture
def rented(tmp_path: Path, machine: SshServer) -> Iterator[Rented]:
    laptop = make_laptop(tmp_path, None)
    laptop.add_remote(machine, "k80")
    laptop.add_job("a")
    yield Rented(laptop, tmp_path)
    # Else its guard watches over the next test's machine.
    laptop.train("session", "stop", "k80")


def test_up_starts_it_and_opens_a_session_and_down_ends_both(rented: Rented) -> None:
    up = rented.laptop.ok("up", "k80", "--hours", "3", "--budget", "5")
    assert rented.power == "running"
    assert "k80 is up: session k80-" in up.stdout
    assert "$5.00; ends in 3 h 00 min" in up.stdout
    assert "k80 CANNOT STOP ITSELF" in up.stderr

    rented.laptop.ok("a", "--remote", "k80")
    down = rented.laptop.ok("down", "k80")
    assert rented.power == "stopped-free"
    assert "k80 is stopped-free, by the cloud's word" in down.stderr
    assert "k80 is down and costs nothing but its disk; session" in down.stdout
    (session,) = rented.laptop.json("session", "list")
    assert session["ended_at"] is not None
    assert session["runs"] == 1
    assert session["used_s"] > 0
    assert not session["estimated"]


def test_down_stops_a_machine_whose_python_does_not_start(rented: Rented) -> None:
    rented.laptop.ok("up", "k80", "--hours", "3")
    rented.laptop.ok("remote", "set", "k80", "--python", "/bin/false")
    down = rented.laptop.ok("down", "k80")
    assert rented.power == "stopped-free"
    assert "could not be told that the session is over" in down.stderr


def test_ctrl_c_while_it_starts_says_that_nothing_stops_it(rented: Rented, tmp_path: Path) -> None:
    file = shlex.quote(str(tmp_path / "the power"))
    rented.says({
        "start": f"echo starting > {file}",
        "stop": f"echo stopped-free > {file}",
        "status": f"cat {file}",
    })  # fmt: skip
    with rented.laptop.start("up", "k80", "--hours", "1") as process:
        wait_until(lambda: rented.power == "starting", "the order")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing stops k80: it may be on, and cost $0.50 an hour" in said
    assert "train down k80" in said


def test_a_budget_binds_from_when_the_price_was_said(rented: Rented, machine: SshServer) -> None:
    rented.power = "running"
    rented.laptop.ok("remote", "set", "k80", "--price", "")
    rented.laptop.ok("a", "--remote", "k80")
    refused = rented.laptop.train("session", "start", "k80", "--budget", "1")
    assert refused.returncode == 6
    assert "train remote set k80 --price 0.50" in refused.stderr

    rented.laptop.ok("remote", "set", "k80", "--price", "3600")
    rented.laptop.ok("session", "start", "k80", "--budget", "1")
    time.sleep(1.1)
    over = rented.laptop.train("a", "--remote", "k80", "-p", "x=2")
    assert over.returncode == 6
    assert "$1.00" in over.stderr


def test_a_machine_of_ones_own_costs_nothing_between_two_sessions(
    rented: Rented, machine: SshServer
) -> None:
    rented.laptop.add_remote(machine, "own")
    rented.laptop.ok("session", "start", "own", "--hours", "2s")
    time.sleep(2.1)
    rented.laptop.ok("session", "start", "own", "--hours", "1")
    rented.laptop.ok("session", "stop", "own")
    with rented.ledger() as ledger:
        first, second = ledger.stints("own")
        ends = {end.stint_id: end.ended_at for end in ledger.stint_ends("own")}
        (before, _) = ledger.sessions("own")
        over = ledger.session_end(before.id)
    assert over is not None
    assert ends[first.id] == over.ended_at < second.started_at


def test_a_machine_that_is_on_and_idle_is_told_with_its_price(rented: Rented) -> None:
    rented.power = "running"
    done = rented.laptop.ok("a", "--remote", "k80")
    assert "k80 is on and idle, at $0.50 an hour; to end that: train down k80" in done.stderr


def test_nothing_is_idle_where_a_run_goes_on(rented: Rented, tmp_path: Path) -> None:
    go = tmp_path / "go"
    rented.power = "running"
    detached = rented.laptop.ok("a", "--remote", "k80", "--detach", "-p", f"until={go}")
    assert "idle" not in detached.stderr
    wait_until(lambda: is_awaited(go), "the script")
    refused = rented.laptop.train("down", "k80")
    assert refused.returncode == 2
    assert "runs go on on k80: a-" in refused.stderr
    assert rented.power == "running"
    go.touch()
    rented.laptop.ok("attach", "a")


def test_one_command_rents_the_machine_for_its_time(rented: Rented) -> None:
    done = rented.laptop.ok("a", "--remote", "k80", "--up")
    assert "mymodel.h5" in done.stdout
    assert "idle" not in done.stderr  # it is about to be stopped
    assert rented.power == "stopped-free"
    assert len(rented.laptop.json("session", "list")) == 1


def test_a_machine_that_was_on_stays_on_after_the_command(rented: Rented) -> None:
    rented.power = "running"
    rented.laptop.ok("a", "--remote", "k80", "--up")
    assert rented.power == "running"


def test_a_run_that_does_not_fit_the_budget_is_refused_before_anything_is_sent(
    rented: Rented,
) -> None:
    rented.laptop.ok("up", "k80", "--budget", "0.05")
    refused = rented.laptop.train("a", "--remote", "k80", "--time-limit", "1h")
    assert refused.returncode == 6
    assert "this run would be paid for about 1 h 00 min and cost $0.50" in refused.stderr
    assert not rented.laptop.states()
    rented.laptop.ok("a", "--remote", "k80", "--time-limit", "1m")


def test_a_budget_without_a_price_is_refused_unless_that_is_wanted(
    rented: Rented, machine: SshServer
) -> None:
    rented.laptop.add_remote(machine, "free", price=None)
    refused = rented.laptop.train("session", "start", "free", "--budget", "5")
    assert refused.returncode == 6
    assert "the price of free is unknown, so no budget can be kept" in refused.stderr
    allowed = ("session", "start", "free", "--budget", "5", "--allow-unknown-price")
    assert "its budget binds nothing" in rented.laptop.ok(*allowed).stderr
    rented.laptop.ok("session", "stop", "free")


def test_a_session_on_a_machine_without_a_cloud_is_counted_from_its_start_to_its_end(
    rented: Rented, machine: SshServer
) -> None:
    rented.laptop.add_remote(machine, "own")
    started = rented.laptop.ok("session", "start", "own")
    way_out = "costs $0.50 an hour; to end that, stop it where you rented it"
    assert (
        f"own CANNOT STOP ITSELF: it has no way to stop itself so that its cost ends; its runs "
        f"end with the session, but it {way_out}" in started.stderr
    )
    assert f"own is on, and {way_out}" in rented.laptop.ok("session", "stop", "own").stderr
    (session,) = rented.laptop.json("session", "list")
    assert not session["estimated"]
    assert float(session["cost"]) == pytest.approx(session["paid_s"] * float(HALF) / 3600, abs=1e-6)


def test_two_sessions_are_not_open_on_one_machine(rented: Rented) -> None:
    rented.laptop.ok("up", "k80")
    again = rented.laptop.train("session", "start", "k80")
    assert again.returncode == 2
    assert "train session stop k80" in again.stderr


def test_what_looks_as_if_it_were_off_is_said_to_be_billed(rented: Rented) -> None:
    rented.laptop.ok("up", "k80")
    rented.power = "stopped-billed"
    assert "STILL BILLED" in rented.laptop.ok("session", "status").stdout
    (seen,) = rented.laptop.json("session", "status")
    assert seen["power"] == "stopped-billed"


def test_a_machine_that_nothing_is_said_of_cannot_be_started(
    rented: Rented, machine: SshServer
) -> None:
    rented.laptop.add_remote(machine, "own")
    for words in (("up", "own"), ("down", "own"), ("a", "-r", "own", "--up")):
        refused = rented.laptop.train(*words)
        assert refused.returncode == 2
        assert "nothing is said of the cloud of own" in refused.stderr


def test_a_cloud_that_refuses_is_told_with_its_words(rented: Rented) -> None:
    rented.says(
        {"start": "echo no such plan >&2; exit 3", "stop": "true", "status": "echo deleted"}
    )
    refused = rented.laptop.train("up", "k80")
    assert refused.returncode == 2
    assert "k80 was deleted" in refused.stderr
    rented.says({"start": "echo no plan >&2; exit 3", "stop": "true",
                 "status": "echo stopped-free"})  # fmt: skip
    refused = rented.laptop.train("up", "k80")
    assert "the start command of k80 ended with exit code 3" in refused.stderr
    assert "cause: no plan" in refused.stderr


def test_the_host_keys_of_a_machine_go_with_it_to_its_new_address(rented: Rented) -> None:
    home = rented.laptop.home
    remotes = home / "remotes.yaml"
    port = next(line.split()[1] for line in remotes.read_text().splitlines() if "port:" in line)
    known = (home / "known_hosts").read_text()
    remotes.write_text(remotes.read_text().replace("127.0.0.1", "192.0.2.7"))
    (home / "known_hosts").write_text(known.replace("127.0.0.1", "192.0.2.7"))
    rented.says({"start": "true", "stop": "true", "status": "echo running 127.0.0.1"})
    up = rented.laptop.ok("up", "k80")

    assert "k80 has a new address: 127.0.0.1" in up.stderr
    assert "host: 127.0.0.1" in remotes.read_text()
    assert f"[127.0.0.1]:{port}" in (home / "known_hosts").read_text()


def test_a_machine_that_has_only_a_price_is_not_counted_outside_of_sessions(
    rented: Rented,
) -> None:
    path = rented.laptop.home / "remotes.yaml"
    lines = [line for line in path.read_text().splitlines() if "cloud:" not in line]
    path.write_text("\n".join([*lines, "    cloud: {provider: none}"]) + "\n")
    rented.laptop.ok("a", "--remote", "k80")
    with rented.ledger() as ledger:
        assert ledger.stints("k80") == ()


def test_a_machine_without_a_cloud_is_not_counted_from_its_boot_on(
    rented: Rented, machine: SshServer
) -> None:
    rented.laptop.add_remote(machine, "own")
    rented.laptop.ok("session", "start", "own")
    with rented.ledger() as ledger:
        (stint,) = ledger.stints("own")
        (session,) = ledger.sessions("own")
    rented.laptop.ok("session", "stop", "own")
    assert stint.started_at == session.started_at


def test_a_session_that_is_stopped_when_the_machine_is_off_does_not_say_that_it_is_on(
    rented: Rented,
) -> None:
    rented.laptop.ok("up", "k80")
    rented.power = "stopped-free"
    done = rented.laptop.ok("session", "stop", "k80")
    assert "is on" not in done.stderr


def test_terms_for_a_session_that_is_open_are_not_dropped_silently(rented: Rented) -> None:
    rented.laptop.ok("up", "k80", "--budget", "5")
    again = rented.laptop.ok("up", "k80", "--budget", "1")
    assert "goes on by its own terms" in again.stderr
    assert "train session stop k80" in again.stderr
    assert "its own terms" not in rented.laptop.ok("a", "--remote", "k80", "--up").stderr


def test_status_shows_the_clock_the_cost_and_what_is_left_of_a_session(rented: Rented) -> None:
    rented.laptop.ok("up", "k80", "--hours", "3", "--budget", "5", "--name", "exam")
    for words in (("status",), ("status", "--local")):
        told = rented.laptop.ok(*words).stdout
        assert "k80: session exam: " in told
        assert "of $5.00; ends in 3 h 00 min; $5.00 left" in told
    rented.laptop.ok("down", "k80")
    assert "session" not in rented.laptop.ok("status").stdout


def test_a_status_word_that_is_none_is_told(rented: Rented) -> None:
    rented.power = "on"
    told = rented.laptop.ok("session", "status", "k80").stdout
    assert "unknown: the status command printed 'on'" in told


def test_a_price_that_was_taken_back_is_not_shown_any_more(rented: Rented) -> None:
    rented.laptop.ok("remote", "set", "k80", "--price", "0.60")
    rented.laptop.ok("up", "k80")
    rented.laptop.ok("down", "k80")
    rented.laptop.ok("remote", "set", "k80", "--price", "")
    assert "unknown" in rented.laptop.ok("prices", "k80").stdout
    assert "nobody but you knows" in rented.laptop.ok("prices", "k80", "--refresh").stderr


def test_cost_by_remote_and_session_has_the_machines_part(rented: Rented) -> None:
    rented.laptop.ok("up", "k80", "--hours", "10m", "--name", "evening")
    long = rented.laptop.ok("a", "--remote", "k80", "--time-limit", "2h")
    assert "this may take 2 h 00 min, and the session evening ends in" in long.stderr
    rented.laptop.ok("down", "k80")
    assert "evening" in rented.laptop.ok("cost", "--by", "session").stdout
    for by in ("remote", "session"):
        (row,) = rented.laptop.json("cost", "--by", by)
        assert float(row["machine"]["cost"]) > float(row["cost"]["USD"]) > 0
        assert "machine_amount" in rented.laptop.ok("cost", "--by", by, "--csv").stdout
    (row,) = rented.laptop.json("cost")
    assert row["machine"] is None


def test_a_machine_that_cannot_stop_itself_is_stopped_by_who_follows_its_last_run(
    rented: Rented, tmp_path: Path
) -> None:
    never = tmp_path / "never"
    # On a busy machine the command has to have begun by then.
    rented.laptop.ok("up", "k80", "--hours", "12s")
    ended = rented.laptop.train("a", "--remote", "k80", "-p", f"until={never}")
    assert ended.returncode == 1
    assert "the session's end has come: k80 is to be off" in ended.stderr
    assert rented.power == "stopped-free"
    (session,) = rented.laptop.json("session", "list")
    assert session["ended_at"] is not None


def test_a_machine_whose_session_goes_on_stays_on_after_a_run(rented: Rented) -> None:
    rented.laptop.ok("up", "k80", "--hours", "1", "--budget", "5")
    rented.laptop.ok("a", "--remote", "k80")
    assert rented.power == "running"


def test_a_machine_that_went_off_by_itself_has_cost_what_it_was_seen_on(rented: Rented) -> None:
    for _ in range(2):
        rented.laptop.ok("up", "k80", "--idle", "1m")
        rented.laptop.ok("a", "--remote", "k80")
        rented.power = "stopped-free"
        rented.laptop.ok("session", "status")
        session = rented.laptop.json("session", "list")[-1]
        assert session["paid_s"] > 0
        assert session["estimated"]
        rented.laptop.ok("down", "k80")
    for session in rented.laptop.json("session", "list"):
        assert session["paid_s"] > 0


def test_a_mistake_in_train_yaml_keeps_no_machine_on(rented: Rented) -> None:
    rented.laptop.ok("up", "k80")
    with (rented.laptop.root / "train.yaml").open("a") as file:
        file.write("  broken: {}\n")
    down = rented.laptop.ok("down", "k80")
    assert rented.power == "stopped-free"
    assert "jobs.broken" in down.stderr
