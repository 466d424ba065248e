"""MLflow: runs written to a tracking server. The only door to it.

The client is mlflow-skinny. What is to be written is compared with what is there, so writing a run
again adds what is new and changes nothing else. A crash in the middle leaves at most a part of its
metrics, and servers keep one that comes again only once.

Source: mlflow/utils/validation.py of MLflow 3.17, for what names and batches may be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.clouds.secret import Secret
from orchestrator.errors import ConnectError, UsageError
from orchestrator.records.curves import Epoch
from orchestrator.trackers.tracked import Tracked, status
from remote import clock

# Ours go by this prefix, the metrics and parameters of the script by their own names.
_OURS = "trainshed."
_EPOCHS = "epochs written"

_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
_METRICS_AT_ONCE = 1000
_OTHERS_AT_ONCE = 100
_TEXT_LIMIT = 5000

# Its own patience is minutes for a server that is not there, and it reports how it is used.
_MANNERS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Experiment:
    """The runs of a workspace on a tracking server.

    Args:
        uri: as MLflow takes it; a login in it is used and shown nowhere.
        name: unless MLFLOW_EXPERIMENT_NAME says another.

    Attributes:
        where: the server, for people.

    Raises:
        UsageError: MLflow is not installed, or the server does not let us.
        ConnectError: the server cannot be reached.
    """

    def __init__(self, uri: str, name: str) -> None:
        self.where, self._secrets = _log_in(uri)
        self.name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
        os.environ.update({key: os.environ.get(key, word) for key, word in _MANNERS.items()})
        try:
            import mlflow.entities
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise UsageError(
                "MLflow is not installed", fix="pip install 'trainshed[mlflow]'"
            ) from error
        self._kinds = mlflow.entities
        with self._asking():
            self._client: Any = MlflowClient(self.where)
            found = self._client.get_experiment_by_name(self.name)
            self._id = found.experiment_id if found else self._client.create_experiment(self.name)

    def write(self, run: Tracked) -> bool:
        """Make the server know what we know of a run; whether anything had to be added."""
        with self._asking():
            there = self._find(run) or self._client.create_run(
                self._id,
                start_time=_milliseconds(run.started_at),
                tags={f"{_OURS}run": run.run_id},
                run_name=run.run_id,
            )
            added = self._write_metrics(there, run)
            added |= self._write_model(there, run)
            # Last, because they say what has been written.
            added |= self._write_texts(there, run)
            wanted = status(run.state)
            if there.info.status != wanted:
                ended_at = _milliseconds(run.ended_at) if run.ended_at else None
                self._client.set_terminated(there.info.run_id, wanted, ended_at)
                added = True
        return added

    def _find(self, run: Tracked) -> Any:  # noqa: ANN401  # MLflow's own class
        # A run id holds no quotes.
        mine = f"tags.`{_OURS}run` = '{run.run_id}'"
        found = self._client.search_runs([self._id], mine, max_results=1)
        return found[0] if found else None

    def _write_metrics(self, there: Any, run: Tracked) -> bool:  # noqa: ANN401
        told = int(there.data.tags.get(f"{_OURS}{_EPOCHS}", 0))
        metrics = [
            self._kinds.Metric(_name(name), value, _milliseconds(_end(epoch, run)), step)
            for step, epoch in enumerate(run.epochs, 1)
            for name, value in epoch.metrics.items()
            if step > told and value is not None
        ]
        at = _milliseconds(run.ended_at or run.started_at)
        metrics += [
            self._kinds.Metric(f"{_OURS}{name}", value, at, 0)
            for name, value in run.numbers.items()
            if there.data.metrics.get(f"{_OURS}{name}") != value
        ]
        for begin in range(0, len(metrics), _METRICS_AT_ONCE):
            some = metrics[begin : begin + _METRICS_AT_ONCE]
            self._client.log_batch(there.info.run_id, metrics=some)
        return bool(metrics)

    def _write_model(self, there: Any, run: Tracked) -> bool:  # noqa: ANN401
        if run.model is None or there.data.tags.get(f"{_OURS}model") == run.tags["model"]:
            return False
        self._client.log_artifact(there.info.run_id, os.fspath(run.model), "model")
        return True

    def _write_texts(self, there: Any, run: Tracked) -> bool:  # noqa: ANN401
        ours = {f"{_OURS}{name}": text for name, text in run.tags.items()}
        if run.epochs:
            ours[f"{_OURS}{_EPOCHS}"] = str(len(run.epochs))
        tags = [self._kinds.RunTag(*pair) for pair in _new(ours, there.data.tags)]
        params = [self._kinds.Param(*pair) for pair in _new(run.params, there.data.params)]
        for begin in range(0, len(params), _OTHERS_AT_ONCE):
            some = params[begin : begin + _OTHERS_AT_ONCE]
            self._client.log_batch(there.info.run_id, params=some)
        if tags:
            self._client.log_batch(there.info.run_id, tags=tags)
        return bool(tags or params)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What the server, or the way to it, says against it is said in our words."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            # Of an answer it makes an exception of its own; what requests raises is an OSError.
            if isinstance(error.__context__, OSError):
                raise ConnectError(
                    f"cannot reach the tracking server {self.where}",
                    cause=self._shown(_first(error)),
                    fix="check the address, and that `mlflow server` runs there",
                ) from None
            cause = self._shown(error)
            raise UsageError(f"the tracking server {self.where} refuses", cause=cause) from None

    def _shown(self, error: BaseException) -> str:
        text = str(error).partition("\n")[0]
        for secret in self._secrets:
            text = secret.hide_in(text)
        return text[:400]


def _log_in(uri: str) -> tuple[str, tuple[Secret, ...]]:
    """The address without the login in it, which goes to where MLflow looks for one."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri, ()
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = (unquote(part) for part in login.partition(":"))
    os.environ["MLFLOW_TRACKING_USERNAME"] = user
    os.environ["MLFLOW_TRACKING_PASSWORD"] = password
    return parts._replace(netloc=host).geturl(), (Secret(password), Secret(login))


def _new(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[tuple[str, str]]:
    cut = {_name(name): text[:_TEXT_LIMIT] for name, text in wanted.items()}
    return [(name, text) for name, text in cut.items() if there.get(name) != text]


def _first(error: BaseException) -> BaseException:
    """What it all began with; the others repeat it in ever more words."""
    while before := error.__cause__ or error.__context__:
        error = before
    return error


def _name(text: str) -> str:
    """As a server takes it."""
    return _NOT_IN_NAMES.sub("_", text)[:250]


def _end(epoch: Epoch, run: Tracked) -> datetime:
    """The run's start where the script tells no time of an epoch, or none that is one."""
    try:
        return clock.parse(epoch.at)
    except ValueError:
        return run.started_at


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
