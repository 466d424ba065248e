"""The one process of a run that outlives the connection: it waits, sets up, executes, records.

Started by the agent as `python remote.zip RUN_FOLDER LOCK`, with the run's lock already held in
descriptor LOCK, so that there is no moment in which two could start the same run. Only this module
writes `state.json`, each time by rename.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from remote import clock
from remote.atomic import discard, replace_file
from remote.environment import SetupFailed, ensure_environment, find_python
from remote.gang import ended_others, gang_environment
from remote.launcher import begin_metrics, prepare_launch
from remote.loading import LIMIT, load_models
from remote.outputs import find_outputs
from remote.processes import (
    adopt_orphans,
    descendants,
    kill_below,
    reap,
    reap_orphans,
    send_signal,
)
from remote.record import Malformed, from_bytes, to_bytes
from remote.restart import first_state, has_run, may_restart, ran_before_s
from remote.room import give_back, is_full, say_full, why_full
from remote.runfolder import (
    BY_USER,
    GIVEN_BACK,
    MODEL_SUFFIXES,
    STAYS_ON,
    Artifact,
    Artifacts,
    Ended,
    Loading,
    RunFolder,
    RunRequest,
    RunState,
    State,
    why_cancelled,
    why_lost,
)
from remote.sampler import Sampler
from remote.slots import Slots, Waiting, drop_ticket, try_slots
from remote.store import Store, StoreTrouble
from remote.takeover import take_over
from remote.terms import warning_s
from remote.trouble import SlurmTrouble

_POLL_S = 0.1
_QUEUE_POLL_S = 0.5
_STATE_RETRY_S = 5.0
_REAP_S = 1.0
# Fresh frameworks over a slow line take ten minutes. What takes longer (a dead mirror, a pip that
# looks for versions that fit) would hold the GPU for as long as the machine is paid for.
_SETUP_LIMIT_S = 1800.0
# A cancelled run has asked for less patience than one that reached its limit; and one whose gang
# has failed is killed by Slurm soon, or has nobody to go on with.
_CANCEL_GRACE_S = 10.0
# Who ends a cluster's step or all of a machine signals one process after the other, the command
# perhaps before us. It is one loop of theirs, but on a machine with more to do than it can.
_LATE_S = 3.0
# Clouds give notice of up to two minutes. A machine that is still there after so long was not
# taken away.
_NOTICE_S = 300.0
# What a file system says of a file that is not there any more.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class Removed(SystemExit):
    """The run's folder is not there any more: there is nobody to tell and nothing to save."""


