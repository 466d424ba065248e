"""The user's remotes file, and the folders it stands in."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError, UsageError
from orchestrator.records.ledger import Ledger, RunFact
from orchestrator.records.mirror import Mirrors
from orchestrator.settings import home
from orchestrator.settings.config import load_month_limit, load_remotes
from orchestrator.settings.remotes import Said, add_remote, change_remote, changed, remove_remote
from orchestrator.settings.spec import CloudSpec, EnvSpec, MonthLimit, Price, Remote
from remote.runfolder import RunRequest
from tests.laptop import Laptop, make_laptop
from tests.servers import HOST, Relay, SshServer, make_key

AZURE = Remote(
    "azure-k80",
    "203.0.113.7",
    price=Price(Decimal("0.50")),
    cloud=CloudSpec("azure", (("vm", "7"),)),
)
LAB = Remote("lab", "lab.example")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "remotes.yaml"


def test_what_is_added_is_there_until_it_is_removed(path: Path) -> None:
    add_remote(path, AZURE)
    add_remote(path, LAB)
    assert load_remotes(path) == (AZURE, LAB)
    assert remove_remote(path, "azure-k80") == AZURE
    assert load_remotes(path) == (LAB,)
    remove_remote(path, "lab")
    assert load_remotes(path) == ()


def test_a_name_is_taken_once(path: Path) -> None:
    add_remote(path, LAB)
    with pytest.raises(UsageError, match="'lab' exists already"):
        add_remote(path, Remote("lab", "elsewhere"))
    assert load_remotes(path) == (LAB,)


def test_removing_what_is_not_there_says_what_is(path: Path) -> None:
    add_remote(path, LAB)
    with pytest.raises(UsageError, match="'lap'") as caught:
        remove_remote(path, "lap")
    assert caught.value.cause == "it holds lab"


@pytest.mark.parametrize(
    ("said", "change"),
    [
        (Said(), {}),
        (Said(host="h2"), {"host": "h2"}),
        (Said(port=22, user="u", gpus=0), {"port": 22, "user": "u", "gpus": 0}),
        (Said(port="", user="", gpus="", key=""), dict.fromkeys(("port", "user", "gpus", "key"))),
        (Said(price="0.60"), {"price": Price(Decimal("0.60"), "EUR", Decimal("0.01"))}),
        (Said(currency="USD"), {"price": Price(Decimal("0.50"), "USD", Decimal("0.01"))}),
        (Said(price=""), {"price": None}),
        (Said(python="p"), {"env": EnvSpec("p", "r.txt")}),
        (Said(python=""), {"env": EnvSpec(None, "r.txt")}),
        (Said(requirements=""), {"env": EnvSpec("python3.8")}),
    ],
)
def test_only_what_is_said_changes_and_what_is_empty_goes(
    path: Path, said: Said, change: dict[str, Any]
) -> None:
    full = Remote(
        *("k80", "h", "ann", 2222, "/k", 1),
        Price(Decimal("0.50"), "EUR", Decimal("0.01")),
        EnvSpec("python3.8", "r.txt"),
        CloudSpec("azure", (("vm", "7"),)),
    )
    for remote in (LAB, full, AZURE):
        add_remote(path, remote)
    new = change_remote(path, "k80", partial(changed, said=said))

    assert new == replace(full, **change)
    assert load_remotes(path) == (LAB, new, AZURE)


def test_what_of_a_price_makes_no_sense_is_refused() -> None:
    for text in ("nan", "-1", "0", "x", "inf"):
        with pytest.raises(UsageError, match="--price takes"):
            changed(AZURE, Said(price=text))
    for said in (Said(currency="EUR"), Said(price="", currency="EUR")):
        with pytest.raises(UsageError, match="--currency EUR needs a price"):
            changed(LAB, said)


def test_changing_what_is_not_there_says_what_is_and_writes_nothing(path: Path) -> None:
    add_remote(path, AZURE)
    before = path.stat()
    with pytest.raises(UsageError, match="'azure-k8'") as caught:
        change_remote(path, "azure-k8", lambda remote: remote)
    assert caught.value.fix == "did you mean azure-k80?"
    assert path.stat() == before


def test_a_change_that_could_not_be_read_back_is_not_written(path: Path) -> None:
    add_remote(path, LAB)
    with pytest.raises(ConfigError):
        change_remote(path, "lab", partial(changed, said=Said(host="-oX")))
    with pytest.raises(ConfigError):
        change_remote(path, "lab", partial(changed, said=Said(port=0)))
    assert load_remotes(path) == (LAB,)


@pytest.mark.parametrize(
    "remote",
    [
        Remote("bad name", "h"),
        Remote("a", "-oProxyCommand=x"),
        Remote("a", "h\nb"),
        Remote("a", "h", price=Price(Decimal(0))),
        Remote("a", "h", price=Price(Decimal("NaN"))),
        Remote("a", "h", port=0),
    ],
)
def test_a_remote_that_could_not_be_read_back_is_not_written(path: Path, remote: Remote) -> None:
    add_remote(path, LAB)
    with pytest.raises(ConfigError):
        add_remote(path, remote)
    assert load_remotes(path) == (LAB,)


def test_a_broken_file_is_not_overwritten(path: Path) -> None:
    path.write_text("remotes: [")
    with pytest.raises(ConfigError):
        add_remote(path, LAB)
    assert path.read_text() == "remotes: ["


def test_only_the_user_can_read_the_file(path: Path) -> None:
    add_remote(path, LAB)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_months_budget_of_all_remotes_stays_when_one_changes(path: Path) -> None:
    path.write_text("budget: {month: 30, currency: EUR}\n")
    add_remote(path, Remote("k80", "203.0.113.7"))
    remove_remote(path, "k80")
    assert load_month_limit(path) == MonthLimit(Decimal(30), "EUR")


def test_a_file_that_is_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "dotfiles.yaml"
    target.write_text("")
    path.symlink_to(target)
    add_remote(path, LAB)
    assert path.is_symlink()
    assert load_remotes(target) == (LAB,)


def test_a_folder_that_is_missing_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        add_remote(tmp_path / "none" / "remotes.yaml", LAB)


def _add_some(path: Path, start: int) -> None:
    for number in range(start, start + 10):
        add_remote(path, Remote(f"r{number}", "h"))


def test_two_that_add_at_once_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    adders = [context.Process(target=_add_some, args=(path, start)) for start in (0, 10, 20)]
    for adder in adders:
        adder.start()
    for adder in adders:
        adder.join()
    assert {remote.name for remote in load_remotes(path)} == {f"r{n}" for n in range(30)}


def test_the_users_folders_are_made_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path / "a b" / "é"))
    assert home.config_folder() == home.data_folder() == tmp_path / "a b" / "é"
    assert stat.S_IMODE(home.data_folder().stat().st_mode) == 0o700


def test_without_the_override_the_folders_are_the_platforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert {home.config_folder().name, home.data_folder().name} == {"trainshed"}
    assert home.config_folder() != home.data_folder()
    assert home.remotes_file().is_relative_to(tmp_path)


def test_a_relative_override_does_not_move_with_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRAINSHED_HOME", "mine")
    assert home.data_folder() == tmp_path / "mine"


def test_a_file_in_the_folders_place_is_an_error_that_names_the_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TRAINSHED_HOME", os.fspath(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot make the folder") as caught:
        home.data_folder()
    assert "TRAINSHED_HOME" in caught.value.fix
    assert caught.value.cause == "file exists"


# `train remote set`, as a user types it


@pytest.fixture
def laptop(tmp_path: Path, embedded_server: SshServer) -> Laptop:
    """Knows the remotes `vm`, which is there, and `lab`, which nobody asks."""
    laptop = make_laptop(tmp_path, embedded_server)
    laptop.add_remote(embedded_server, "lab", port=1)
    return laptop


@pytest.fixture
def moved(embedded_server: SshServer) -> Iterator[int]:
    """Another port at which the machine `vm` is reached too."""
    with Relay(embedded_server.port) as relay:
        yield relay.port


def known(laptop: Laptop) -> dict[str, Remote]:
    return {remote.name: remote for remote in load_remotes(laptop.home / "remotes.yaml")}


def fingerprint(laptop: Laptop) -> str:
    """The real one of the machine `vm`."""
    done = laptop.ok("remote", "set", "vm", "--port", str(known(laptop)["vm"].port))
    assert done.stdout.startswith("vm: as it was\n")
    (found,) = {
        check["found"].partition(",")[0]
        for check in laptop.json("doctor", "vm")
        if check["check"] == "host key"
    }
    return str(found)


def test_what_is_typed_changes_and_the_rest_stays(laptop: Laptop) -> None:
    before = known(laptop)
    words = ["--price", "0.75", "--currency", "EUR", "--gpus", "", "--python", "/p y"]
    done = laptop.ok("remote", "set", "lab", *words)

    assert done.stdout == (
        "lab: gpus 0 -> auto; price per hour 0.50 -> 0.75; currency USD -> EUR; "
        "python python3 -> /p y\nNext: train doctor lab\n"
    )
    lab = replace(
        before["lab"], gpus=None, price=Price(Decimal("0.75"), "EUR"), env=EnvSpec("/p y")
    )
    assert known(laptop) == {**before, "lab": lab}


def test_at_another_port_the_host_key_is_unknown_until_it_is_accepted(
    laptop: Laptop, moved: int
) -> None:
    before, files = known(laptop), {path: path.read_text() for path in laptop.home.glob("*s*")}
    words = ["remote", "set", "vm", "--port", str(moved), "--price", "0.60"]
    wrong = laptop.train(*words, "--accept-host-key", "SHA256:" + "x" * 43)
    refused = laptop.train(*words)
    assert (wrong.returncode, refused.returncode) == (3, 3)
    assert {path: path.read_text() for path in files} == files

    (shown,) = re.findall("--accept-host-key (SHA256:.*)", refused.stderr)
    done = laptop.ok(*words, "--accept-host-key", shown)
    assert f"; its ssh-ed25519 host key is {shown}\n" in done.stdout
    vm = replace(before["vm"], port=moved, price=Price(Decimal("0.60")))
    assert known(laptop) == {**before, "vm": vm}
    assert laptop.train("doctor", "vm").returncode == 0


def test_at_a_terminal_another_ports_host_key_is_asked_about(laptop: Laptop, moved: int) -> None:
    words = ("remote", "set", "vm", "--port", str(moved))
    no = laptop.at_terminal(*words, answers={"[y/N]": "n"})
    assert no.returncode == 3
    assert known(laptop)["vm"].port != moved

    yes = laptop.at_terminal(*words, answers={"[y/N]": "y"})
    assert yes.returncode == 0, yes.stdout
    assert known(laptop)["vm"].port == moved


def test_a_machine_made_anew_is_accepted_by_its_new_fingerprint_alone(
    laptop: Laptop, tmp_path: Path
) -> None:
    new = fingerprint(laptop)
    kind, blob, _ = make_key(tmp_path / "old").with_suffix(".pub").read_text().split()
    file, place = laptop.home / "known_hosts", f"[{HOST}]:{known(laptop)['vm'].port}"
    file.write_text(f"{place} {kind} {blob}\nother {kind} {blob}\n")
    before = file.read_text()

    wrong = ("--accept-host-key", "SHA256:" + "x" * 43)
    for words in (("doctor", "vm"), ("doctor", "vm", *wrong), ("remote", "set", "vm", *wrong)):
        refused = laptop.train(*words)
        assert refused.returncode == 3
        told = refused.stdout + refused.stderr
        assert f"--accept-host-key {new}" in told
        assert shlex.join(["ssh-keygen", "-f", str(file), "-R", place]) in told
        assert file.read_text() == before

    done = laptop.ok("remote", "set", "vm", "--accept-host-key", new)
    assert done.stdout == (
        f"vm: as it was; its ssh-ed25519 host key is {new}\nNext: train doctor vm\n"
    )
    assert file.read_text().splitlines()[0] == f"other {kind} {blob}"
    assert place in file.read_text().splitlines()[1]
    assert laptop.train("doctor", "vm").returncode == 0


def test_an_old_key_in_the_users_own_known_hosts_is_left_there(
    laptop: Laptop, tmp_path: Path, ssh_config: Path
) -> None:
    new = fingerprint(laptop)
    kind, blob, _ = make_key(tmp_path / "old").with_suffix(".pub").read_text().split()
    (laptop.home / "known_hosts").unlink()
    theirs = tmp_path / "theirs"
    theirs.write_text(f"[{HOST}]:{known(laptop)['vm'].port} {kind} {blob}\n")
    before = theirs.read_text()
    ssh_config.write_text(f"UserKnownHostsFile {theirs}\n" + ssh_config.read_text())

    refused = laptop.train("remote", "set", "vm", "--accept-host-key", new)
    assert refused.returncode == 3
    assert f"ssh-keygen -f {theirs} -R " in refused.stderr
    assert theirs.read_text() == before
    assert not (laptop.home / "known_hosts").exists()


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (["vm"], "nothing was said to change of vm", "train remote set vm --price 0.50"),
        (["vmm", "--price", "1"], "no remote is named 'vmm' in ", "did you mean vm?"),
        (["vm", "--price", "no"], "--price takes an amount", "leave it out"),
        (["vm", "--host", ""], "remotes.vm.host: expected one line", "train remote set -h"),
        (["vm", "--host", "-oX"], "remotes.vm.host: expected one word", "train remote set -h"),
        (["vm", "--currency", "usd"], "expected a currency", "train remote set -h"),
        (["vm", "--port", "x"], "'--port': 'x' is not a valid whole number", "train remote set"),
        (["vm", "--key", "/no/k"], "there is no key file /no/k", "--key takes a private key"),
        (["here", "--price", "1"], "train.yaml, which `train remote set`", "remotes: here:"),
    ],
)
def test_what_cannot_be_changed_is_told_with_a_fix_and_changes_nothing(
    laptop: Laptop, words: list[str], error: str, fix: str
) -> None:
    (laptop.root / "train.yaml").write_text("remotes: {here: {host: h}}\njobs:\n")
    before = known(laptop)
    done = laptop.train("remote", "set", *words)

    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert error in lines[0]
    assert lines[-1].startswith("fix:   ")
    assert fix in lines[-1]
    assert known(laptop) == before


def test_a_pool_has_no_address_that_could_be_set(laptop: Laptop) -> None:
    file = laptop.home / "remotes.yaml"
    before = file.read_text()
    pool = f"{before}  hall: {{hosts: [vm, 203.0.113.7]}}\n"
    file.write_text(pool)
    done = laptop.train("remote", "set", "hall", "--host", "203.0.113.8")

    assert done.returncode == 2
    assert "hall is a pool of 2 hosts" in done.stderr
    assert "fix:   train remote set hall --hosts vm,203.0.113.7" in done.stderr
    assert file.read_text() == pool
    file.write_text(before)


def test_a_key_file_that_is_gone_does_not_stop_a_change_of_the_price(laptop: Laptop) -> None:
    change_remote(laptop.home / "remotes.yaml", "vm", partial(changed, said=Said(key="/gone")))
    laptop.ok("remote", "set", "vm", "--price", "1")

    assert known(laptop)["vm"].price == Price(Decimal(1))


def test_where_the_workspace_says_more_of_a_remote_that_is_told(laptop: Laptop) -> None:
    file = laptop.root / "train.yaml"
    file.write_text("remotes: {vm: {price: {per_hour: 2}}}\njobs:\n")
    done = laptop.ok("remote", "set", "vm", "--price", "1")

    assert f"! {file} says more of vm, and goes first in its workspace\n" in done.stderr
    assert known(laptop)["vm"].price == Price(Decimal(1))


def test_the_help_of_set_names_the_file_in_which_the_rest_is_said(laptop: Laptop) -> None:
    told = laptop.ok("remote", "set", "--help").stdout
    assert told.endswith(f"\nYour remotes: {laptop.home / 'remotes.yaml'}\n")


def test_the_doctor_names_the_command_or_the_workspaces_file(laptop: Laptop) -> None:
    file = laptop.root / "train.yaml"
    file.write_text("remotes: {here: {host: 127.0.0.1, port: 1}}\njobs:\n")

    def fix(remote: str) -> str:
        done = laptop.train("doctor", remote, "--json")
        assert done.returncode == 3
        checks = {check["check"]: check for check in json.loads(done.stdout)}
        return str(checks["connection"]["fix"])

    assert fix("lab").endswith(
        "; to correct the remote: train remote set lab --host ADDRESS --port PORT --key FILE"
    )
    assert fix("here").endswith(
        f"in {file}, under remotes: here: host: ADDRESS, port: PORT, key: FILE"
    )


def test_adding_a_name_that_exists_points_to_set(laptop: Laptop) -> None:
    done = laptop.train("remote", "add", "vm", "--host", "1.2.3.4")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "fix:   to change it: train remote set vm --host 1.2.3.4; "
        "to begin anew: train remote remove vm"
    )


def test_pointing_to_set_leaves_out_nothing_that_was_typed(laptop: Laptop, tmp_path: Path) -> None:
    key = tmp_path / "a key"
    key.touch()
    words = ["vm", "--host", "1.2.3.4", "--user", "me", "--port", "2222", "--key", str(key)]
    words += ["--price", "0.50", "--currency", "EUR", "--gpus", "0", "--engine", "slurm"]
    words += ["--python", "python3.8", "--requirements", "r.txt", "--accept-host-key", "SHA256:x"]
    done = laptop.train("remote", "add", *words)

    told = done.stderr.splitlines()[-1].removeprefix("fix:   to change it: ").partition("; ")[0]
    assert shlex.split(told) == ["train", "remote", "set", *words]


def test_a_pools_list_is_changed_but_for_what_still_has_runs(laptop: Laptop) -> None:
    file = laptop.home / "remotes.yaml"
    before = file.read_text()
    laptop.ok("remote", "add", "hall", "--hosts", "203.0.113.7,203.0.113.8:22", "--gpus", "2")
    laptop.ok("remote", "drain", "hall", "203.0.113.7")
    run = "a-20260101-000000-abcd"
    mirror = Mirrors(laptop.root / ".train").make(RunRequest(run, "a", "", "true"))
    at, host = datetime.now(UTC), "hall.203.0.113.7"
    fact = RunFact(run, str(laptop.root), "a", host, "", "true", at, None, "", "")
    with Ledger.open(laptop.home / "ledger.sqlite3") as ledger:
        ledger.add(fact)

    words = ("remote", "set", "hall", "--hosts", "203.0.113.8:22,203.0.113.9")
    done = laptop.train(*words)
    assert done.returncode == 2
    assert f"runs may still go on hall.203.0.113.7: {run}" in done.stderr

    mirror.settle()
    done = laptop.ok(*words)
    told = laptop.json("remote", "show", "hall")
    assert (told["hosts"], told["drained"]) == (["203.0.113.8:22", "203.0.113.9"], [])
    assert told["gpus"] == 2
    assert done.stdout.startswith(
        "hall: hosts 203.0.113.7, 203.0.113.8:22 -> 203.0.113.8:22, 203.0.113.9; "
        "drained 203.0.113.7 -> nothing\n"
    )
    file.write_text(before)


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (("vm", "--hosts", "a,b"), "vm is a machine, and lists none", "train remote add POOL"),
        (("hall", "--hosts", "a,a"), "lists one machine twice", "mend what --hosts says"),
        (("hall", "--hosts", ""), "this cannot be a remote", "train remote set -h"),
    ],
)
def test_a_list_that_makes_no_sense_changes_nothing(
    laptop: Laptop, words: tuple[str, ...], error: str, fix: str
) -> None:
    file = laptop.home / "remotes.yaml"
    before = file.read_text()
    pool = f"{before}  hall: {{hosts: [203.0.113.7]}}\n"
    file.write_text(pool)
    done = laptop.train("remote", "set", *words)

    assert done.returncode == 2
    assert error in done.stderr
    assert fix in done.stderr
    assert file.read_text() == pool
    file.write_text(before)


def test_a_pool_whose_name_is_taken_is_not_pointed_to_set(laptop: Laptop) -> None:
    done = laptop.train("remote", "add", "vm", "--hosts", "a,b")

    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "fix:   to begin anew: train remote remove vm"
