"""Grades models in a process of their own: what comes out is verdicts. No TensorFlow here."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from orchestrator.errors import UsageError
from orchestrator.grades.confine import Abandoned as Abandoned
from orchestrator.grades.confine import Limits as Limits
from orchestrator.grades.modelcheck import suffix
from orchestrator.grades.verdict import Outcome, Verdict, points
from orchestrator.screen.printable import one_line

# What importing TensorFlow may take; 5 s on a laptop, a minute from a cold network disk.
START_S = 300.0
# What answering may take beyond a model's own time: another import where forking is unsafe.
GRACE_S = 60.0
CHUNK_BYTES = 1024 * 1024
NOISE_BYTES = 4 * 1024

# The environment of a process that opens hostile files: nothing that could hold a secret.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "USERPROFILE")
FIXED = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUTF8": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

# Its graph is a program that may read files, also the held-out data beside the grader.
SAVED_MODEL = (
    "the model is a SavedModel folder, which cannot be graded: save it with "
    "model.save('mymodel.h5'), or convert it where it was trained: "
    "tf.keras.models.load_model(FOLDER).save('mymodel.h5')"
)


@dataclass(frozen=True)
class Candidate:
    """A model file, and the category's grader that it is put before."""

    category: str
    model: Path
    grader: Path


@dataclass(frozen=True)
class Progress:
    """What is being done now, for which category."""

    category: str
    doing: str


def grade(
    candidates: Sequence[Candidate],
    limits: Limits = Limits(),  # noqa: B008  (frozen)
    tell: Callable[[Progress], None] = lambda _: None,
    grading: Grading | None = None,
) -> Iterator[Verdict]:
    """Give each candidate's verdict as soon as it is there, in order.

    TensorFlow is imported once for all, and not at all when no file is worth it. Every file is
    hashed while it is copied, and the copy is graded: the verdict is of the bytes its sha256
    names, whatever happens to the file meanwhile. Leaving the iteration, also by Ctrl-C, ends
    the process and removes the copies.

    Args:
        grading: a process that was started before and stays; else there is one for these only.

    Raises:
        UsageError: TensorFlow is not installed; nothing was done.
        Abandoned: `grading` was, by another thread.
    """
    if not can_grade():
        raise UsageError("grading needs TensorFlow", fix=install_command())
    return _verdicts(candidates, limits, tell, grading)


def can_grade() -> bool:
    """Whether TensorFlow is installed; it is not imported."""
    return importlib.util.find_spec("tensorflow") is not None


def install_command() -> str:
    """What the user types so that models can be graded by the Python that runs this."""
    return f"{shlex.quote(sys.executable)} -m pip install 'tensorflow>=2.16'"


def framework() -> str:
    """What a verdict's `versions` would say now; "" where the packages do not tell."""
    # Not at the top: every command would pay for it.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"tensorflow {version('tensorflow')}, keras {version('keras')}"
    except PackageNotFoundError:
        return ""


def _verdicts(
    candidates: Sequence[Candidate],
    limits: Limits,
    tell: Callable[[Progress], None],
    grading: Grading | None,
) -> Iterator[Verdict]:
    with nullcontext(grading) if grading is not None else Grading() as process:
        for candidate in candidates:
            with tempfile.TemporaryDirectory(dir=process.scratch) as folder:
                copy = _take(candidate.model, Path(folder), limits.model_bytes)
                if copy.fault:
                    answer: dict[str, Any] = {"outcome": "invalid", "reason": copy.fault}
                else:
                    tell(Progress(candidate.category, "grading"))
                    answer = process.ask(copy.path, candidate.grader, limits)
                yield _verdict(candidate.category, answer, copy)


@dataclass(frozen=True)
class _Copy:
    path: Path
    sha256: str | None = None
    size_bytes: int | None = None
    fault: str = ""