class Stopped(Exception):
    """The run is to end now, and why.

    Attributes:
        state: that it ends in; one that is not final where it is only interrupted.
    """

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class Supervisor:
    """One run, from its place in the queue to its final state."""

    def __init__(self, folder: RunFolder, lock: int) -> None:
        self.folder = folder
        self.lock = lock
        self.request = from_bytes(RunRequest, folder.request.read_bytes())
        self.store = Store(folder.path.parent.parent, self._check)
        self.state = first_state(folder)
        self.log = folder.log.open("ab", buffering=0)
        self.told_to_stop = False
        self.set_up_until = float("inf")
        self.slots: Tuple[int, ...] = ()
        self.addresses: Tuple[str, ...] = ()
        self.python = ""

    def run(self) -> None:
        """Take the run to a final state, whatever happens on the way; unless it is interrupted.

        Raises:
            Removed: its folder was; whatever ran has ended.
        """
        signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            self._begin()
            slots = self._wait_for_turn()
            self.slots = slots.descriptors
            self._enter(
                self.state._replace(state=State.SETTING_UP, setting_up_at=clock.now(), reason="")
            )
            self.set_up_until = time.monotonic() + _SETUP_LIMIT_S
            self.python = self._set_up()
            self.set_up_until = float("inf")
            ending = self._execute(slots)
        except Stopped as stopped:
            ending = self.state._replace(state=stopped.state, reason=stopped.reason)
        except (SetupFailed, StoreTrouble) as failure:
            full = why_full(self.folder.path)  # by what pip has downloaded, for one
            reason = f"{failure}; {_say_how(full)}" if full else str(failure)
            ending = self.state._replace(state=State.SETUP_FAILED, reason=reason)
        except Exception as bug:  # noqa: BLE001  # the state must not stay `running` for ever
            ending = self._broken(bug)
        # Hashing and recording need no GPU, and on a full disk they may wait for hours.
        for descriptor in self.slots:
            os.close(descriptor)
        drop_ticket(self.store, self.request.run_id)
        if ending.state.final:
            self._finish(ending)
        else:
            self._leave(ending)

    def _broken(self, error: Exception) -> RunState:
        """The end of a run that this machine, or a bug of ours, does not let go on."""
        if isinstance(error, OSError) and is_full(error):
            reason = _say_how(say_full(error, self.store.root))
            if has_run(self.state):
                return self.state._replace(state=State.FAILED, reason=reason)
            # Half of it is of no use, and takes room.
            with suppress(OSError):
                discard(self.folder.tree)
            return self.state._replace(state=State.SETUP_FAILED, reason=reason)
        self.say("".join(traceback.format_exception(type(error), error, error.__traceback__)))
        return self.state._replace(state=State.FAILED, reason=f"the supervisor failed: {error!r}")

    def pause(self) -> None:
        """A short wait that ends the run when that was asked for meanwhile."""
        time.sleep(_POLL_S)
        self._check()

    def say(self, text: str) -> None:
        """A line of our own in the run's log, unless the disk is full."""
        try:
            start = "" if self._is_line_complete() else "\n"
            self.log.write(f"{start}trainshed: {text}\n".encode("utf-8", "replace"))
        except OSError:
            pass

    def _is_line_complete(self) -> bool:
        with self.folder.log.open("rb") as file:
            size_bytes = file.seek(0, os.SEEK_END)
            file.seek(max(0, size_bytes - 1))
            return file.read(1) in (b"", b"\n")

    def _begin(self) -> None:
        """After an interruption: what it left is not meant for this attempt."""
        self.folder.stop.unlink(missing_ok=True)
        self.folder.notice.unlink(missing_ok=True)
        if self.state.restarts:
            before = from_bytes(RunState, self.folder.state.read_bytes())
            self._enter(self.state)
            self._check()
            why = why_lost(before, self.state.boot_id)
            self.say(f"restarted ({self.state.restarts} of {self.request.restarts}): {why}")
        for ended in ended_others(self.folder, self.request):
            raise _fallen_with(ended)

    def _wait_for_turn(self) -> Slots:
        self._enter(self.state)
        while True:
            found = try_slots(self.store, self.request)
            if isinstance(found, Slots):
                drop_ticket(self.store, self.request.run_id)
                return found
            # Only here, so that it has either begun or been given back, and never both.
            if self.folder.give_back.exists() and not has_run(self.state):
                raise Stopped(State.CANCELLED, GIVEN_BACK)
            self._wait_on(found)

    def _wait_on(self, waiting: Waiting) -> None:
        if waiting.reason != self.state.reason:
            with suppress(OSError):  # a full disk; there may be room when it is its turn
                self._enter(self.state._replace(reason=waiting.reason))
        end = time.monotonic() + _QUEUE_POLL_S
        while time.monotonic() < end:
            self.pause()

    def _set_up(self) -> str:
        request, tree = self.request, self.folder.tree
        # What the command has made stays there for it; a tree that is not complete goes.
        if not has_run(self.state) or not tree.is_dir():
            discard(tree)
            self.store.copy_tree(request.tree, tree)
        for data in request.data:
            place = tree / data.path
            if place.is_symlink():
                place.unlink()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self.store.share_tree(data.digest), target_is_directory=True)
        if request.gang is not None:
            self.addresses = request.gang.addresses or self._addresses_by_slurm()
        python = find_python(request.python)
        if request.requirements:
            requirements = (tree / request.requirements).read_bytes()
            python = ensure_environment(self.store, python, requirements, self.log, self.pause)
        return python

    def _addresses_by_slurm(self) -> Tuple[str, ...]:
        from remote.slurm import addresses

        try:
            return addresses(lambda: None)
        except SlurmTrouble as trouble:
            raise SetupFailed(f"Slurm does not tell where its gang is: {trouble}") from trouble

    def _execute(self, slots: Slots) -> RunState:
        if self._left_s() <= 0:
            raise self._out_of_time()
        # The shell waits for its child when it is warned, instead of dying before it; and then
        # ends as the child did, instead of going on with its next command.
        command = ["/bin/sh", "-c", f"trap 'exit $?' TERM\n{self.request.command}"]
        adopt_orphans()
        self._enter(self.state._replace(state=State.RUNNING, running_at=clock.now(), reason=""))
        process = subprocess.Popen(
            command,
            cwd=str(self.folder.tree),
            env=self._environment(slots),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
            # Should guard and supervisor both be killed, the job goes on, and may not be taken for
            # lost, nor its GPU for free, until it ends.
            pass_fds=(self.lock, *slots.descriptors),
        )
        try:
            reason = self._watch_over(process)
        finally:
            # Waited for here, because kill_below takes leave of whatever has ended.
            process.kill()
            process.wait()
            kill_below(os.getpid(), process.pid)
        state = reason.state if reason else State.FAILED
        code, number = _ending(process.returncode)
        if reason is None and code == 0:
            state = State.SUCCEEDED
        why = reason.reason if reason else _explain(number)
        if state is State.FAILED and not why and (full := why_full(self.folder.path)):
            why = _say_how(full)
        return self.state._replace(state=state, exit_code=code, signal=number, reason=why)

    def _watch_over(self, process: subprocess.Popen[bytes]) -> Optional[Stopped]:
        """Wait for the command's end, or until it had its grace and must be killed.

        Returns:
            Why it was made to end, if it was.
        """
        sampler = Sampler(self.folder.path, process.pid)
        started = time.monotonic()
        stopped: Optional[Stopped] = None
        kill_at = float("inf")
        reap_at = started
        while process.poll() is None:
            time.sleep(_POLL_S)
            sampler.tick()
            now = time.monotonic()
            if now >= reap_at:
                reap_orphans(process.pid)
                reap_at = now + _REAP_S
            if now >= kill_at:
                self.say("it did not end in time and is killed")
                break
            if stopped is None:
                stopped = self._reason_to_stop(now - started)
                if stopped is not None:
                    grace_s = self._warn(process, stopped)
                    kill_at = time.monotonic() + grace_s
        sampler.close()
        if stopped is None and self._was_told_as_well(process.returncode):
            stopped = self._told_to_stop()
        return stopped

    def _was_told_as_well(self, returncode: int) -> bool:
        """Whether a command that ended badly was only told to stop before we were."""
        late = time.monotonic() + (_LATE_S if _ending(returncode)[1] == signal.SIGTERM else 0.0)
        while not self.told_to_stop and time.monotonic() < late:
            time.sleep(_POLL_S)
        return self.told_to_stop and returncode != 0

    def _reason_to_stop(self, running_s: float) -> Optional[Stopped]:
        try:
            self._check()
        except Stopped as asked:
            return asked
        return self._out_of_time() if running_s >= self._left_s() else None

    def _left_s(self) -> float:
        """For how long the command may run yet, in this attempt."""
        limit_s = self.request.time_limit_s
        return float("inf") if limit_s is None else limit_s - ran_before_s(self.state)

    def _out_of_time(self) -> Stopped:
        limit = f"reached its time limit of {self.request.time_limit_s:g} s"
        return Stopped(State.TIMED_OUT, limit)

    def _warn(self, process: subprocess.Popen[bytes], stopped: Stopped) -> float:
        """Tell the job to save what it has; returns the seconds it gets for that."""
        grace_s = self.request.grace_s
        is_told = self.told_to_stop or self.folder.cancel.exists()
        if stopped.state is State.CANCELLED or (self.request.gang and is_told):
            grace_s = min(grace_s, _CANCEL_GRACE_S)
        self.say(f"{stopped.reason}; it is warned (SIGTERM) and has {grace_s:g} s to save")
        try:
            self.folder.stop.touch()
        except OSError:
            pass  # a full disk; the signal comes through
        send_signal([process.pid, *descendants(process.pid)], signal.SIGTERM)
        return grace_s

    def _environment(self, slots: Slots) -> Dict[str, str]:
        request, folder = self.request, self.folder
        environment = {
            **os.environ,
            **prepare_launch(folder.path, folder.package, self.python, request.metrics),
            "TRAINSHED_METRICS": str(folder.metrics),
            "TRAINSHED_PARAMS": json.dumps(request.params),
            **{f"PARAM_{key}": value for key, value in request.params.items()},
        }
        begin_metrics(folder.metrics)
        if request.restarts:
            self.folder.checkpoints.mkdir(exist_ok=True)
            environment["TRAINSHED_RESTARTS"] = str(self.state.restarts)
            environment["TRAINSHED_CHECKPOINTS"] = str(self.folder.checkpoints)
        if request.tensorboard:
            environment["TRAINSHED_EVENTS"] = str(self.folder.events)
        if request.gang is not None:
            environment.update(gang_environment(request.gang, self.addresses))
        if slots.gpus is not None:
            # -1 hides them all; an empty value would show them to some frameworks.
            environment["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # so that it counts as nvidia-smi does
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, slots.gpus)) or "-1"
        return environment

    def _finish(self, ending: RunState) -> None:
        outputs: Tuple[Artifact, ...] = ()
        troubles: List[str] = []
        try:
            if has_run(self.state):
                outputs = find_outputs(self.folder.tree, self.request.outputs, troubles.append)
        except (OSError, ValueError) as error:  # cannot be read, or a glob that is none
            self.say(f"the outputs could not be recorded: {error}")
            ending = ending._replace(state=State.FAILED, reason=f"outputs not recorded: {error}")
        if troubles:
            for trouble in troubles:
                self.say(trouble)
            more = f", and {len(troubles) - 1} more: see the log" if len(troubles) > 1 else ""
            reasons = [ending.reason] if ending.reason else []
            ending = ending._replace(reason="; ".join([*reasons, troubles[0] + more]))
        if ending.state is State.SUCCEEDED and self.request.check:
            ending = ending._replace(loadings=self._load(outputs))
        self._record(self.folder.artifacts, Artifacts(outputs), at_last=True)
        self._enter(ending._replace(ended_at=clock.now()))
        give_back(self.folder.path)

    def _load(self, outputs: Tuple[Artifact, ...]) -> Tuple[Loading, ...]:
        """Load the models that the job names; of none where it is told to end meanwhile."""
        made = [a.path for a in outputs if a.path in self.request.outputs]
        models = [path for path in made if path.endswith(MODEL_SUFFIXES)][:LIMIT]
        if not models:
            return ()
        self.say(f"looking whether it can be loaded: {', '.join(models)}")
        folder = self.folder
        try:
            return load_models(self.python, folder.package, folder.tree, models, self.pause)
        except (Stopped, OSError) as error:
            self.say(f"it was not looked at: {error}")
            return ()

    def _leave(self, interrupted: RunState) -> None:
        """Without a final state and without a supervisor a run is one to be restarted."""
        self.say(f"interrupted: {interrupted.reason}; it goes on when it is asked for again")
        with suppress(OSError):  # a full disk; the state that stands is none of an end, either
            self._enter(interrupted)
        end = time.monotonic() + _NOTICE_S
        # A restart on a machine that is about to go would be spent for nothing.
        while self.folder.notice.exists() and not self.told_to_stop and time.monotonic() < end:
            if self.folder.cancel.exists():
                asked = self._asked_to_end()
                self._finish(interrupted._replace(state=asked.state, reason=asked.reason))
                return
            time.sleep(_POLL_S)

    def _enter(self, state: RunState) -> None:
        self._record(self.folder.state, state, at_last=state.state.final)
        self.state = state

    def _record(self, path: Path, record: object, *, at_last: bool = False) -> None:
        """Args:
        at_last: these are the run's last words, which have all the time there is.

        Raises:
            OSError: no room for other words.
        """
        while True:
            try:
                return replace_file(path, to_bytes(record))
            except OSError:
                self._check_is_there()
                if not at_last:
                    raise
                # A full disk may be cleared; until then the old state stands and the lock is held.
                if not give_back(self.folder.path):
                    time.sleep(_STATE_RETRY_S)

    def _check_is_there(self) -> None:
        """A run whose lock is not the one in its folder counts as dead: its slot may be given to
        another, and the same run may be started again. So nothing of it may go on.
        """
        try:
            is_ours = os.path.samestat(os.fstat(self.lock), self.folder.lock.stat())
        except OSError as error:
            # A server of files that does not answer for a moment has not removed it.
            is_ours = error.errno not in _GONE
        if not is_ours:
            raise Removed(1)

    def _check(self) -> None:
        self._check_is_there()
        if self.folder.cancel.exists():
            raise self._asked_to_end()
        if self.told_to_stop:
            raise self._told_to_stop()
        if self.folder.notice.exists():
            raise self._noticed()
        if time.monotonic() >= self.set_up_until:
            limit = f"{_SETUP_LIMIT_S / 60:g} minutes"
            raise Stopped(State.SETUP_FAILED, f"setting up took more than {limit}: see the log")

    def _asked_to_end(self) -> Stopped:
        try:
            return _fallen_with(from_bytes(Ended, self.folder.cancel.read_bytes()))
        except (OSError, Malformed):
            return Stopped(State.CANCELLED, why_cancelled(self.folder))

    def _told_to_stop(self) -> Stopped:
        for ended in ended_others(self.folder, self.request):
            if ended.state is not State.SUCCEEDED:
                return _fallen_with(ended)
        if self.request.slurm is not None:
            from remote.slurm import time_left

            left_s = time_left()
            # Slurm warns up to a minute before the time it was told to.
            if left_s is not None and left_s <= warning_s(self.request) + 60:
                return Stopped(State.TIMED_OUT, "reached the time limit of its job in Slurm")
            what = "its gang" if self.request.gang else "it"
            return self._interruption(f"Slurm told {what} to stop (SIGTERM)")
        return self._interruption("the machine told it to stop (SIGTERM)")

    def _noticed(self) -> Stopped:
        try:
            why, _, more = self.folder.notice.read_text("utf-8", "replace").strip().partition("\n")
        except OSError:
            why = more = ""
        if more == STAYS_ON:
            return Stopped(State.FAILED, f"{why[:200]}: its time on this machine is over")
        return self._interruption(
            f"the machine goes off: {why[:200]}" if why else "the machine is about to go off"
        )

    def _interruption(self, reason: str) -> Stopped:
        return Stopped(self.state.state if may_restart(self.folder) else State.FAILED, reason)

    def _on_sigterm(self, number: int, frame: object) -> None:
        self.told_to_stop = True


