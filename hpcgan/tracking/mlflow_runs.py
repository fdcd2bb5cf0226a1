"""Tracked runs of MLflow, on a server or in a database of its own.

MLflow keeps every number that it is told, and shows all numbers of one step: none can be replaced, but the same number
told again changes nothing in a database. Parameters cannot be changed: what another attempt has another value of, such
as `training.epochs`, is a tag `now.KEY` beside the parameter.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from hpcgan.config import TrackingConfig
from hpcgan.runs.curves import Point
from hpcgan.tracking.base import Status, Tracker

#: The most that MLflow takes at once, and the longest of texts.
METRICS, PARAMETERS, TAGS, LONGEST = 1000, 100, 100, 5000
KEY, NOW = "hpcgan.key", "now."
STATES: Mapping[Status, str] = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "interrupted": "SCHEDULED",  # MLflow's word for a run that will go on
    "failed": "FAILED",
}
#: Tries and seconds of a request: the process that tells a tracker tries again by itself, and has a limit of time. And
#: no messages to MLflow's makers, whom compute nodes often cannot reach.
VARIABLES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
T = TypeVar("T")


class MlflowTracker(Tracker):
    """The run of MLflow of a run directory; `tracking.project` is its experiment."""

    package = "mlflow"

    def __init__(self, settings: TrackingConfig, folder: Path) -> None:
        super().__init__(settings, folder)
        for name, value in VARIABLES.items():
            os.environ.setdefault(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow

            self._uri = settings.uri or mlflow.get_tracking_uri()
            self._client: Any = mlflow.MlflowClient(self._uri)
        self.place = f"{without_password(self._uri)} {settings.project}"
        self._run: Any = None

    def find(self, key: str) -> bool:
        self._run = next(iter(self._runs(self._experiment(), key)), None)
        return self._run is not None

    def begin(self, key: str, started: float) -> None:
        tags = {KEY: key, "mlflow.source.name": "hpcgan", "mlflow.source.type": "JOB"}
        self._run = self._client.create_run(self._experiment(), start_time=_ms(started), run_name=self.name, tags=tags)

    def describe(self, parameters: Mapping[str, str], facts: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        texts = {clean(name): text[:LONGEST] for name, text in parameters.items()}
        existing = self._client.get_run(self._id).data
        first = {**texts, **existing.params}
        changed = {f"{NOW}{name}": text for name, text in texts.items() if first[name] != text}
        for name in existing.tags:
            if name.startswith(NOW) and name not in changed:  # it has its first value again
                self._client.delete_tag(self._id, name)
        for part in _chunks([Param(name, first[name]) for name in texts], PARAMETERS):
            self._client.log_batch(self._id, params=part)
        tags = {**changed, **{f"hpcgan.{clean(name)}": text[:LONGEST] for name, text in facts.items()}}
        for part in _chunks([RunTag(name, text) for name, text in tags.items()], TAGS):
            self._client.log_batch(self._id, tags=part)

    def log(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(clean(name), value, _ms(point.time), point.samples)
            for point in points
            for name, value in point.values.items()
        ]
        for part in _chunks(metrics, METRICS):
            self._client.log_batch(self._id, metrics=part)

    def upload(self, path: Path, name: str) -> None:
        folder = str(Path(name).parent)
        self._client.log_artifact(self._id, str(path), None if folder == "." else folder)

    def state(self, status: Status, when: float) -> None:
        if status == "finished" or status == "failed":
            self._client.set_terminated(self._id, STATES[status], _ms(when))
        else:
            self._client.update_run(self._id, status=STATES[status])

    def discard(self, key: str) -> None:
        for run in self._runs(self._experiment(), key):
            self._client.set_tag(run.info.run_id, "hpcgan.replaced", "a later attempt went on from an earlier step")
            self._client.delete_run(run.info.run_id)  # MLflow keeps it among the deleted ones

    def address(self) -> str:
        return f"{without_password(self._uri)}, experiment {self.settings.project}, run {self._id}"

    @property
    def _id(self) -> str:
        return str(self._run.info.run_id)

    def _experiment(self) -> str:
        experiment = self._client.get_experiment_by_name(self.settings.project)
        if experiment is None:
            place = self._uri.removeprefix("sqlite:///")
            # Beside the database, as MLflow would otherwise take a folder of whatever the working directory is.
            files = None if place == self._uri else Path(place).absolute().with_name("mlartifacts").as_uri()
            return str(self._client.create_experiment(self.settings.project, artifact_location=files))
        return str(experiment.experiment_id)

    def _runs(self, experiment: str, key: str) -> list[Any]:
        return list(self._client.search_runs([experiment], f"tags.`{KEY}` = '{key}'"))


def clean(name: str) -> str:
    """A name with the characters that MLflow takes."""
    text = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:250]
    return text if not re.search(r"(^/)|(//)|(^|/)\.{1,2}(/|$)|/$", text) else text.replace("/", "_").replace("..", "_")


def without_password(uri: str) -> str:
    """An address without the user's name and password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if parts.netloc else uri


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _chunks(items: Sequence[T], most: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, most)):
        yield chunk
