"""train.yaml and remotes.yaml: what is understood, and what a mistake in them looks like."""

from __future__ import annotations

import time
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.duration import parse_duration
from orchestrator.errors import ConfigError, UsageError
from orchestrator.settings import home
from orchestrator.settings.config import (
    find_remote,
    format_remotes,
    known_remotes,
    load_remotes,
    load_workspace,
    parse_remotes,
    parse_workspace,
)
from orchestrator.settings.node import nearest
from orchestrator.settings.spec import CloudSpec, EnvSpec, Job, Price, Remote, Workspace

FULL = """\
remotes:
  azure-k80:
    host: 203.0.113.7            # a comment
    user: azureuser
    port: 2222
    key: ~/.ssh/azure
    gpus: auto
    price: {per_hour: 0.50, currency: EUR, disk_per_hour: .01}
    cloud: {provider: azure, subscription: 1e3, resource_group: rg, vm: 7, spot: true}
    env: {python: python3.8, requirements: ./requirements.txt}
jobs:
  category3:
    command: python category3/category3.py
    outputs: [category3/mymodel.h5, category3//*.json]
    data: [data/]
    gpus: 0
    time_limit: 1h30m
    metrics: off
    env: {python: python3.9}
"""


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINSHED_HOME", str(tmp_path / "home"))


def parse(text: str) -> Workspace:
    return parse_workspace(text, Path("/w/train.yaml"))


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return str(caught.value).split("\n")


def job(lines: str) -> str:
    return f"jobs:\n  a:\n    command: x\n    outputs: []\n    {lines}\n"


def remote(lines: str) -> str:
    return f"remotes:\n  r:\n    host: h\n    {lines}\n"


@pytest.mark.parametrize(
    "address", ["http://me:s3cret@tracking.example", "me:s3cret@host", "https://token@h:5000/x"]
)
def test_a_login_in_what_is_sent_to_machines_is_refused_and_not_shown(address: str) -> None:
    (problem,) = problems(f"mlflow: {address}")
    assert problem.startswith("/w/train.yaml:1: mlflow: expected an address without a login")
    assert "MLFLOW_TRACKING_PASSWORD" in problem
    assert "s3cret" not in problem
    assert "token" not in problem


@pytest.mark.parametrize("address", ["tracking.example:5000", "sqlite:///runs.db", "http://", "on"])
def test_a_tracking_server_is_an_address_of_the_web(address: str) -> None:
    (problem,) = problems(f"mlflow: '{address}'")
    assert "expected the address of a tracking server" in problem
    assert parse("mlflow: https://tracking.example/x").mlflow == "https://tracking.example/x"


def test_every_key_reaches_its_record() -> None:
    assert parse(FULL) == Workspace(
        Path("/w"),
        (
            Job(
                "category3",
                "python category3/category3.py",
                ("category3/mymodel.h5", "category3/*.json"),
                ("data",),
                0,
                5400.0,
                False,
                EnvSpec("python3.9"),
            ),
        ),
        (
            Remote(
                "azure-k80",
                "203.0.113.7",
                "azureuser",
                2222,
                "~/.ssh/azure",
                None,
                Price(Decimal("0.50"), "EUR", Decimal("0.01")),
                EnvSpec("python3.8", "requirements.txt"),
                CloudSpec(
                    "azure",
                    (
                        ("resource_group", "rg"),
                        ("spot", "true"),
                        ("subscription", "1e3"),
                        ("vm", "7"),
                    ),
                ),
            ),
        ),
    )


def test_a_price_keeps_every_digit_of_its_text() -> None:
    price = parse(remote("price: {per_hour: 0.100000000001}")).remotes[0].price
    assert price == Price(Decimal("0.100000000001"))