def _fallen_with(ended: Ended) -> Stopped:
    """None of a gang goes on without the others."""
    if ended.state is State.CANCELLED:
        return Stopped(State.CANCELLED, BY_USER)
    late = ended.state is State.TIMED_OUT
    return Stopped(
        State.TIMED_OUT if late else State.FAILED,
        f"{ended.who} of its gang {ended.state.value}",
    )


def _say_how(full: str) -> str:
    return f"{full}; train gc tells what could go"


def _ending(returncode: int) -> Tuple[Optional[int], Optional[int]]:
    """Exit code and signal of the command, seen through the shell that ran it."""
    if returncode < 0:
        return None, -returncode
    # A shell reports a child ended by signal N as 128 + N (POSIX only asks for more than 128).
    if returncode > 128 and returncode - 128 in {item.value for item in signal.Signals}:
        return returncode, returncode - 128
    return returncode, None


def _explain(number: Optional[int]) -> str:
    if number is None:
        return ""
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal; only the first and the last have names
        name = f"signal {number}"
    if number == signal.SIGKILL:
        return f"ended by {name}: killed, perhaps because the machine ran out of memory"
    return f"ended by {name}"


def stand_guard() -> None:
    """Return in a child process; this one stays, to end what the child leaves when it is killed.

    Otherwise the job of a killed supervisor would go on unseen, on a machine that costs money. The
    run's lock is held until nothing of it is left.
    """
    adopt_orphans()
    child = os.fork()
    if child == 0:
        return

    # The warning is for the supervisor, which has something to save. Before a shutdown each process
    # gets it; from Slurm, the first one of a job.
    def pass_on(number: int, frame: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    signal.signal(signal.SIGTERM, pass_on)
    _, status = os.waitpid(child, 0)
    kill_below(os.getpid(), child)
    # A cluster takes 0 for an end that needs no word of its own.
    os._exit(1 if status else 0)


def main(arguments: Tuple[str, ...]) -> None:
    """Supervise the run in folder `arguments[0]`, whose lock is in descriptor `arguments[1]`; where
    that is not given, a cluster has started it, and the lock is to be taken.
    """
    folder = RunFolder(Path(arguments[0]))
    lock = int(arguments[1]) if len(arguments) > 1 else take_over(folder)
    os.set_inheritable(lock, False)
    stand_guard()
    supervisor = Supervisor(folder, lock)
    supervisor.run()
    reap()
    state, gang = supervisor.state.state, supervisor.request.gang
    # Of a gang, that tells srun to end the others.
    if not state.final or (gang and state is not State.SUCCEEDED):
        raise SystemExit(1)
