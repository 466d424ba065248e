"""Models that want to run code, read, write, fetch, or take all of the memory or the time.

Each file is a real one. What it reaches for is watched: nobody may open it.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from orchestrator.grades.grade import Candidate, Grading, Limits, grade
from orchestrator.grades.verdict import Outcome, Verdict
from tests.faults import forge
from tests.faults.forge import DENSE, function, functional, keras2, layer, sequential
from tests.faults.points import tell
from tests.faults.tripwire import Tripwire
from tests.test_grade import kernel_confines

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="watches files with inotify"),
]

LIMITS = Limits(memory_bytes=2 * 2**30, time_s=60, model_bytes=4_000_000)
GRADER = """\
import numpy as np
INPUT_SHAPE = (4,)
OUTPUT_SHAPE = (1,)
METRIC = "mae"
HIGHER_IS_BETTER = False
THRESHOLDS = (5, 4, 3, 2, 1)
def held_out():
    return np.ones((10, 4), "float32"), np.zeros((10, 1))
def score(y, predictions):
    return np.abs(y - predictions).mean()
"""
Make = Callable[[Path], object]


@dataclass(frozen=True)
class Setting:
    """A workspace of models, and beside it what none of them may touch.

    Attributes:
        canary: a text file; `key` is one in a hidden folder of the home.
    """

    folder: Path
    home: Path
    canary: Path
    key: Path

    def grade(self, limits: Limits = LIMITS, grading: Grading | None = None) -> dict[str, Verdict]:
        """Every model, in the order of their names."""
        files = sorted(path for path in self.folder.iterdir() if path.name != "grader.py")
        asked = [Candidate(path.name, path, self.folder / "grader.py") for path in files]
        return {verdict.category: verdict for verdict in grade(asked, limits, grading=grading)}

    def state(self) -> dict[str, tuple[object, ...]]:
        """What changes when a file is written to, or made another."""
        places = [self.folder, *self.folder.iterdir(), *self.home.rglob("*")]
        # What Keras imports keeps a list of fonts there.
        own = [place for place in places if not {".cache", ".config"} & set(place.parts)]
        facts = {str(place): place.lstat() for place in own}
        return {
            name: (found.st_mode, found.st_size, found.st_mtime_ns, found.st_ino, found.st_uid)
            for name, found in facts.items()
        }


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    folder, home = tmp_path / "work space", tmp_path / "home"
    folder.mkdir()
    (home / ".ssh").mkdir(parents=True)
    (folder / "grader.py").write_text(GRADER)
    canary, key = tmp_path / "canary", home / ".ssh" / "id_ed25519"
    canary.write_text("a\nb\n")
    # What leads to all must not open all.
    (home / "link").symlink_to("/")
    key.write_text("PRIVATE KEY")
    monkeypatch.setenv("HOME", str(home))
    return Setting(folder, home, canary, key)


# --- not even a model


def test_what_is_no_model_is_invalid_and_nothing_else_is_read(setting: Setting) -> None:
    def write(content: bytes) -> Make:
        return lambda path: path.write_bytes(content)

    head = b"\x89HDF\r\n\x1a\n"
    cases: dict[str, tuple[Make, str]] = {
        "empty.h5": (write(b""), "the model file is empty"),
        "pickle.h5": (write(pickle.dumps({"a": 1})), "neither .h5 nor .keras"),
        "text.keras": (write(b"import os\x1b[2J\nos.system('id')"), "begins with b'import os"),
        "folder.h5": (Path.mkdir, "not a file"),
        "pipe.h5": (os.mkfifo, "not a file"),
        "dangling.h5": (lambda path: path.symlink_to("nowhere"), "there is no model file"),
        "circle.h5": (lambda path: path.symlink_to(path.name), "cannot be read"),
        "link to text.h5": (lambda path: path.symlink_to("text.keras"), "begins with b'import os"),
        "zero.h5": (lambda path: path.symlink_to("/dev/zero"), "not a file"),
        "sparse.h5": (lambda path: sparse(path, 2**40), "more than 4000000"),
        "large.h5": (write(head + bytes(4_000_000)), "more than 4000000"),
    }
    for name, (make, _) in cases.items():
        make(setting.folder / name)
    before = setting.state()
    found = setting.grade()

    assert setting.state() == before
    for name, (_, says) in cases.items():
        assert found[name].outcome is Outcome.INVALID
        assert says in found[name].reason, name
        assert found[name].reason.isprintable()
    tell("a file that is no model", len(cases), "invalid, before TensorFlow is started")


def sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.write(b"\x89HDF\r\n\x1a\n")
        file.truncate(size)


# --- what a file asks of its loader

# Of a file's name, what makes it, and what its verdict says.
Case = tuple[str, Make, str]


def code_cases(canary: Path) -> Iterator[Case]:
    """Code, or what names code: CVE-2024-3660, CVE-2025-1550, -8747, -9905, -9906, -49655,
    CVE-2026-1462, -12481."""
    source = f"open({str(canary)!r})"
    lambda3, lambda2 = forge.evil_lambda(source), forge.keras2_lambda(source)
    held = lambda3["config"]["function"]
    is_lambda, python = "'bad' is a Lambda layer", "holds a Python lambda"

    def nested(class_name: str, **config: object) -> forge.Json:
        return layer(class_name, {"name": "outer", **config})

    lstm = layer("LSTM", {"name": "lstm", "units": 1})
    everywhere: dict[str, tuple[object, str]] = {
        "lambda": (lambda3, is_lambda),
        "lambda without a module": (
            {key: lambda3[key] for key in ("class_name", "config")},
            is_lambda,
        ),
        "lambda of its private module": (
            {**lambda3, "module": "keras.src.layers.core.lambda_layer"},
            is_lambda,
        ),
        "lambda in sequential": (sequential(lambda3), is_lambda),
        "lambda in functional": (functional(lambda3), is_lambda),
        "lambda in time distributed": (nested("TimeDistributed", layer=lambda3), is_lambda),
        "lambda in bidirectional": (
            nested("Bidirectional", layer=lstm, backward_layer=lambda3),
            is_lambda,
        ),
        "lambda as a cell": (nested("RNN", cell=[lambda3]), is_lambda),
        "lambda in a list of lists": (nested("StackedRNNCells", cells=[[[lambda3]]]), is_lambda),
        "lambda spelled small": ({**lambda3, "class_name": "lambda"}, "no layer of Keras"),
        "lambda of a package": ({**lambda3, "class_name": "keras>Lambda"}, "no layer of Keras"),
        "lambda of another name": ({**lambda3, "class_name": "keras.layers.Lambda"}, "no layer"),
        "registered lambda": ({**DENSE, "registered_name": "Lambda"}, "custom class 'Lambda'"),
        "lambda as activation": (nested("Dense", units=1, activation=held), python),
        "lambda in build config": ({**DENSE, "build_config": {"x": held}}, python),
        "lambda in compile config": (sequential(DENSE, compile_config={"loss": held}), python),
        "custom": (layer("Odd", module=None, registered_name="mine>Odd"), "custom class 'mine>Odd"),
        "os.system": (function("os", "system"), "the module 'os'"),
        "os.system as activation": (
            nested("Dense", units=1, activation=function("os", "system")),
            "the module 'os'",
        ),
        "class os.system": (layer("system", module="os"), "the module 'os'"),
        "dotted class": (layer("os.system"), "'os.system', which is no layer"),
        "eval": (function("builtins", "eval"), "custom function 'eval'"),
        "builtins.eval": (function("builtins", "builtins.eval"), "custom function"),
        "subprocess": (layer("Popen", {"args": ["id"]}, module="subprocess"), "'subprocess'"),
        "keras's own subprocess": (
            layer("run", module="keras.src.layers.subprocess"),
            "'keras.src.layers.subprocess'",
        ),
        "get_file": (function("keras.utils", "get_file"), "'keras.utils'"),
        "get_file of builtins": (function("builtins", "get_file"), "custom function 'get_file'"),
        "get_file in private": (
            function("keras.src.utils.file_utils", "get_file"),
            "'keras.src.utils.file_utils'",
        ),
        "unsafe switch": (
            function("keras.config", "enable_unsafe_deserialization"),
            "'keras.config'",
        ),
        "unsafe switch in private": (
            layer("set_global_attribute", module="keras.src.backend.common.global_state"),
            "global_state'",
        ),
        "load_model": (function("keras.models", "load_model"), "class 'function'"),
        "torch": (layer("TorchModuleWrapper", {"module": "gASV"}), "holds pickled Python code"),
        "saved model": (layer("TFSMLayer", {"filepath": str(canary)}), "loads a second model"),
        "jax": (layer("JaxLayer", {"call_fn": held}), "holds Python code"),
        "typespec": (
            {"class_name": "__typespec__", "spec_name": "x", "module": "os", "config": []},
            "the module 'os'",
        ),
    }
    for number, (name, (bad, says)) in enumerate(everywhere.items()):
        whole = sequential(DENSE, bad)
        if number % 2 or name == "lambda":
            yield f"code {name}.h5", partial(forge.h5, config=whole), says
        if not number % 2 or name == "lambda":
            yield f"code {name}.keras", partial(forge.keras, config=whole), says
    yield (
        "code in a call.keras",
        partial(forge.keras, config=functional(DENSE, kwargs={"inputs": function("os", "system")})),
        "the module 'os'",
    )
    for name, config in {
        "lambda of keras 2": keras2(DENSE, lambda2),
        "lambda of keras 2 in another": keras2(DENSE, keras2(lambda2)),
    }.items():
        yield f"code {name}.h5", partial(forge.h5, config=config, version="2.15.0"), is_lambda
    # What the rewriting of such a file would take away, and what it must not let through.
    policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    for name, (old, says) in {
        "operation": (layer("TFOpLambda", {"function": "math.truediv"}), "raw TensorFlow"),
        "custom": (layer("Odd"), "'Odd', which is no layer"),
        "lambda to train": (nested("Dense", units=1, kernel_initializer=held), python),
        "lambda in policy": (nested("Dense", units=1, dtype={**policy, "x": held}), python),
        "policy as layer": (policy, "'Policy', which is no layer"),
        "policy as activation": (nested("Dense", units=1, activation=policy), "'Policy', which"),
        "unheard of": (nested("Dense", units=1, time_major=True), "time_major"),
    }.items():
        config = keras2(old)
        yield f"code 2 {name}.h5", partial(forge.h5, config=config, version="2.5.0"), says


def reading_cases(canary: Path) -> Iterator[Case]:
    """Files and addresses: CVE-2025-12058, CVE-2025-12060, CVE-2026-1669, -12480."""
    for name, where in {
        "path": str(canary),
        "file": f"file://{canary}",
        "http": "http://127.0.0.1:1/v.txt",
        "bucket": "gs://bucket/v.txt",
    }.items():
        lookup = layer("StringLookup", {"vocabulary": where})
        text = layer("TextVectorization", {"vocabulary": ["a"], "idf_weights": where})
        says = f"from a file, {where!r}"[:30]
        yield f"vocabulary {name}.keras", partial(forge.keras, config=sequential(lookup)), says
        yield f"weights {name}.h5", partial(forge.h5, config=sequential(text)), says

    outside = [(str(canary), 0, 4)]

    def change_weights(change: Callable[[h5py.Group], object], name: str) -> Iterator[Case]:
        def in_h5(file: h5py.File) -> None:
            change(file["model_weights/dense"])

        def in_keras(file: h5py.File) -> None:
            change(file["layers/dense/vars"])

        whole = sequential(DENSE)
        bad = forge.weights(in_keras)
        says = changes[name][1]
        yield f"hdf5 {name}.h5", partial(forge.h5, config=whole, change=in_h5), says
        yield (
            f"hdf5 {name}.keras",
            partial(forge.keras, config=whole, others={"model.weights.h5": bad}),
            says,
        )

    def bias(make: Callable[[h5py.Group, str], object]) -> Callable[[h5py.Group], object]:
        """Has something else made in the bias's place."""

        def change(group: h5py.Group) -> None:
            name = "1" if "1" in group else "dense/bias:0"
            del group[name]
            make(group, name)

        return change

    def virtual(group: h5py.Group, name: str) -> None:
        layout = h5py.VirtualLayout((1,), "f4")
        layout[:] = h5py.VirtualSource(str(canary), "x", (1,))
        group.create_virtual_dataset(name, layout)

    def link(to: object) -> Callable[[h5py.Group], object]:
        return bias(lambda group, name: group.__setitem__(name, to))

    def shape(shape: tuple[int, ...]) -> Callable[[h5py.Group], object]:
        """Declared only: no chunk of it is there."""
        return bias(lambda group, name: group.create_dataset(name, shape, "f4", chunks=True))

    def group_is_link(group: h5py.Group) -> None:
        name, parent = group.name, group.parent
        del parent[name]
        parent[name] = h5py.ExternalLink(str(canary), "/model_weights")

    changes: dict[str, tuple[Callable[[h5py.Group], object], str]] = {
        "external storage": (
            bias(lambda group, name: group.create_dataset(name, (1,), "f4", external=outside)),
            "keeps its values in another file",
        ),
        "virtual": (bias(virtual), "is made of other files"),
        "external link": (link(h5py.ExternalLink(str(canary), "/x")), "is a link to"),
        "soft link": (link(h5py.SoftLink("/model_weights")), "is a link to"),
        "external group": (group_is_link, "is a link to"),
        "shape of petabytes": (shape((50_000_000,) * 2), "unpack to more than 4000000"),
        # As many bytes as 64 bits can count, and none more.
        "shape beyond counting": (shape((2**31, 2**31)), "unpack to more than 4000000"),
        "many shapes": (
            lambda group: [
                group.create_dataset(f"x{n}", (200_000,), "f4", chunks=(9,)) for n in range(9)
            ],
            "unpack to more than 4000000",
        ),
    }
    for name, (change, _) in changes.items():
        yield from change_weights(change, name)
    for name, member, says in (
        ("up", "assets/../../canary", "a name outside of the file"),
        ("absolute", str(canary), "a name outside of the file"),
        ("python", "sitecustomize.py", "which Keras does not write"),
        ("npz", "model.weights.npz", "which Keras does not write"),
        ("tar", "assets/../x.tar", "a name outside of the file"),
    ):
        bad_member = partial(forge.keras, config=sequential(DENSE), others={member: b"x"})
        yield f"zip {name}.keras", bad_member, says


