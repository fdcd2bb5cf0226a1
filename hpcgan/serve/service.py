"""The service behind its ways in: generators, what waits for them, and the workers that make events."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hpcgan.config import Config
from hpcgan.data.schema import Sample
from hpcgan.errors import InputError
from hpcgan.problems import run_data
from hpcgan.problems.base import Problem, problem_class
from hpcgan.runs.directory import trained_run
from hpcgan.serve import asking, protocol
from hpcgan.serve.limits import Limits
from hpcgan.serve.merging import Batch, Merger
from hpcgan.serve.metrics import Metrics
from hpcgan.serve.protocol import Request
from hpcgan.serve.refusal import Refusal
from hpcgan.serve.workers import Plan, Workers

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Model:
    """A generator that is served.

    Attributes
    ----------
    name : str
        What requests call it.
    run : str
    checkpoint : "best" or "latest"
    config : Config
    problem : Problem
    batch_size : int
        Events that are made at a time.
    """

    name: str
    run: str
    checkpoint: Literal["best", "latest"]
    config: Config
    problem: Problem
    batch_size: int

    @property
    def note(self) -> str | None:
        """What is unlike `hpcgan generate`, if anything is."""
        if self.config.scoring.statistics == "moving":
            return None
        return (
            f"{self.run}: `hpcgan generate` uses the statistics of each batch (scoring.statistics=batch), with which "
            "an event depends on the others of its batch; the service uses the moving ones"
        )


def open_models(runs: Sequence[str], checkpoint: Literal["best", "latest"], batch_size: int | None) -> list[Model]:
    """The generators of runs, without their weights.

    Parameters
    ----------
    runs : sequence of str
        `RUN` or `NAME=RUN`; a run has the name of its folder.
    checkpoint : "best" or "latest"
    batch_size : int, optional
        By default `training.batch_size` of each run.

    Raises
    ------
    InputError
        No run, not a name, or two of one name.
    """
    models: dict[str, Model] = {}
    for text in runs:
        name, is_named, run = text.partition("=")
        if not is_named or "/" in name or Path(text).exists():
            name, run = "", text
        directory = trained_run(run)
        name = name or directory.path.resolve().name
        if not _NAME.fullmatch(name):
            raise InputError(f"{text}: '{name}' is no name for a generator; give NAME=RUN, of letters, digits, . _ -")
        if name in models:
            raise InputError(f"{text}: there is a generator '{name}' already; give NAME=RUN another name")
        config = run_data.load(directory)
        problem = problem_class(config.problem)(config.model)
        models[name] = Model(name, run, checkpoint, config, problem, batch_size or config.training.batch_size)
    return list(models.values())


class Service:
    """Generators and their workers.

    Parameters
    ----------
    models : sequence of Model
    limits : Limits
    workers : int
        Processes that make events.
    note : callable
        Takes a line about what happens.
    """

    def __init__(self, models: Sequence[Model], limits: Limits, workers: int, note: Callable[[str], None]) -> None:
        self.models, self.limits = tuple(models), limits
        self.metrics = Metrics()
        self._numbers = {model.name: number for number, model in enumerate(self.models)}
        self._held = 0
        self._merger = Merger([model.batch_size for model in self.models], limits.latency_s)
        told = [{"run": m.run, "checkpoint": m.checkpoint, "batch_size": m.batch_size} for m in self.models]
        outputs = [asking.outputs(model.problem) for model in self.models]
        self.workers = Workers(Plan(told, outputs, workers, limits.timeout_s), self._merger, note)
        self.workers.batches = self._count
        for name, text, value in (
            ("hpcgan_held_events", "Events that wait, are being made or sent.", lambda: self._held),
            ("hpcgan_workers_ready", "Workers that can make events.", lambda: self.workers.ready),
            ("hpcgan_worker_restarts", "Workers started for others that had ended.", lambda: self.workers.restarts),
        ):
            self.metrics.watch(name, text, value)

    def _count(self, batch: Batch) -> None:
        model = self.models[batch.model]
        self.metrics.fill.labels(model.name).observe(sum(part.n for part in batch.parts) / model.batch_size)

    @property
    def is_ready(self) -> bool:
        """Whether a request would be worked on at once."""
        return self.workers.ready > 0

    def model(self, name: str, version: str = "") -> Model:
        """A generator by the name that a request calls it.

        Raises
        ------
        Refusal
            There is none, or none of this version.
        """
        if name not in self._numbers:
            raise Refusal(404, f"there is no model '{name[:64]}'; there are {', '.join(self._numbers)}")
        model = self.models[self._numbers[name]]
        if version and version != self.version(model):
            raise Refusal(404, f"model '{name}' has version {self.version(model) or '(not loaded yet)'} only")
        return model

    def version(self, model: Model) -> str:
        """The step of a generator's checkpoint; empty until it is loaded."""
        loaded = self.workers.checkpoints
        return "" if loaded is None else str(loaded[self._numbers[model.name]]["step"])

    def metadata(self, model: Model) -> dict[str, Any]:
        """What the protocol says of a generator."""
        return asking.metadata(model.name, self.version(model), model.problem)

    @contextlib.asynccontextmanager
    async def making(self, model: Model, request: Request) -> AsyncIterator[asyncio.Future[Sample]]:
        """Have the events of a request made; they count as held until the block ends: best when they are sent.

        Raises
        ------
        Refusal
            400: a request that asks for what there is not. 503: too many events are held, or the service stops.
        """
        try:
            asked = asking.read(model.problem, request.inputs, self.limits.request_events)
            schema = model.problem.schema
            sizes = {name: asked.n * math.prod(schema[name].shape) for name in asking.outputs(model.problem)}
            protocol.check_size(request, sizes)
        except InputError as error:
            raise Refusal(400, str(error)) from None
        if self._held + asked.n > self.limits.held_events:
            raise Refusal(
                503, f"{self._held} events are asked for already, at most {self.limits.held_events}; ask again later"
            )
        self._held += asked.n
        try:
            job = self._merger.add(self._numbers[model.name], asked)
            try:
                yield asyncio.wrap_future(job.future)
            finally:
                job.future.cancel()  # of a client that has left: nothing more is made for it
        finally:
            self._held -= asked.n

    def count(self, model: Model, way: str, status: int, began: float, events: int) -> None:
        """Count a request that has ended.

        Parameters
        ----------
        model : Model
        way : str
            `http` or `grpc`.
        status : int
            Of HTTP.
        began : float
            `time.monotonic()` when it came.
        events : int
            That were sent.
        """
        self.metrics.requests.labels(model.name, way, str(status)).inc()
        if events:
            self.metrics.seconds.labels(model.name).observe(time.monotonic() - began)
            self.metrics.events.labels(model.name).inc(events)

    def start(self) -> None:
        """Start the workers."""
        self.workers.start()

    def close(self) -> None:
        """Take no more requests; return when those that were taken are made and the workers have ended."""
        self._merger.close()
        self.workers.join()