@pytest.mark.parametrize(
    ("text", "restarts"),
    [("never", 0), ("on-interruption", 3), ("{at_most: 5}", 5), ("{at_most: 100}", 100)],
)
def test_a_job_says_how_often_it_is_restarted(text: str, restarts: int) -> None:
    (made,) = parse(f"jobs: {{a: {{command: x, outputs: [a], restart: {text}}}}}").jobs
    assert made.restarts == restarts


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("on-interuption", "{at_most: 5} (on-interruption?), found the text 'on-interuption'"),
        ("yes", "expected never, on-interruption or {at_most: 5}, found the switch 'yes'"),
        ("[never]", "expected never, on-interruption or {at_most: 5}, found a list"),
        ("{at_most: 0}", "restart.at_most: expected a number of restarts from 1 to 100"),
        ("{at_mots: 2}", "found an unknown key; did you mean at_most?"),
        ("{}", "restart.at_most: expected this key, found nothing"),
    ],
)
def test_what_is_no_rule_for_restarts_is_told_with_the_nearest(text: str, problem: str) -> None:
    found = problems(f"jobs: {{a: {{command: x, outputs: [a], restart: {text}}}}}")
    assert any(problem in each for each in found), found


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "jobs:\n", "jobs:\nremotes: ~\n"])
def test_a_file_that_says_nothing_is_an_empty_workspace(text: str) -> None:
    assert parse(text) == Workspace(Path("/w"))