def size_cases() -> Iterator[Case]:
    """Bombs and what is broken: CVE-2026-0897, and archives that unpack to more than they are."""
    whole = sequential(DENSE)

    def declared(path: Path) -> None:
        """One member says in both of its headers that it has 4 GB."""
        forge.keras(path, whole)
        content = bytearray(path.read_bytes())
        huge = struct.pack("<I", 0xFFFFFFF0)
        for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
            place = content.rindex(mark) + offset
            content[place : place + 4] = huge
        path.write_bytes(content)

    def overlapping(path: Path) -> None:
        """Two hundred members of the directory share one stream."""
        forge.keras(path, whole, {"assets/bomb": bytes(100_000)})
        with zipfile.ZipFile(path, "a") as archive:
            bomb = archive.getinfo("assets/bomb")
            for number in range(200):
                again = zipfile.ZipInfo(f"assets/{number}")
                for field in ("header_offset", "compress_size", "file_size", "CRC"):
                    setattr(again, field, getattr(bomb, field))
                again.compress_type = bomb.compress_type
                archive.filelist.append(again)
                archive.NameToInfo[again.filename] = again
            archive._didModify = True  # type: ignore[attr-defined]

    def cut(make: Make, keep: float) -> Make:
        def made(path: Path) -> None:
            make(path)
            content = path.read_bytes()
            path.write_bytes(content[: int(len(content) * keep)])

        return made

    yield (
        "bomb.keras",
        partial(forge.keras, config=whole, others={"assets/x": bytes(10**7)}),
        "it unpacks to",
    )
    yield "bomb declared.keras", declared, "it unpacks to"
    yield "bomb overlapping.keras", overlapping, "it unpacks to"
    inner = partial(forge.keras, config=whole, others={"assets/x.zip": b"PK" + bytes(10**7)})
    yield "bomb nested.keras", inner, "it unpacks to"
    many = {f"assets/{number}": b"" for number in range(10_001)}
    yield "bomb of names.keras", partial(forge.keras, config=whole, others=many), "files, more than"
    deep = b"[" * 100_000
    yield "deep json.keras", partial(forge.keras, config=deep), "not JSON"
    for keep in (0.02, 0.5, 0.98):
        h5, keras = partial(forge.h5, config=whole), partial(forge.keras, config=whole)
        yield f"cut at {keep}.h5", cut(h5, keep), "it "
        yield f"cut at {keep}.keras", cut(keras, keep), "it is damaged or cut short"
    yield "no json.h5", partial(forge.h5, config="os.system"), "not JSON"
    yield "no model.h5", partial(forge.h5, config="{}"), "not that of a Keras model"
    yield "utf-16.keras", partial(forge.keras, config=json.dumps(whole).encode("utf-16")), "not JS"