def _take(model: Path, folder: Path, limit_bytes: int) -> _Copy:
    """Copy a model file and hash what is copied, or say why it is not worth it."""
    try:
        found = model.stat()
        if (model / "saved_model.pb").exists():
            return _Copy(model, fault=SAVED_MODEL)
        if not stat.S_ISREG(found.st_mode):
            return _Copy(model, fault="the model is not a file")
        if found.st_size > limit_bytes:
            fault = f"the model has {found.st_size} bytes, more than {limit_bytes}"
            return _Copy(model, None, found.st_size, fault)
        with model.open("rb") as source:
            head = source.read(64)
            path = folder / f"model{suffix(head)}"
            source.seek(0)
            digest = hashlib.sha256()
            with path.open("wb") as target:
                # No further than the limit, for it may still be growing.
                for _ in range(limit_bytes // CHUNK_BYTES + 1):
                    chunk = source.read(CHUNK_BYTES)
                    digest.update(chunk)
                    target.write(chunk)
                size = target.tell()
    except FileNotFoundError:
        return _Copy(model, fault="there is no model file")
    except OSError as error:
        return _Copy(model, fault=f"the model cannot be read: {error.strerror}")
    fault = ""
    if not size:
        fault = "the model file is empty"
    elif not path.suffix:
        fault = one_line(f"not a Keras model, neither .h5 nor .keras: it begins with {head[:24]!r}")
    return _Copy(path, digest.hexdigest(), size, fault)


class Grading:
    """The process that grades, started with the first question or before, and anew after it died.

    Only the model in hand is blamed for its death.
    It and its forks are in a group of their own: Ctrl-C reaches this process only, which then
    ends them. Should this one be killed, the end of its pipe tells them.

    Attributes:
        scratch: the folder it works in, removed with it.
    """

    def __init__(self) -> None:
        # What a grading that was killed had in it may just be going away.
        self._folder = tempfile.TemporaryDirectory(
            prefix="trainshed-grade-", ignore_cleanup_errors=True
        )
        self.scratch = self._folder.name
        self.process: subprocess.Popen[bytes] | None = None
        self._noise = Path(self.scratch, "noise")
        self._is_ready = False
        self._is_abandoned = False
        # Held where one is started or ended, so that none is started after it was abandoned.
        self._changing = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self._folder.cleanup()

    def end(self) -> None:
        """End the process, if there is one, and what it has forked."""
        with self._changing:
            if self.process is not None:
                self._kill()
                self.process.communicate()
                self.process = None

    def abandon(self) -> None:
        """End it for good, from another thread than the one that asks, which gets `Abandoned`."""
        with self._changing:
            self._is_abandoned = True
            if self.process is not None:
                self._kill()

    def _kill(self) -> None:
        assert self.process is not None
        if sys.platform == "win32":
            self.process.kill()
            return
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # all of them have ended; macOS then says that we may not

    def start(self) -> None:
        """Start it unless it lives. It is ready some seconds later; `ask` waits for that.

        Raises:
            Abandoned: it was.
        """
        with self._changing:
            if self._is_abandoned:
                raise Abandoned
            if self.process is not None and self.process.poll() is not None:
                self.end()
            if self.process is None:
                self.process = self._spawn()
                self._is_ready = False

    def _spawn(self) -> subprocess.Popen[bytes]:
        package = Path(__file__).parents[2]
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        places = {"PYTHONPATH": str(package)}
        for name in ("KERAS_HOME", "TMPDIR", "TEMP", "TMP"):
            places[name] = self.scratch
        with self._noise.open("wb") as noise:
            return subprocess.Popen(
                # -P: a keras.py in the user's folder is not the one meant.
                (sys.executable, "-P", "-m", "orchestrator.grades.grading", "serve", self.scratch),
                cwd=self.scratch,
                env={**environment, **FIXED, **places},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
                start_new_session=True,
            )

    def ask(self, model: Path, grader: Path, limits: Limits) -> dict[str, Any]:
        """The answer about one model; a `broken` one when the process does not give it.

        Raises:
            Abandoned: it was, before or meanwhile.
        """
        self.start()
        if not self._is_ready:
            answer = self._hear(START_S)
            if "outcome" in answer:
                return answer
            self._is_ready = True
        assert self.process is not None
        assert self.process.stdin is not None
        request = {"model": str(model), "grader": str(grader.absolute()), "limits": asdict(limits)}
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it is gone: what is heard says so
        # It keeps the limit itself; this is for one that no longer does.
        return self._hear(limits.time_s + GRACE_S)

    def _hear(self, patience_s: float) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        patience = threading.Timer(patience_s, self.process.kill)
        patience.start()
        try:
            line = self.process.stdout.readline()
        finally:
            patience.cancel()
        if self._is_abandoned:
            raise Abandoned
        if line.endswith(b"\n"):
            try:
                answer = json.loads(line)
            except (ValueError, RecursionError):
                answer = None
            if isinstance(answer, dict):
                return answer
            self.end()
            return {"outcome": "broken", "reason": "the grading process gave what is no answer"}
        status = self.process.wait()
        self.end()
        noise = self._noise.read_bytes()[-NOISE_BYTES:].decode(errors="replace")
        last = " | ".join(noise.splitlines()[-3:])
        reason = f"the grading process ended with status {status}: {last}"
        return {"outcome": "broken", "reason": one_line(reason)}


def _verdict(category: str, answer: dict[str, Any], copy: _Copy) -> Verdict:
    """What an answer says. A model that took over its process can forge its own, no more."""
    value = points_ = None
    try:
        outcome = Outcome(answer["outcome"])
        reason = one_line(str(answer.get("reason", "")))
        thresholds = tuple(float(number) for number in answer.get("thresholds", ()))
        higher_is_better = answer.get("higher_is_better", True) is True
        if outcome is Outcome.GRADED:
            value = float(answer["value"])
            points_ = points(value, thresholds[:5], higher_is_better)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        outcome, thresholds, higher_is_better = Outcome.INVALID, (), True
        reason = one_line(f"its grading gave what cannot be read: {error}")
    return Verdict(
        category=category,
        outcome=outcome,
        points=points_,
        metric=_text(answer, "metric", 80),
        value=value,
        thresholds=thresholds,
        higher_is_better=higher_is_better,
        reason=reason,
        sha256=copy.sha256,
        size_bytes=copy.size_bytes,
        graded_at=datetime.now(UTC),
        versions=_text(answer, "versions", 80),
        sources=_sources(answer),
    )


def _sources(answer: dict[str, Any]) -> tuple[str, ...]:
    found = answer.get("sources")
    return tuple(path for path in found if isinstance(path, str)) if isinstance(found, list) else ()


def _text(answer: dict[str, Any], key: str, characters: int) -> str:
    found = answer.get(key)
    return one_line(found, characters) if isinstance(found, str) else ""