def test_all_mistakes_are_shown_at_once_with_line_key_expected_and_found() -> None:
    text = """\
jobs:
  category3: {command: python a.py, outputs: [a.h5, ../x], time_limt: 40m}
  category3: {}
  bad name: {}
  b:
    gpus: -1
remote: {}
"""
    assert problems(text) == [
        "/w/train.yaml:2: jobs.category3.outputs[1]: expected a path below the workspace with "
        "forward slashes, without '..', found the text '../x'",
        "/w/train.yaml:2: jobs.category3.time_limt: expected one of command, outputs, data, gpus, "
        "nodes, time_limit, metrics, tensorboard, restart, check, env, found an unknown key; "
        "did you mean time_limit?",
        "/w/train.yaml:3: jobs.category3: expected each key once, found it again; it stands on "
        "line 2",
        "/w/train.yaml:4: jobs.bad name: expected a name of at most 64 letters, digits, - _ and ., "
        "a letter or digit first",
        "/w/train.yaml:6: jobs.b.gpus: expected a number of GPUs, 0 or more, found the number '-1'",
        "/w/train.yaml:6: jobs.b.command: expected this key, found nothing",
        "/w/train.yaml:6: jobs.b.outputs: expected this key, found nothing",
        "/w/train.yaml:7: remote: expected one of remotes, jobs, exam_environment, notify, mlflow, "
        "found an unknown key; did you mean remotes?",
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (job("time_limit: 40"), "jobs.a.time_limit: expected a duration"),
        (job("time_limit: 0m"), "expected a duration above 0"),
        (job("time_limit: 1:30"), "found the number '1:30'"),
        (job("metrics: maybe"), "expected on or off"),
        (job("metrics: off\n    tensorboard: on"), "expected metrics: on beside tensorboard: on"),
        (job("gpus: '1'"), "found the text '1'"),
        (job("gpus: 010"), "found the number '010'"),
        (job("gpus: 1.0"), "found the number '1.0'"),
        (job("gpus: 99999999999999999999"), "expected a number of GPUs"),
        (job("data: data"), "jobs.a.data: expected a list"),
        (job("data: [{a: b}]"), "jobs.a.data[0]: expected one line of text, found a mapping"),
        (job("data: [/data]"), "expected a path below the workspace"),
        (job("data: [.]"), "expected a path below the workspace"),
        (job("data: ['a\\b']"), "expected a path below the workspace"),
        (job("data: ['C:/x']"), "expected a path below the workspace"),
        (job("data: ['~/x']"), "expected a path below the workspace"),
        (job('data: ["a\\0b"]'), "expected one line of text"),
        (job("data: ['data*']"), "expected folders by name"),
        (job("data: [d, d/e]"), "'d/e' is in 'd'"),
        (job("env: {python: 3.8}"), "expected one line of text in quotes, found the number '3.8'"),
        (job("env: python3"), "jobs.a.env: expected a mapping"),
        ("jobs: {a: {command: x, outputs: [d/m.h5], data: [d]}}", "'d/m.h5' in 'd'"),
        ("jobs: {a: {command: '', outputs: []}}", "jobs.a.command: expected one line of text"),
        ("jobs: {a: {command: true, outputs: []}}", "in quotes, found the switch 'true'"),
        ('jobs: {a: {command: "a\\nb", outputs: []}}', "expected one line of text"),
        ("jobs: {a: }", "jobs.a: expected a mapping (key: value), found nothing"),
        ("jobs: [a]", "jobs: expected a mapping (key: value), found a list"),
        ("just text", "expected a mapping (key: value), found the text 'just text'"),
        ("jobs: {-a: {}}", "jobs.-a: expected a name"),
        (f"jobs: {{{'a' * 65}: {{}}}}", "expected a name of at most 64"),
        ('jobs: {"a\\nb": {}}', "jobs.'a\\nb': expected a name"),
        (remote("port: 0"), "remotes.r.port: expected a port from 1 to 65535"),
        (remote("port: 65536"), "expected a port from 1 to 65535"),
        (remote("user: -oProxyCommand=x"), "expected one word that does not start with '-'"),
        (remote("user: a b"), "expected one word"),
        (remote("gpus: many"), "or auto, found the text 'many'"),
        (remote("price: {per_hour: 0}"), "leave an unknown price out"),
        (remote("price: {per_hour: -0.5}"), "leave an unknown price out"),
        (remote("price: {per_hour: .inf}"), "leave an unknown price out"),
        (remote("price: {per_hour: 0.00}"), "leave an unknown price out"),
        (remote("price: {currency: USD}"), "price.per_hour: expected this key"),
        (remote("price: {per_hour: 1, currency: usd}"), "three capitals"),
        (remote("cloud: {vm: a}"), "cloud.provider: expected this key"),
        (remote("cloud: {provider: azure, vm: [a]}"), "cloud.vm: expected a single value"),
        ("remotes: {r: {user: u}}", "remotes.r.host: expected this key, found nothing"),
        ("jobs:\n\ta: {}", "/w/train.yaml:2: expected spaces, found a tab"),
        ("jobs: {}\n---\njobs: {}", "/w/train.yaml:2: expected one document, found a second"),
        ("jobs: {a: [}", "/w/train.yaml:1: "),
        (
            "jobs: {}\n# \x07",
            "/w/train.yaml:2: expected printable text, found the character U+0007",
        ),
        ("? [a]\n: b", "expected a single value as a key"),
        ("jobs: !!python/object/apply:os.system [touch /tmp/x]", "found the tag"),
        ("jobs: !!str x", "found the tag"),
        ("jobs: &a [*a]", "expected an anchor &a before, found none"),
    ],
)
def test_a_mistake_says_what_was_expected_and_found(text: str, says: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("/w/train.yaml:")
    assert says in problem


def test_a_mistake_that_was_copied_is_told_once_with_every_place() -> None:
    text = "jobs:\n" + "".join(
        f"  category{n}: {{command: x, outputs: [], time_limt: 4m, gpu: {n % 2}}}\n"
        for n in range(1, 6)
    )
    first, second = problems(text)
    assert first == (
        "/w/train.yaml:2: jobs.category1.time_limt: expected one of command, outputs, data, gpus, "
        "nodes, time_limit, metrics, tensorboard, restart, check, env, found an unknown key; "
        "did you mean time_limit? "
        "(the same: "
        + "; ".join(f"jobs.category{n}.time_limt on line {n + 1}" for n in range(2, 6))
        + ")"
    )
    assert second.startswith("/w/train.yaml:2: jobs.category1.gpu: expected")


def test_mistakes_that_differ_in_what_was_found_are_told_apart() -> None:
    both = problems(job("gpus: -1") + "  b: {command: x, outputs: [], gpus: -2}\n")
    assert [line.rpartition("found ")[2] for line in both] == ["the number '-1'", "the number '-2'"]


@pytest.mark.parametrize(
    "text", ["jobs:\n  a: [x\n  b: {", "jobs:\n  a: x: y\n", "jobs: 'a", "a: *", "a: \xe9: :\n"]
)
def test_what_is_no_yaml_is_told_without_a_word_of_python(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    told = caught.value.render()
    assert told.startswith("error: /w/train.yaml:")
    assert "\nfix:   see whether quotes" in told
    assert not any(word in told for word in ("Error", "Exception", "unicode string", "None"))


def test_a_file_that_cannot_be_read_says_why_in_words(tmp_path: Path) -> None:
    (tmp_path / "remotes.yaml").mkdir()
    with pytest.raises(ConfigError) as caught:
        load_remotes(tmp_path / "remotes.yaml")
    assert caught.value.render().splitlines()[1] == "cause: is a directory"


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("categry3", "category3"),
        ("category33", "category3"),
        # As near to all of them: a guess would be wrong four times in five.
        ("category6", ""),
        ("x", ""),
        ("", ""),
    ],
)
def test_only_what_is_nearest_alone_was_probably_meant(word: str, near: str) -> None:
    assert nearest(word, [f"category{n}" for n in range(1, 6)]) == near