def predicting_cases() -> Iterator[Case]:
    """What only shows when it is loaded, or predicts: layers of Keras, all of them."""

    def both(name: str, config: object, says: str, bias: float = 0) -> Case:
        return name, partial(forge.h5, config=config, bias=bias), says

    def dense(units: int) -> forge.Json:
        return layer("Dense", {"name": "dense", "units": units})

    one = layer("Dense", {"name": "one", "units": 1})
    memory = "the model wanted more than 2.0 GiB of memory to"
    repeat = layer("RepeatVector", {"name": "repeat", "n": 10**12})
    pool = layer("GlobalAveragePooling1D", {"name": "pool"})
    greater = layer("Greater", {"name": "greater"}, module="keras.src.ops.numpy")
    words = layer(
        "StringLookup",
        {"name": "words", "vocabulary": ["a", "b"], "invert": True, "num_oov_indices": 1},
    )
    yield both("dense of 10**12.h5", sequential(dense(10**12)), memory)
    yield both("dense of 10**9.h5", sequential(dense(10**9)), memory)
    yield both("repeats.h5", sequential(repeat, pool, one), "Expected multiples[2] >= 0")
    yield both("wrong shape.h5", sequential(dense(3)), "shape (4, 1)")
    yield both("infinite.h5", sequential(DENSE), "10 of 10 predicted values", bias=np.inf)
    yield both("nan.h5", sequential(DENSE), "10 of 10 predicted values", bias=np.nan)
    relu = layer("ReLU", {"name": "relu"})
    two = functional(DENSE, relu, outputs=("dense", "relu"))
    yield "two outputs.keras", partial(forge.keras, config=two), "output shape is [(None, 1), (N"
    truth = functional(DENSE, greater)
    truth["config"]["layers"][-1]["inbound_nodes"][0]["args"].append(0.0)
    yield "truth.keras", partial(forge.keras, config=truth), "are of type bool, expected numbers"
    yield "words.keras", partial(forge.keras, config=sequential(DENSE, words)), "type string, exp"


