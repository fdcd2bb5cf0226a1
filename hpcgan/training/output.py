"""What rank 0 writes and shows of an attempt: lease, records, curves, samples, lines; other ranks do nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shlex
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import hpcgan
from hpcgan.comm.base import Comm
from hpcgan.config import Config
from hpcgan.data.schema import Sample, take
from hpcgan.errors import EXIT_BAD_INPUT, EnvironmentFailure, HpcganError, InputError, Interrupted, Stopped
from hpcgan.launch.topology import available_cores
from hpcgan.methods.base import ATTENTION, NONFINITE
from hpcgan.problems import run_data
from hpcgan.problems.events import Use, doubts, weights_used
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs import curves, records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease
from hpcgan.system.allocation import current_job
from hpcgan.system.failure import Failure
from hpcgan.system.files import warn
from hpcgan.tracking.follower import Follower
from hpcgan.training.assembly import Assembly
from hpcgan.training.progress import Clock, Phases, Reporter
from hpcgan.training.staged import summary
from hpcgan.training.state import Snapshot

RECORD_EVERY = 50  # steps between `step` records
SAMPLE_EVENTS = 16  # stored after every epoch, to look at


class Output:
    """The output of an attempt; a context that ends it, with the way in which it ended.

    Parameters
    ----------
    assembly : Assembly
        Possibly restored from a checkpoint.
    run : RunDirectory
    terminal : bool
        Whether a person reads on a terminal.
    phases : Phases
        Of the start of the attempt.

    Attributes
    ----------
    phases : Phases
    pruned : str or None
        Why the training ended before its last epoch, by somebody's verdict.
    """

    def __init__(self, assembly: Assembly, run: RunDirectory, terminal: bool, phases: Phases) -> None:
        self._assembly, self._run, self.phases = assembly, run, phases
        config = assembly.config
        self._reporter = Reporter(
            assembly.comm.is_root, terminal, config.training.epochs, assembly.method.losses, assembly.epochs_done
        )
        self._lease: Lease | None = None
        self._records: records.Writer | None = None
        self._events: Any = None
        self._follower: Follower | None = None
        self._conditions: Sample | None = None
        self.pruned: str | None = None

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        counters, epochs = self._assembly.state.counters, self._assembly.config.training.epochs
        comm, failure = self._assembly.comm, None
        outcome: records.Outcome = "done"
        if isinstance(error, Interrupted):
            outcome = "stopped" if isinstance(error, Stopped) else "interrupted"
        elif error is not None:
            outcome, failure = "failed", Failure.of(error, comm.rank if comm.size > 1 else None)
        elif self.pruned is not None:
            self.message(f"ended after epoch {counters.epoch} of {epochs}: {self.pruned}")
            outcome = "pruned"
        self._reporter.close()
        # What cannot be written must not hide the error that ends a run.
        hidden = () if error is None else (HpcganError, OSError)
        if self._records is not None:
            with contextlib.suppress(*hidden):
                self._records.write(records.End(step=counters.step, outcome=outcome, failure=failure))
            self._records.close()
        if self._lease is not None:
            with contextlib.suppress(*hidden):
                self._lease.release(outcome)
        if self._follower is not None:  # after a failure, nobody waits: other ranks may wait for this one
            self._follower.finish(wait=outcome != "failed")

    def open(self, data: run_data.RunData, started_from: Path | None) -> None:
        """Take the lease and begin the records, on rank 0.

        Parameters
        ----------
        data : RunData
        started_from : Path or None
            The checkpoint whose weights the training begins with.
        """
        assembly, run, comm = self._assembly, self._run, self._assembly.comm
        if not comm.is_root:
            return
        counters = assembly.state.counters
        try:
            self._lease = Lease(run, on_lost=lambda text: comm.abort(text, EXIT_BAD_INPUT, kind="environment"))
            attempt = self._lease.attempt
            self._records = records.Writer(run.metrics_file, attempt)
            origin_of_weights = {} if started_from is None else {"started_from": str(started_from)}
            origin = {
                "attempt": attempt,
                "step": counters.step,
                "born": time.time() - self.phases.total(),
                **provenance(assembly.config, comm, data),
                "phases": self.phases.seconds,
            }
            records.append(run.provenance_file, {**origin, **origin_of_weights})
            copies = assembly.inputs.staged.copies
            start = records.Start(step=counters.step, ranks=comm.size, samples=counters.samples, copies=copies)
            self._records.write(start)
            with _written_by_tensorflow(run.tensorboard):
                self._events = tf.summary.create_file_writer(os.fsencode(run.tensorboard))
            self._follower = Follower(assembly.config.tracking, run)
        except OSError as error:
            raise EnvironmentFailure(f"{run.path}: cannot write: {error.strerror}") from None
        if assembly.problem.conditions:
            validation = assembly.inputs.validation
            events = np.arange(assembly.sampler.batch_size) % len(validation)
            self._conditions = take(validation.conditions(), events)

    @property
    def attempt(self) -> int:
        """Number of the attempt, on rank 0; 0 elsewhere."""
        return 0 if self._lease is None else self._lease.attempt

    def message(self, text: str) -> None:
        """One line to who watches."""
        self._reporter.message(text)

    def announce(self, started_from: Path | None) -> None:
        """What is about to be trained, and what is doubtful about it."""
        assembly = self._assembly
        config, counters, sharding = assembly.config, assembly.state.counters, assembly.sharding
        comm, validation_events = assembly.comm, len(assembly.inputs.validation)
        self.message(
            f"{config.name}: problem {config.problem}, {comm.size} rank{'s' * (comm.size > 1)} ({comm.backend}), "
            f"batch {sharding.batch_size} a rank, {sharding.steps_per_epoch} steps an epoch of {sharding.n} "
            f"events, run {self._run.path}"
        )
        if copies := assembly.inputs.staged.copies:
            self.message(summary(copies))
        if comm.advice:
            self.message(comm.advice)
        if comm.is_root:
            self._announce_events()
        if counters.step:
            epochs = config.training.epochs
            self.message(f"resuming at step {counters.step}, in epoch {min(counters.epoch + 1, epochs)} of {epochs}")
        if counters.commanded.paused:
            self.message(f"paused by a command, until hpcgan control {shlex.quote(str(self._run.path))} resume")
        if (before := counters.under_way.global_batch) not in (0, sharding.global_batch):
            self.message(
                f"the global batch was {before} and is {sharding.global_batch} on this number of "
                "ranks: the training goes on, but not as it would have (training.global_batch_size keeps it the same)"
            )
        if config.scoring.every_epochs and validation_events < config.scoring.events:
            self.message(
                f"scoring with N={validation_events}, all validation events there are: "
                f"not comparable with scores at N={config.scoring.events}"
            )
        if started_from is not None:
            self.message(f"starting from the weights of {started_from}")

    def _announce_events(self) -> None:
        """How events count, and what is doubtful about them; of both splits alike it is said once."""
        inputs, use = self._assembly.inputs, Use.of(self._assembly.config.data)
        weights = weights_used(inputs.training)
        if weights is not None:
            self.message(weights)
        for text in doubts(inputs.training, use) or doubts(inputs.validation, use, trained=False):
            warn(text)

    # --- records -------------------------------------------------------------------------------------

    def begun(self) -> None:
        """The first step of the attempt is done, which ends what it takes to start."""
        step = self._assembly.state.counters.step
        self._write(records.Begun(step=step, startup_s=self.phases.total(), phases=dict(self.phases.seconds)))

    def step(self, metrics: Mapping[str, float], clock: Clock) -> None:
        """A step is done."""
        counters, epochs = self._assembly.state.counters, self._assembly.epochs_done
        values = {k: v for k, v in metrics.items() if k not in (NONFINITE, ATTENTION)}
        self._reporter.step(epochs, lambda: clock.rate(counters.samples), values)
        if counters.step % RECORD_EVERY == 0:
            record = records.Step(step=counters.step, samples=counters.samples, epoch=epochs, metrics=dict(values))
            self._write(record)
            self._tensorboard(record)

    def epoch(self, record: records.Epoch) -> None:
        """An epoch is done: its record, and some generated events to look at."""
        self._write(record)
        self._tensorboard(record)
        self._store_samples(record.epoch)
        self._reporter.epoch(record)

    def rollback(self, reason: str, to_step: int) -> None:
        """The training has gone back."""
        counters = self._assembly.state.counters
        self._write(records.Rollback(step=counters.step, reason=reason, to_step=to_step, count=counters.rollbacks))

    def commands(self, commands: Sequence[Mapping[str, Any]], learning_rates: list[records.Numbers]) -> None:
        """Commands were obeyed, or refused; the learning rates are those of each rank from here on."""
        counters = self._assembly.state.counters
        for command in commands:
            record = records.Command(
                step=counters.step, **command, paused=counters.commanded.paused, learning_rates=learning_rates
            )
            self._write(record)
            self.message(f"step {counters.step}: {_spoken(command)}")

    def save(self, snapshot: Snapshot, score: float | None) -> None:
        """Write a checkpoint, on rank 0, if no newer attempt has taken over; in any thread.

        Raises
        ------
        HpcganError, OSError
            The lease is lost, or the checkpoint cannot be written.
        """
        if self._lease is None or self._records is None:
            return
        self._lease.check()
        self._records.sync()
        checkpoints.save(self._run.checkpoints, snapshot.step, snapshot.arrays, snapshot.meta, score)
        checkpoints.prune(self._run.checkpoints, self._assembly.config.checkpoint.keep, snapshot.best_step)

    def saved(self, step: int, waited: float, seconds: float) -> None:
        """A checkpoint holds a step: what the training waited for that, and what the write took, in seconds."""
        self._write(records.Checkpoint(step=step, seconds=waited, write_seconds=seconds))

    def _write(self, record: records.Record) -> None:
        if self._records is not None:
            self._records.write(record)

    def _tensorboard(self, record: records.Step | records.Epoch) -> None:
        if self._events is None:
            return
        with _written_by_tensorflow(self._run.tensorboard):
            with self._events.as_default():
                for name, value in curves.values(record).items():
                    tf.summary.scalar(name, value, step=self._assembly.state.counters.samples)
            self._events.flush()

    def _store_samples(self, epoch: int) -> None:
        if self._records is None:
            return
        assembly = self._assembly
        batch = assembly.sampler.batch(assembly.config.seed, "score", epoch, 0, self._conditions)
        events = take(batch, slice(0, SAMPLE_EVENTS))
        count = len(next(iter(events.values())))
        path = self._run.samples / f"epoch-{epoch:04d}.h5"
        try:
            with assembly.problem.writer(path, count, {"epoch": epoch}, force=True) as write:
                write(events)
        except InputError as error:  # no space, say: true of the disk, but no input of a training
            cause = str(error).split(";")[0].removeprefix(f"{path.parent}: ")
            raise EnvironmentFailure(
                f"{path}: cannot write ({cause}); make room, then the same command goes on from the last checkpoint"
            ) from None


@contextlib.contextmanager
def _written_by_tensorflow(path: Path) -> Iterator[None]:
    """TensorFlow's errors of writing as ours, in one line."""
    try:
        yield
    except tf.errors.OpError as error:
        text = re.sub(r"^\{\{.*?\}\} ", "", str(error).strip().splitlines()[0])  # without its name of a node
        raise EnvironmentFailure(f"{path}: cannot write: {text}") from None


def provenance(config: Config, comm: Comm, data: run_data.RunData) -> dict[str, Any]:
    """Where, when and with what an attempt runs."""
    job = current_job(os.environ)
    return {
        "time": time.time(),
        "command": shlex.join(sys.argv),
        "host": socket.gethostname(),
        "ranks": comm.size,
        "backend": comm.backend,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "cores": comm.size * (tf.config.threading.get_intra_op_parallelism_threads() or available_cores()),
        "hpcgan": hpcgan.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "machine": platform.machine(),
        "identity": config.identity_hash(),
        "data": {"path": data.places[0], **data.fingerprints(run_data.SPLITS)},
        "slurm_job": None if job is None else job.id,
        "slurm_restarts": None if job is None else job.restarts,
    }


def _spoken(command: Mapping[str, Any]) -> str:
    if command["refused"]:
        return f"a command was refused: {command['refused']}"
    rates = ", ".join(f"{network} {rate:g}" for network, rate in command["rates"].items())
    return f"command {command['name']}{': learning rate of ' + rates if rates else ''}"