@pytest.mark.parametrize("word", ["on", "ON", "yes", "true", "'on'"])
def test_a_switch_is_on_in_yaml_and_in_quotes(word: str) -> None:
    assert parse(job(f"metrics: {word}")).jobs[0].metrics


@pytest.mark.parametrize("word", ["none", "null", "~", ""])
def test_no_time_limit_can_be_said(word: str) -> None:
    assert parse(job(f"time_limit: {word}")).jobs[0].time_limit_s is None


def test_a_command_may_be_a_folded_block() -> None:
    text = "jobs:\n  a:\n    command: >\n      python a.py\n      --fast\n    outputs: []\n"
    assert parse(text).jobs[0].command == "python a.py --fast"


def test_names_that_yaml_takes_for_something_else_are_names() -> None:
    text = "jobs: {on: {command: x, outputs: []}, 1.5: {command: x, outputs: []}}"
    assert [job.name for job in parse(text).jobs] == ["on", "1.5"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" * 500_000, "expected at most 20 levels"),
        ("jobs: " + "{a: " * 30 + "}" * 30, "expected at most 20 levels"),
        ("- a\n" * 11_000, "expected at most 10000 values"),
        ("a: &a [x]\nb: [" + "*a," * 51 + "]", "expected at most 50 aliases"),
        (
            "a: &a [" + "x," * 900 + "]\nb: &b [" + "*a," * 9 + "]\nc: [" + "*b," * 9 + "]",
            "expected at most 10000 values",
        ),
    ],
)
def test_a_bomb_is_refused_before_it_goes_off(text: str, says: str) -> None:
    started = time.monotonic()
    (problem,) = problems(text)
    assert says in problem
    assert time.monotonic() - started < 10


def test_an_alias_says_the_same_again() -> None:
    text = "jobs:\n  a: &a {command: x, outputs: []}\n  b: *a\n"
    assert [job.command for job in parse(text).jobs] == ["x", "x"]


@given(st.text(max_size=200))
def test_any_text_is_a_workspace_or_a_config_error(text: str) -> None:
    message = "/w/train.yaml:"
    try:
        parse(text)
    except ConfigError as error:
        message = str(error)
    assert message.startswith("/w/train.yaml:")


def test_the_workspace_is_found_from_any_folder_in_it(tmp_path: Path) -> None:
    deep = tmp_path / "w" / "a b" / "c"
    deep.mkdir(parents=True)
    (tmp_path / "w" / "train.yaml").write_text(FULL)
    workspace = load_workspace(deep)
    assert workspace.root == tmp_path / "w"
    assert [job.name for job in workspace.jobs] == ["category3"]