def good_cases() -> Iterator[tuple[str, Make]]:
    yield "good.h5", partial(forge.h5, config=sequential(DENSE), bias=0.5)
    yield "good.keras", partial(forge.keras, config=sequential(DENSE))
    yield "good functional.keras", partial(forge.keras, config=functional(DENSE))
    yield "good of keras 2.h5", partial(forge.h5, config=keras2(DENSE), version="2.15.0")


@pytest.mark.tf
@pytest.mark.timeout(300)
def test_each_hostile_model_is_invalid_for_its_reason_and_reaches_nothing(
    setting: Setting, capfd: pytest.CaptureFixture[str]
) -> None:
    cases = [
        *code_cases(setting.canary),
        *reading_cases(setting.canary),
        *size_cases(),
        *predicting_cases(),
    ]
    for name, make, _ in cases:
        make(setting.folder / name)
    for name, good in good_cases():
        good(setting.folder / name)
    before = setting.state()
    with Tripwire(setting.canary, setting.key) as wire:
        found = setting.grade()
        sprung = wire.is_sprung()

    wrong = {
        name: (found[name].outcome.value, found[name].reason)
        for name, _, says in cases
        if found[name].outcome is not Outcome.INVALID or says not in found[name].reason
    }
    assert wrong == {}, "\n".join(f"{name}: {said}" for name, said in wrong.items())
    for verdict in found.values():
        assert 'File "' not in verdict.reason
        assert "Traceback" not in verdict.reason
    assert {name: found[name].points for name, _ in good_cases()} == {
        name: 5 for name, _ in good_cases()
    }
    assert found["good.h5"].value == 0.5
    assert not sprung
    assert setting.state() == before
    assert capfd.readouterr() == ("", "")
    tell("a hostile or broken model file", len(cases), "invalid, with the reason; nothing is run")


