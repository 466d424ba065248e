"""Every check that tells whether a run would go well, each with its fix."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.errors import (
    ConnectError,
    HostKeyChanged,
    HostKeyUnknown,
    LoginRefused,
    NoPython,
    TrainshedError,
)
from orchestrator.grades.confine import confinement
from orchestrator.grades.grade import install_command
from orchestrator.grades.versions import exam_cannot_read, gpu_unused, is_keras_3, newest_for
from orchestrator.screen.printable import printable
from orchestrator.screen.tell import Teller
from orchestrator.settings.spec import Remote
from orchestrator.size import format_size
from orchestrator.vm.check import Check, Mark
from orchestrator.vm.cluster import check_cluster
from orchestrator.vm.link import Link
from remote.protocol import Examine, Examined, News, Survey, Surveyed, Watch

_DISK_LOW_BYTES = 5 * 10**9
_CLOCK_LIMIT_S = 5.0
_ECHOES = 5

# Each key of a remote as `train remote set` takes it, and as it stands in a file.
_SET = {
    "host": ("--host ADDRESS", "host: ADDRESS"),
    "port": ("--port PORT", "port: PORT"),
    "user": ("--user USER", "user: USER"),
    "key": ("--key FILE", "key: FILE"),
    "gpus": ("--gpus 0", "gpus: 0"),
    "price": ("--price 0.50", "price: {per_hour: 0.50, currency: USD}"),
    "python": ("--python PATH", "env: {python: PATH}"),
    "requirements": ("--requirements FILE", "env: {requirements: FILE}"),
}
# What may be said wrongly of a remote where a connection ends so; the first that fits.
_TO_BLAME: tuple[tuple[type[TrainshedError], tuple[str, ...]], ...] = (
    (HostKeyUnknown, ()),
    (HostKeyChanged, ()),
    (LoginRefused, ("user", "key")),
    (NoPython, ("python",)),
    (ConnectError, ("host", "port", "key")),
)


def check_laptop() -> Iterator[Check]:
    """This side: what grading and connecting need."""
    yield Check("python here", Mark.OK, f"{platform.python_version()} at {sys.executable}")
    if importlib.util.find_spec("tensorflow") is None:
        yield Check("grader here", Mark.WARN, "no TensorFlow", install_command())
    else:
        yield Check("grader here", Mark.OK, f"tensorflow {local_tensorflow()}")
    yield _check_confinement()
    if shutil.which("ssh") is None:
        yield Check(
            "ssh here",
            Mark.WARN,
            "no ssh program; ~/.ssh/config is read without it",
            "install OpenSSH's client if an alias or ProxyJump does not work",
        )


def _check_confinement() -> Check:
    """Whether a hostile model file could do more than waste time while it is graded."""
    loose = confinement()
    if not loose:
        return Check("grading is confined", Mark.OK, "no network, no programs, no writing")
    fix = (
        "needs Landlock (Linux 5.13) and seccomp, which some containers forbid"
        if sys.platform == "linux"
        else "only Linux can do this"
    )
    found = f"a model being graded could {', '.join(loose)}"
    return Check("grading is confined", Mark.WARN, found, f"{fix}; grade only models you trust")


def check_remote(
    remote: Remote,
    connect: Callable[[], Link],
    requirements: str,
    tell: Teller,
    file: Path | None = None,
    exam: str = "",
    keep: Callable[[Examined], None] = lambda examined: None,
    *,
    with_job: bool = False,
) -> Iterator[Check]:
    """The VM: from the login to the GPU as the framework sees it. Stops where it cannot go on.

    Args:
        file: the workspace's, where that says how the remote is; None for the user's own.
        exam: the TensorFlow that the models are for; "" where that is not said.
        keep: takes what the agent saw.
        with_job: whether a cluster is given a job to look from.
    """
    tell.doing(f"connecting to {remote.name}")
    if remote.price is None:
        yield Check(
            "price",
            Mark.WARN,
            "unknown, so every cost will be too",
            how_to_set(remote, file, "price"),
        )
    else:
        unit = "hour" if remote.slurm is None else "GPU-hour"
        price = f"{remote.price.per_hour} {remote.price.currency} per {unit}"
        yield Check("price", Mark.OK, price)
    started = time.monotonic()
    try:
        link = connect()
    except TrainshedError as error:
        # What the system says (`[Errno 111] ...`) is in the message, in words.
        told = error.__cause__ is None or isinstance(error.__cause__, OSError)
        cause = error.cause or ("" if told else str(error.__cause__))
        found = f"{error}" + (f" ({cause})" if cause else "")
        wrong = next((keys for kind, keys in _TO_BLAME if isinstance(error, kind)), ())
        fixes = (error.fix, how_to_set(remote, file, *wrong) if wrong else "")
        fix = "; to correct the remote: ".join(filter(None, fixes))
        yield Check("connection", Mark.FAIL, found, fix, error.exit_code)
        return
    with link:
        took_s = time.monotonic() - started
        yield Check("connection", Mark.OK, f"ssh login and agent in {took_s:.2f} s")
        yield Check("host key", Mark.OK, f"{link.host_key_fingerprint}, known")
        yield check_clock(link.hello.clock_s, time.time())
        yield from _check_hello(link)
        if remote.slurm is not None:
            tell.doing(f"asking {remote.name} about its queue")
            terms, gpus = remote.slurm, 0 if remote.gpus == 0 else 1
            surveyed = link.call(Survey(terms, gpus, with_job), Surveyed)
            yield from check_cluster(remote, terms, surveyed)
            return
        tell.doing(f"asking {remote.name} about its GPUs and TensorFlow")
        examined = link.call(Examine(remote.python, requirements), Examined)
    keep(examined)
    yield from check_machine(remote, examined, file, exam)


def how_to_set(remote: Remote, file: Path | None, *keys: str) -> str:
    """The command that says these keys of a remote, or the place to write them.

    Args:
        file: as `check_remote` has it.
    """
    if file is None:
        return " ".join(["train remote set", remote.name, *(_SET[key][0] for key in keys)])
    return f"in {file}, under remotes: {remote.name}: {', '.join(_SET[key][1] for key in keys)}"


def check_machine(
    remote: Remote, examined: Examined, file: Path | None = None, exam: str = ""
) -> Iterator[Check]:
    """What the agent saw, judged. No I/O."""
    if examined.store_writable:
        fix = f"make room (train gc {remote.name}), or let its user write to the home folder there"
        told = printable(examined.store_fix).replace("NAME", remote.name)
        yield Check("store", Mark.FAIL, printable(examined.store_writable), told or fix)
    drivers = [printable(gpu) for gpu in examined.driver_gpus]
    if examined.driver_trouble:
        found = printable(examined.driver_trouble)
        yield Check(
            "gpu by driver",
            Mark.FAIL,
            found,
            "on the VM: sudo reboot; else install its driver anew",
        )
    elif drivers:
        yield Check("gpu by driver", Mark.OK, "; ".join(drivers))
    elif remote.gpus == 0:
        yield Check("gpu by driver", Mark.OK, "none, and `gpus: 0` says that is right")
    else:
        yield Check(
            "gpu by driver",
            Mark.FAIL,
            "no nvidia-smi on this machine",
            f"install the NVIDIA driver there; to train on the CPU: "
            f"{how_to_set(remote, file, 'gpus')}",
        )
    yield from _check_framework(remote, examined, file, exam)


def _check_framework(
    remote: Remote, examined: Examined, file: Path | None, exam: str
) -> Iterator[Check]:
    if not examined.framework:
        is_missing = "No module named 'tensorflow'" in examined.framework_trouble
        found = "no TensorFlow" if is_missing else printable(examined.framework_trouble) or "none"
        fix = (
            f"name a Python that has TensorFlow: {how_to_set(remote, file, 'python')}; "
            f"or have it installed: {how_to_set(remote, file, 'requirements')}"
        )
        yield Check(f"framework in {remote.python}", Mark.WARN, found, fix)
        return
    framework = printable(examined.framework)
    yield Check(f"framework in {remote.python}", Mark.OK, framework)
    have_installed = how_to_set(remote, file, "requirements")
    if remote.gpus != 0:
        yield _check_gpu_of_framework(examined, framework, have_installed)
    yield _check_versions(framework)
    if exam:
        found, fix = exam_cannot_read(framework, exam)
        mark = Mark.WARN if found else Mark.OK
        yield Check("exam", mark, found or f"tensorflow {exam} reads what {framework} saves", fix)


def _check_gpu_of_framework(examined: Examined, framework: str, have_installed: str) -> Check:
    """TensorFlow lists also GPUs that it has no code for, and leaves them out when it trains."""
    name = "gpu by framework"
    for gpu in map(printable, examined.driver_gpus):
        unused = gpu_unused(gpu, framework)
        if unused:
            fix = f"name '{newest_for(gpu)}' in a file and have it installed: {have_installed}"
            return Check(name, Mark.FAIL, unused, fix)
    gpus = ", ".join(map(printable, examined.framework_gpus))
    if gpus:
        return Check(name, Mark.OK, gpus)
    return Check(
        name,
        Mark.FAIL,
        f"{framework} sees no GPU and would train on the CPU at the GPU's price",
        "it needs the matching CUDA; name it in a file, tensorflow[and-cuda] for one, and have it "
        f"installed: {have_installed}",
    )


def _check_versions(framework: str) -> Check:
    """Keras 3 grades what Keras 2 saved, but not the other way round."""
    here = local_tensorflow()
    found = f"trained with {framework}, graded with tensorflow {here or '(none)'}"
    if here and is_keras_3(framework) and not is_keras_3(here):
        trouble = f"{found}: Keras 2 here cannot read what Keras 3 saves"
        return Check("versions", Mark.WARN, trouble, install_command())
    return Check("versions", Mark.OK, found)


def _check_hello(link: Link) -> Iterator[Check]:
    hello = link.hello
    yield Check(
        "python there", Mark.OK, f"{printable(hello.python)} at {printable(hello.executable)}"
    )
    free = f"{format_size(hello.disk_free_bytes)} free at {printable(hello.store)}"
    if hello.disk_free_bytes < _DISK_LOW_BYTES:
        yield Check("disk", Mark.WARN, free, f"see what could go: train gc {link.name}")
    else:
        yield Check("disk", Mark.OK, free)
    times_s = []
    for _ in range(_ECHOES):
        started = time.monotonic()
        link.call(Watch(()), News)
        times_s.append(time.monotonic() - started)
    rtt_s = statistics.median(times_s)
    yield Check("rtt", Mark.OK, f"{1000 * rtt_s:.1f} ms for one exchange, median of {_ECHOES}")


def check_clock(there_s: float, here_s: float) -> Check:
    """The VM's clock against ours; run times and costs are told by the VM's."""
    off_s = there_s - here_s
    if abs(off_s) > _CLOCK_LIMIT_S:
        return Check(
            "clock",
            Mark.WARN,
            f"the VM's is {off_s:+.0f} s off",
            "switch its time service on there: sudo timedatectl set-ntp true",
        )
    apart = f"{abs(off_s):.0f} s" if abs(off_s) >= 1 else "less than a second"
    return Check("clock", Mark.OK, f"{apart} apart")


def local_tensorflow() -> str:
    """The version that grades here; empty if there is none."""
    for name in ("tensorflow", "tensorflow-cpu", "tensorflow-macos"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""