def test_no_workspace_is_an_error_that_names_train_init(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no train\.yaml in") as caught:
        load_workspace(tmp_path)
    assert "train init" in caught.value.fix


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"jobs:\n  a: \xff\n", ":2: expected UTF-8 text, found the byte 0xff"),
        ("jobs:".encode("utf-16"), ":1: expected UTF-8 text"),
        (b"#" * ((1 << 20) + 1), "expected at most 1048576 bytes"),
    ],
)
def test_bytes_that_are_no_config_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "train.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_workspace(tmp_path)
    assert says in str(caught.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_bytes(b"\xef\xbb\xbfjobs:\r\n")
    assert load_workspace(tmp_path) == Workspace(tmp_path)


def test_a_workspace_adds_to_the_users_remote_key_by_key() -> None:
    home.remotes_file().write_text(FULL.partition("jobs:")[0])
    text = "remotes:\n  azure-k80:\n    gpus: 2\n    price: {per_hour: 1}\n    env: {python: p}\n"
    (merged,) = parse(text).remotes
    assert (merged.host, merged.port, merged.gpus) == ("203.0.113.7", 2222, 2)
    assert merged.price == Price(Decimal(1), "EUR", Decimal("0.01"))
    assert merged.env == EnvSpec("p", "requirements.txt")
    assert merged.cloud is not None


def test_a_broken_remotes_file_stops_only_who_needs_it() -> None:
    home.remotes_file().write_text("remotes: 1")
    assert parse(job("gpus: 1")).jobs
    with pytest.raises(ConfigError, match=r"remotes\.yaml:1: remotes: expected a mapping"):
        parse("remotes: {a: {gpus: 1}}")


def test_a_users_file_holds_no_jobs() -> None:
    with pytest.raises(ConfigError, match="jobs: expected one of remotes"):
        parse_remotes("jobs: {}", Path("remotes.yaml"))


def test_a_remote_is_found_in_the_workspace_first_and_then_in_the_users_file() -> None:
    home.remotes_file().write_text("remotes: {a: {host: user}, b: {host: user}}")
    workspace = Workspace(Path("/w"), (), (Remote("a", "workspace"),))
    assert find_remote(workspace, "a").host == "workspace"
    assert find_remote(workspace, "b").host == "user"
    assert find_remote(None, "a").host == "user"
    assert [remote.name for remote in known_remotes(workspace)] == ["a", "b"]


def test_an_unknown_remote_lists_the_known_ones_and_the_nearest() -> None:
    workspace = Workspace(Path("/w"), (), (Remote("azure-k80", "h"), Remote("lab", "h")))
    with pytest.raises(UsageError, match="'azure-k8'") as caught:
        find_remote(workspace, "azure-k8")
    assert caught.value.cause == "the known remotes are azure-k80, lab"
    assert caught.value.fix == "did you mean azure-k80?"
    with pytest.raises(UsageError) as caught:
        find_remote(None, "x")
    assert caught.value.fix == "train remote add NAME --host ADDRESS"


def test_where_no_remote_is_named_the_command_is_offered_with_the_only_one() -> None:
    def fix(*names: str, categories: tuple[str, ...] = ()) -> str:
        workspace = Workspace(Path("/w"), (), tuple(Remote(name, "h") for name in names))
        with pytest.raises(UsageError, match="no remote was named") as caught:
            find_remote(workspace, "", categories)
        return caught.value.fix

    assert fix("lab") == "train --remote lab"
    assert fix("lab", categories=("category3", "a b")) == "train category3 'a b' --remote lab"
    assert fix("lab", "k80", categories=("category3",)) == "train category3 --remote NAME"
    assert fix() == "train remote add NAME --host ADDRESS"


def test_no_remotes_file_is_no_remotes(tmp_path: Path) -> None:
    assert load_remotes(tmp_path / "none.yaml") == ()


words = st.from_regex(r"[A-Za-z0-9_./~:é]{1,12}", fullmatch=True)
amounts = st.decimals("0.000000001", "999999", allow_nan=False, places=9)
remotes = st.builds(
    Remote,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    host=words,
    user=st.none() | words,
    port=st.none() | st.integers(1, 65535),
    key=st.none() | words,
    gpus=st.none() | st.integers(0, 16),
    price=st.none() | st.builds(Price, amounts, st.just("EUR"), st.none() | amounts),
    env=st.builds(EnvSpec, words, st.sampled_from([None, "requirements.txt", "on"])),
    cloud=st.none()
    | st.builds(
        CloudSpec,
        words,
        st.dictionaries(words.filter(lambda word: word != "provider"), words, max_size=3).map(
            lambda options: tuple(sorted(options.items()))
        ),
    ),
)


@given(st.lists(remotes, max_size=4, unique_by=lambda remote: remote.name))
def test_remotes_written_as_text_are_read_back_the_same(written: list[Remote]) -> None:
    assert parse_remotes(format_remotes(written), Path("r")) == tuple(written)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("40m", 2400), ("1h30m", 5400), ("90s", 90), ("1d 2h", 93600), (" 5m ", 300), ("0s", 0)],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "40", "m", "1m1h", "1.5h", "-1m", "1h1h", "٣m", "9" * 5000 + "s", "1 m"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_the_exams_tensorflow_is_taken_as_it_is_written() -> None:
    assert parse("exam_environment: {tensorflow: 2.10}").exam_tensorflow == "2.10"
    assert parse("exam_environment: {tensorflow: '2.5'}").exam_tensorflow == "2.5"
    with pytest.raises(ConfigError, match=r"a version of TensorFlow such as 2\.5"):
        parse("exam_environment: {tensorflow: old}")