# --- the second wall: what if one got through?

# The grading process with its judge asleep: what is in a file is loaded and run.
UNGUARDED = """
from orchestrator.grades import grading

def load(path, limit, is_legacy):
    import keras
    with grading._blaming_the_model("be loaded"):
        return keras.models.load_model(path, compile=False, safe_mode=False)

grading.check, grading.load = lambda path, limit: False, load
grading.main()
"""

# What was not refused is told with its last words, which become the verdict's reason.
ATTACK = """
import ctypes, mmap, os, pathlib, resource, signal, socket, subprocess, tempfile, threading
print('{"outcome": "graded", "value": 0, "thresholds": [5, 4, 3, 2, 1], "metric": "forged"}')
os.write(2, b'{"outcome": "graded", "value": 0}\\n')
home, work, parent = pathlib.Path(HOME), pathlib.Path(WORK), os.getppid()
scratch = pathlib.Path(tempfile.gettempdir())
libc = ctypes.CDLL(None)

def unix():
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(AGENT)

def call(number, *values):
    if libc.syscall(number, *values) < 0:
        raise OSError

def secret():
    if {"SSH_AUTH_SOCK", "TRAINSHED_TEST_SECRET"} & os.environ.keys():
        return
    raise OSError

def hard_limit():
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY,) * 2)

attempts = {
    "tcp": lambda: socket.create_connection(("127.0.0.1", PORT)),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "unix socket": unix,
    "io_uring": lambda: call(425, 1, ctypes.create_string_buffer(200)),
    "secrets in the environment": secret,
    "parent's environment": lambda: open(f"/proc/{parent}/environ").read(),
    "user's environment": lambda: open(f"/proc/{USER}/environ").read(),
    "parent's memory": lambda: open(f"/proc/{parent}/mem", "rb+"),
    "trace": lambda: call(101, 16, parent, 0, 0),
    "key": lambda: (home / ".ssh/id_ed25519").read_text(),
    "key by /proc": lambda: open(f"/proc/self/root{home}/.ssh/id_ed25519").read(),
    "list of keys": lambda: os.listdir(home / ".ssh"),
    "new file": lambda: (work / "new").touch(),
    "new file at home": lambda: (home / ".bashrc").write_text("x"),
    "write": lambda: (work / "attack.h5").write_text("x"),
    "append": lambda: open(work / "grader.py", "a").close(),
    "cut": lambda: os.truncate(work / "grader.py", 0),
    "remove": lambda: (work / "grader.py").unlink(),
    "move": lambda: (work / "grader.py").rename(work / "moved"),
    "move here": lambda: (work / "grader.py").rename(scratch / "moved"),
    "link": lambda: os.link(work / "grader.py", work / "linked"),
    "symlink": lambda: os.symlink("/", work / "linked"),
    "pipe": lambda: os.mkfifo(work / "pipe"),
    "folder": lambda: (work / "folder").mkdir(),
    "mode": lambda: (work / "grader.py").chmod(0o777),
    "times": lambda: os.utime(work / "grader.py"),
    "owner": lambda: os.chown(work / "grader.py", os.getuid(), os.getgid()),
    "attribute": lambda: os.setxattr(work / "grader.py", "user.x", b"x"),
    "kill the parent": lambda: os.kill(parent, signal.SIGKILL),
    "kill the group": lambda: os.kill(0, signal.SIGKILL),
    "signal to the user": lambda: os.kill(USER, 0),
    "user's limits": lambda: resource.prlimit(USER, resource.RLIMIT_CORE, (0, 0)),
    "fork": lambda: os.fork() or signal.pause(),
    "program": lambda: subprocess.run(["/bin/true"]),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "mount": lambda: call(165, b"none", bytes(work), b"tmpfs", 0, 0),
    "higher limit": hard_limit,
    "memory": lambda: bytearray(3 * 2**30),
    "memory file": lambda: os.memfd_create("x"),
    "large file": lambda: (scratch / "x").write_bytes(bytes(5_000_000)),
}
allowed = []
for name, attempt in attempts.items():
    try:
        attempt()
    except (OSError, ValueError, MemoryError, subprocess.SubprocessError):
        continue
    allowed.append(name)
# What it needs, it may.
threading.Thread(target=print).start()
(scratch / "own").write_bytes(b"x")
os.write(2, f"of {len(attempts)} attempts these were allowed: {allowed}".encode())
os._exit(3)
"""
HUNGRY = """
import os
held = []
try:
    while True: held.append(bytearray(10**8))
except MemoryError:
    os.write(2, b"MemoryError")
    os._exit(3)
"""


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever grades from now on judges no file before it loads it."""
    start = subprocess.Popen

    def popen(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401
        if "orchestrator.grades.grading" in command:
            command = (command[0], "-P", "-c", UNGUARDED, *command[4:])
        return start(command, **options)

    monkeypatch.setattr("orchestrator.grades.grade.subprocess.Popen", popen)


def running(mark: str) -> list[int]:
    """Processes that have `mark` in their command."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in file.read_bytes():
                found.append(int(file.parent.name))
        except OSError:
            pass  # it has ended
    return found


