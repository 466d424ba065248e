"""What a pool's list means, and which commands take a pool."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from orchestrator.errors import ConfigError
from orchestrator.settings.config import find_pool, format_remotes, load_remotes, parse_remotes
from orchestrator.settings.pool import Pool, resolve
from orchestrator.settings.spec import Price, Remote
from tests.laptop import Laptop, make_laptop
from tests.servers import free_port

FILE = Path("/home/me/remotes.yaml")
REMOTES = """\
remotes:
  gpu3: {host: 10.0.0.3, user: other}
  lab:
    hosts: [10.0.0.1, "me@10.0.0.2:2222", gpu3, "[fe80::1]:22"]
    user: us
    gpus: 2
    price: {per_hour: 0.5}
  all: {hosts: [lab, cloud.example.org]}
"""


def pool_of(text: str, name: str) -> Pool:
    known = {remote.name: remote for remote in parse_remotes(text, FILE)}
    return resolve(known[name], known)


def test_an_address_takes_what_the_pool_says_and_a_name_is_that_remote() -> None:
    pool = pool_of(REMOTES, "lab")
    price = Price(Decimal("0.5"))
    assert pool.members == (
        Remote("lab.10.0.0.1", "10.0.0.1", "us", gpus=2, price=price),
        Remote("lab.10.0.0.2-2222", "10.0.0.2", "me", 2222, gpus=2, price=price),
        Remote("gpu3", "10.0.0.3", "other"),
        Remote("lab.fe80--1-22", "fe80::1", "us", 22, gpus=2, price=price),
    )


def test_a_pool_in_a_list_means_all_of_its_hosts() -> None:
    names = [member.name for member in pool_of(REMOTES, "all").members]
    assert names == [
        *("lab.10.0.0.1", "lab.10.0.0.2-2222", "gpu3", "lab.fe80--1-22"),
        "all.cloud.example.org",
    ]


def test_what_a_pool_drains_takes_no_runs_in_the_pools_above_it_either() -> None:
    drained = REMOTES.replace("    user: us", "    drained: [gpu3]\n    user: us")
    assert pool_of(drained, "all").drained == {"gpu3"}
    whole = REMOTES.replace("{hosts: [lab,", "{drained: [lab], hosts: [lab,")
    assert pool_of(whole, "all").drained == {
        member.name for member in pool_of(REMOTES, "lab").members
    }


def test_a_pool_is_read_back_as_it_was_written() -> None:
    remotes = parse_remotes(REMOTES.replace("    user", "    drained: [gpu3]\n    user"), FILE)
    assert parse_remotes(format_remotes(remotes), FILE) == remotes


@pytest.mark.parametrize(
    ("hosts", "more", "wrong"),
    [
        ("[lab]", "", "the pool lab leads back to lab: lab > lab"),
        (
            "[other]",
            "\n  other: {hosts: [lab]}",
            "the pool other leads back to lab: lab > other > lab",
        ),
        ("[a, a]", "", "the pool lab lists one machine twice: lab.a"),
        ("[a, 'a:22']", "", "the pool lab lists one machine twice: lab.a and lab.a-22"),
        ("['a:1', a-1]", "", "lists another machine that would be named lab.a-1, too"),
        ("[a]", "\n  lab.a: {host: b}", "lists another machine that would be named lab.a, too"),
        ("[a, one]", "\n  one: {host: a}", "lists one machine twice: lab.a and one"),
        ("[a], drained: [b]", "", "the pool lab drains b, which is none of its hosts"),
        ("[hpc]", "\n  hpc: {host: h, engine: slurm}", "lists hpc, a cluster"),
        ("['a:b']", "", "lists 'a:b', which is neither a remote nor"),
        ("['a:70000']", "", "lists 'a:70000', which is neither a remote nor"),
    ],
)
def test_a_list_that_makes_no_sense_is_told(hosts: str, more: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        pool_of(f"remotes:\n  lab: {{hosts: {hosts}}}{more}\n", "lab")
    assert wrong in str(caught.value)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (
            "{host: a, hosts: [b]}",
            "remotes.lab.hosts: expected host, or hosts of a pool, found both",
        ),
        ("{hosts: [a], cloud: {provider: azure}}", "expected no cloud, budget or engine in a pool"),
        ("{hosts: []}", "remotes.lab.hosts: expected at least one host"),
        ("{user: me}", "remotes.lab.host: expected this key, found nothing"),
    ],
)
def test_a_remote_is_a_machine_or_a_pool(said: str, wrong: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_remotes(f"remotes:\n  lab: {said}\n", FILE)
    assert wrong in str(caught.value)


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    made = make_laptop(tmp_path, None)
    made.add_job("a")
    (made.home / "remotes.yaml").write_text(REMOTES)
    return made


@pytest.mark.parametrize(
    "words",
    [
        ("up", "lab"),
        ("gc", "lab"),
        ("session", "start", "lab"),
        ("run", "-r", "lab", "--up"),
        ("run", "-r", "lab", "--accept-host-key", "SHA256:x"),
        ("doctor", "lab", "--accept-host-key", "SHA256:x"),
    ],
    ids=" ".join,
)
def test_what_is_for_one_machine_names_the_hosts_of_a_pool(
    laptop: Laptop, words: tuple[str, ...]
) -> None:
    done = laptop.train(*words)
    assert done.returncode == 2, done.stderr
    assert "error: lab is a pool of 4 hosts, and this is for one machine" in done.stderr
    assert "cause: they are lab.10.0.0.1, lab.10.0.0.2-2222, gpu3, lab.fe80--1-22" in done.stderr
    assert "fix:   name one of them, such as lab.10.0.0.1" in done.stderr


def test_a_pool_is_listed_with_its_hosts_and_a_member_is_found_by_name(laptop: Laptop) -> None:
    rows = {row["name"]: row for row in laptop.json("remote", "list")}
    assert rows["lab"]["host"] is None
    assert rows["lab"]["hosts"] == ["10.0.0.1", "me@10.0.0.2:2222", "gpu3", "[fe80::1]:22"]
    assert "a pool of 4" in laptop.ok("remote", "list").stdout
    assert laptop.json("remote", "show", "lab.10.0.0.2-2222")["port"] == 2222
    assert "hosts:" in laptop.ok("remote", "show", "lab").stdout


def test_a_pool_is_added_as_one_written_by_hand_would_be(laptop: Laptop) -> None:
    hosts = "10.0.0.1, me@10.0.0.2:2222,gpu3,[fe80::1]:22"
    words = ("--hosts", hosts, "--user", "us", "--gpus", "2", "--price", "0.5")
    laptop.ok("remote", "remove", "lab")
    said = laptop.ok("remote", "add", "lab", *words).stdout
    assert "; a pool of lab.10.0.0.1, lab.10.0.0.2-2222, gpu3, lab.fe80--1-22\n" in said
    assert said.endswith("Next: train doctor lab\n")
    written = {remote.name: remote for remote in parse_remotes(REMOTES, FILE)}
    read = {remote.name: remote for remote in load_remotes(laptop.home / "remotes.yaml")}
    assert read == written


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("--hosts", "a,new"), "the pool new leads back to new"),
        (("--hosts", "gpu3,me@10.0.0.3"), "lists one machine twice: gpu3 and new.10.0.0.3"),
        (("--hosts", "a:b"), "lists 'a:b', which is neither a remote nor"),
        (("--hosts", "a,,b"), "this cannot be a remote: remotes.new.hosts"),
        (("--hosts", ""), "this cannot be a remote: remotes.new.hosts"),
        (("--hosts", "a", "--engine", "slurm"), "expected no cloud, budget or engine in a pool"),
        (("--hosts", "a", "--key", "/no/k"), "there is no key file /no/k"),
        (("--hosts", "a", "--host", "b"), "a machine has a --host, a pool has --hosts"),
        (("--hosts", "a", "--accept-host-key", "SHA256:x"), "is for one machine"),
    ],
)
def test_a_pool_that_makes_no_sense_is_not_added(
    laptop: Laptop, words: tuple[str, ...], wrong: str
) -> None:
    done = laptop.train("remote", "add", "new", *words)
    assert done.returncode == 2
    assert wrong in done.stderr
    assert "fix: " in done.stderr
    assert (laptop.home / "remotes.yaml").read_text() == REMOTES


def test_a_host_is_drained_and_takes_runs_again(
    laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSHED_HOME", str(laptop.home))

    def drained() -> frozenset[str]:
        pool = find_pool(None, "lab")
        assert pool is not None
        return pool.drained

    laptop.ok("remote", "drain", "lab", "gpu3")
    laptop.ok("remote", "drain", "lab", "lab.10.0.0.2-2222")
    assert drained() == {"gpu3", "lab.10.0.0.2-2222"}
    shown = laptop.ok("remote", "list").stdout
    assert "a pool of 4; drained: gpu3, me@10.0.0.2:2222 " in shown
    laptop.ok("remote", "drain", "lab", "gpu3", "--undo")
    assert drained() == {"lab.10.0.0.2-2222"}
    done = laptop.train("remote", "drain", "lab", "gpu4")
    assert done.returncode == 2
    assert "error: gpu4 is no host of lab" in done.stderr


def test_a_pool_whose_hosts_are_all_drained_says_how_to_undo_that(laptop: Laptop) -> None:
    host = f"127.0.0.1:{free_port()}"
    said = {"remotes": {"lab": {"hosts": [host], "drained": [host]}}}
    (laptop.home / "remotes.yaml").write_text(yaml.dump(said))
    done = laptop.train("-r", "lab")
    assert done.returncode == 3
    assert "takes no runs any more" not in done.stderr
    assert "fix:   train remote drain lab HOST --undo" in done.stderr