@pytest.mark.tf
@pytest.mark.timeout(300)
def test_a_model_that_runs_code_after_all_can_do_no_harm(
    setting: Setting,
    tmp_path: Path,
    unguarded: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if not kernel_confines():
        pytest.skip("this system confines less")
    monkeypatch.setenv("TRAINSHED_TEST_SECRET", "s3cret")
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as agent,
        Grading() as grading,
    ):
        agent.bind(str(tmp_path / "agent"))
        agent.listen()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        facts = {
            "HOME": str(setting.home),
            "WORK": str(setting.folder),
            "AGENT": str(tmp_path / "agent"),
            "PORT": server.getsockname()[1],
            "USER": os.getpid(),
        }
        known = "".join(f"{name} = {fact!r}\n" for name, fact in facts.items())

        def run(name: str, source: str) -> None:
            forge.h5(setting.folder / name, sequential(forge.evil_lambda(source)))

        run("attack.h5", known + ATTACK)
        run("canary.h5", f"open({str(setting.canary)!r})")
        run("exit.h5", "import os; os._exit(0)")
        run("hungry.h5", HUNGRY)
        forge.h5(setting.folder / "z good.h5", sequential(DENSE))
        before = setting.state()
        with Tripwire(setting.key) as wire, Tripwire(setting.canary) as lambdas:
            found = setting.grade(LIMITS, grading)
            assert "of 42 attempts these were allowed: []" in found["attack.h5"].reason
            assert not wire.is_sprung()
            # The trap is a live one: it is the judge that keeps it shut, in the test above.
            assert lambdas.is_sprung()
        endless = Candidate("", tmp_path / "endless.h5", setting.folder / "grader.py")
        forge.h5(endless.model, sequential(forge.evil_lambda("while True: pass")))
        (verdict,) = grade([endless], replace(LIMITS, time_s=5), grading=grading)
        assert verdict.reason.startswith("the model took more than 5 s")
        server.setblocking(False)
        agent.setblocking(False)
        for line in (server, agent):
            with pytest.raises(BlockingIOError):
                line.accept()
    assert {name: verdict.outcome.value for name, verdict in found.items()} == {
        **dict.fromkeys(found, "invalid"),
        "z good.h5": "graded",
    }
    assert "with exit status 0" in found["exit.h5"].reason
    assert "wanted more than 2.0 GiB of memory" in found["hungry.h5"].reason
    assert setting.state() == before
    assert running(grading.scratch) == []
    assert not Path(grading.scratch).exists()
    assert capfd.readouterr() == ("", "")
    tell("a model that runs code in the grading process", 46, "refused, ended with its verdict")
