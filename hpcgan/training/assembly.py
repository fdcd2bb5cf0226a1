"""One attempt at a training, assembled from a configuration: the only place that knows all the parts."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import hpcgan
from hpcgan.comm.agreement import agreed
from hpcgan.comm.base import Comm
from hpcgan.config import Config
from hpcgan.data.pipeline import Pipeline
from hpcgan.data.schema import Sample, take
from hpcgan.data.sharding import Sharding, rank_batch
from hpcgan.data.source import Source
from hpcgan.data.storage import check_space
from hpcgan.errors import EXIT_BAD_INPUT, EnvironmentFailure, HpcganError, InputError, Interrupted, Stopped
from hpcgan.evaluation.diversity import Diversity, DiversityMeter
from hpcgan.evaluation.sample import scored_network
from hpcgan.evaluation.score import Scorer
from hpcgan.methods.base import Method, method_class
from hpcgan.methods.sampler import Sampler, make_sampler
from hpcgan.problems import run_data
from hpcgan.problems.base import Problem, problem_class
from hpcgan.problems.events import Use, doubts, open_split, weights_of_first, weights_used
from hpcgan.runs import checkpoint as checkpoints
from hpcgan.runs import records
from hpcgan.runs.commands import Inbox
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import Lease
from hpcgan.system.allocation import current_job
from hpcgan.system.failure import Failure
from hpcgan.training import warm_start
from hpcgan.training.loop import Trainer, Writers
from hpcgan.training.progress import Reporter
from hpcgan.training.requests import StopRequest, verdict
from hpcgan.training.state import Counters, TrainState

SAMPLE_EVENTS = 16  # stored after every epoch, to look at


def train(
    config: Config,
    run: RunDirectory,
    comm: Comm,
    stop: StopRequest,
    *,
    terminal: bool = False,
    born: float | None = None,
) -> dict[str, Any] | None:
    """Train on all ranks of `comm`, resuming if the run directory holds a checkpoint.

    Parameters
    ----------
    config : Config
    run : RunDirectory
    comm : Comm
    stop : StopRequest
    terminal : bool
        Whether a person reads on a terminal.
    born : float, optional
        When this attempt was started, by `time.monotonic`, for the record of what starting takes; by default now.

    Returns
    -------
    dict or None
        `score`, `epoch` and `step` of the best model, None if it was never scored.

    Raises
    ------
    InputError
        Bad data or a run directory of another configuration; on every rank, nothing written.
    Interrupted
        Stopped on request, with a checkpoint.
    HpcganError
        Any other failure that has a name.
    """
    born = time.monotonic() if born is None else born
    comm.watch(config.comm.timeout_s, run.attempts / f"stalled-{comm.broadcast_json(secrets.token_hex(8))}")
    problem = problem_class(config.problem)(config.model)
    with contextlib.ExitStack() as refused:
        with agreed(comm):
            training = open_split(problem, config.data, "train")
            refused.callback(training.close)
            validation = open_split(problem, config.data, "val")
            refused.callback(validation.close)
            sharding = shard(config, comm, training)
            data = run_data.identify(config)
            if comm.is_root:
                check_inputs(config, run, problem, data, {"train": training, "val": validation})
        check_same_data(config, comm, data)
        refused.pop_all()
    method, state = make_method(config, problem, comm)
    with agreed(comm):  # apart from the checks: nothing is written if they fail on any rank
        if comm.is_root:
            check_room(run, state)
            run.create(config)
            run_data.write(run, data)
    sampler = make_sampler(config, problem, method.networks[scored_network(config)])
    writers = started_from = None
    with agreed(comm):
        if comm.is_root:
            started_from = None if restore(state, run) else begin(config, method, problem, training, sharding)
            shown = np.arange(sampler.batch_size) % len(validation)
            asked = take(validation.conditions(), shown) if problem.conditions else None
            writers = open_writers(config, run, comm, state, problem, sampler, asked, started_from, data, born)
    share(state, comm)

    outcome: records.Outcome = "failed"
    failure = None
    done = state.counters.epoch + state.counters.position / sharding.n
    reporter = Reporter(comm.is_root, terminal, config.training.epochs, method.losses, done)
    try:
        _announce(reporter, config, run, comm, sharding, state, training, validation)
        if started_from is not None:
            reporter.message(f"starting from the weights of {started_from}")
        state.counters.global_batch = sharding.global_batch
        pipeline = make_pipeline(config, problem, training, sharding, method)
        scorer = diversity = None
        if config.scoring.every_epochs and state.counters.epoch < config.training.epochs:
            scorer = epoch_scorer(config, problem, sampler, validation, comm)
            diversity = epoch_diversity(config, problem, sampler, validation, comm)
        trainer = Trainer(
            config,
            comm,
            method,
            state,
            pipeline,
            sharding,
            lambda: sampler.measure(comm),
            scorer,
            diversity,
            run.checkpoints,
            writers,
            stop,
            reporter,
        )
        ended_early = trainer.run()
        if ended_early is not None:
            reporter.message(f"ended after epoch {state.counters.epoch} of {config.training.epochs}: {ended_early}")
        outcome = "done" if ended_early is None else "pruned"
    except Interrupted as end:
        outcome = "stopped" if isinstance(end, Stopped) else "interrupted"
        raise
    except BaseException as error:
        failure = Failure.of(error, comm.rank if comm.size > 1 else None)
        raise
    finally:
        reporter.close()
        if writers is not None:
            _close(writers, state.counters.step, outcome, failure)
        training.close()
        validation.close()
    return state.counters.best


def _close(writers: Writers, step: int, outcome: records.Outcome, failure: Failure | None) -> None:
    """End the records and the lease. What cannot be written must not hide the error that ends a run."""
    hidden = () if outcome in records.OVER else (HpcganError, OSError)
    with contextlib.suppress(*hidden):
        writers.metrics.write(records.End(step=step, outcome=outcome, failure=failure))
    writers.metrics.close()
    with contextlib.suppress(*hidden):
        writers.lease.release(outcome)


def shard(config: Config, comm: Comm, training: Source) -> Sharding:
    """Epoch order of the training split over the ranks.

    Raises
    ------
    InputError
        Fewer events than a global batch, or one that cannot be shared evenly.
    """
    settings = config.training
    batch = rank_batch(training.path, len(training), settings.batch_size, settings.global_batch_size, comm.size)
    if batch % settings.accumulation:
        raise InputError(
            f"training.accumulation: {settings.accumulation} parts of a rank's batch of {batch} cannot be equal; "
            "take a divisor of it"
        )
    return Sharding(len(training), batch, comm.rank, comm.size, config.seed, training.weights())


def make_method(config: Config, problem: Problem, comm: Comm) -> tuple[Method, TrainState]:
    """Networks and optimizers with their initial weights, and the step over the ranks of `comm`."""
    make: Callable[..., Method] = method_class(config.method)
    method = make(problem, config.training, comm, config.seed, config.data.augment, config.comm.compression)
    return method, TrainState(method.networks, method.optimizers)


def share(state: TrainState, comm: Comm) -> None:
    """Put rank 0's variables and counters in place of those of the others."""
    comm.broadcast_variables(list(state.variables.values()))
    state.counters = Counters(**comm.broadcast_json(state.meta()))
    state.check_equal(comm)


def make_pipeline(config: Config, problem: Problem, training: Source, sharding: Sharding, method: Method) -> Pipeline:
    """Batches of this rank, with the method's random numbers."""
    return Pipeline(training, problem, sharding, config.data.augment, method.draws)


def check_inputs(
    config: Config, run: RunDirectory, problem: Problem, data: run_data.RunData, sources: Mapping[str, Source]
) -> None:
    """Check the run directory and the data before anything is written.

    Raises
    ------
    InputError
        A run of another configuration or with other data is there, the data cannot be trained on, or
        `training.start_from` is of no use.
    """
    if run.exists:
        run.check_config(config, run.load_config())
        if warning := run_data.check(run, config, data):
            _warn(warning)
    if config.scoring.every_epochs:
        weights_of_first(sources["val"], config.scoring.events)
    if not checkpoints.steps(run.checkpoints):  # a resumed run has read its data before
        warm_start.check(config)
        for split, source in sources.items():
            problem.validate(config.data.path, split)
            problem.check_events(source)
        try:
            open_split(problem, config.data, "test").close()
        except InputError as error:
            _warn(f"{error} ('hpcgan evaluate' will need it)")


def check_same_data(config: Config, comm: Comm, data: run_data.RunData) -> None:
    """Check that all ranks read the same files: each node may have copies of its own.

    Raises
    ------
    InputError
        On all ranks, naming the first that reads others than rank 0.
    """
    first = comm.broadcast_json(data.plain())
    with agreed(comm):
        run_data.check_same(data, first, config, socket.gethostname())


def check_room(run: RunDirectory, state: TrainState) -> None:
    """Check that the disk has room for the next checkpoint, and for the one before it at the start.

    Raises
    ------
    InputError
        It has not.
    """
    size = sum(np.asarray(variable.numpy()).nbytes for variable in state.variables.values())
    there = next(folder for folder in (run.path, *run.path.absolute().parents) if folder.is_dir())
    needed = size * (1 if checkpoints.steps(run.checkpoints) else 2)
    check_space(there, needed, "make room for checkpoints, or choose another disk with --run")


def begin(config: Config, method: Method, problem: Problem, training: Source, sharding: Sharding) -> Path | None:
    """Give the networks of a new run their constants and, with `training.start_from`, the weights of another.

    Returns
    -------
    Path or None
        The checkpoint of the other run.

    Raises
    ------
    InputError
        Its networks are others.
    """
    method.calibrate(lambda: encoded(problem, training, sharding=sharding))
    if config.training.start_from is None:
        return None
    found = warm_start.load(config, config.training.start_from, _warn)
    try:
        method.adopt(found.arrays)
    except InputError as error:
        raise InputError(f"{warm_start.KEY}: {found.path} {error}") from None
    return found.path


def restore(state: TrainState, run: RunDirectory) -> bool:
    """Load the newest intact checkpoint; False if there is none."""
    found = checkpoints.load_latest(run.checkpoints, _warn)
    if found is not None:
        state.load(found.arrays, found.meta)
    return found is not None


def _warn(text: str) -> None:
    print(f"hpcgan: warning: {text}", file=sys.stderr, flush=True)


def encoded(problem: Problem, source: Source, batch: int = 512, sharding: Sharding | None = None) -> Iterator[Sample]:
    """All samples of a split as the networks see them, in order; those of the first epoch, where they have weights."""
    events = np.arange(len(source)) if sharding is None else sharding.drawn(0)
    for first in range(0, len(events), batch):
        yield problem.encode(source.read(events[first : first + batch]))


def epoch_scorer(
    config: Config, problem: Problem, sampler: Sampler, validation: Source, comm: Comm
) -> Callable[[int], Any]:
    """Scoring after an epoch of the generator, which has been measured before."""
    scorer = Scorer(problem, validation, comm, config.scoring.events, sampler.batch_size, config.scoring.samples)

    return lambda epoch: scorer(lambda *place: sampler.batch(config.seed, "score", *place), epoch)


def epoch_diversity(
    config: Config, problem: Problem, sampler: Sampler, validation: Source, comm: Comm
) -> Callable[[int], Diversity | None]:
    """Diversity of the generator after an epoch, on the first of the events that are scored."""
    meter = DiversityMeter(problem, validation, comm, sampler.batch_size)
    return lambda epoch: meter(lambda *place: sampler.batch(config.seed, "score", *place), epoch)


def open_writers(
    config: Config,
    run: RunDirectory,
    comm: Comm,
    state: TrainState,
    problem: Problem,
    sampler: Sampler,
    conditions: Sample | None = None,
    started_from: Path | None = None,
    data: run_data.RunData | None = None,
    born: float | None = None,
) -> Writers:
    """Take the lease and open what rank 0 writes; `conditions` are those of the stored samples."""
    lease = metrics = None
    try:
        lease = Lease(run, on_lost=lambda text: comm.abort(text, EXIT_BAD_INPUT, kind="environment"))
        metrics = records.Writer(run.metrics_file, lease.attempt)
        origin_of_weights = {} if started_from is None else {"started_from": str(started_from)}
        said = provenance(config, comm, lease.attempt, state.counters.step, data)
        records.append(run.provenance_file, {**said, **origin_of_weights})
        metrics.write(records.Start(step=state.counters.step, ranks=comm.size, samples=state.counters.samples))
        with _written_by_tensorflow(run.tensorboard):
            events = tf.summary.create_file_writer(os.fsencode(run.tensorboard))
    except (HpcganError, OSError) as error:
        if metrics is not None:
            with contextlib.suppress(HpcganError, OSError):
                failure = Failure.of(error, comm.rank if comm.size > 1 else None)
                metrics.write(records.End(step=state.counters.step, outcome="failed", failure=failure))
            metrics.close()
        if lease is not None:
            with contextlib.suppress(OSError):
                lease.release("failed")
        if isinstance(error, HpcganError):
            raise
        raise EnvironmentFailure(f"{run.path}: cannot write: {error.strerror}") from None

    def tensorboard(samples: int, scalars: Mapping[str, float]) -> None:
        with _written_by_tensorflow(run.tensorboard):
            with events.as_default():
                for name, value in scalars.items():
                    tf.summary.scalar(name, value, step=samples)
            events.flush()

    def samples(epoch: int) -> None:
        events = take(sampler.batch(config.seed, "score", epoch, 0, conditions), slice(0, SAMPLE_EVENTS))
        count = len(next(iter(events.values())))
        path = run.samples / f"epoch-{epoch:04d}.h5"
        try:
            with problem.writer(path, count, {"epoch": epoch}, force=True) as append:
                append(events)
        except InputError as error:  # no space, say: true of the disk, but no input of a training
            cause = str(error).split(";")[0].removeprefix(f"{path.parent}: ")
            raise EnvironmentFailure(
                f"{path}: cannot write ({cause}); make room, then the same command goes on from the last checkpoint"
            ) from None

    def begun(step: int) -> None:
        metrics.write(records.Begun(step=step, startup_s=None if born is None else time.monotonic() - born))

    return Writers(lease, metrics, tensorboard, samples, lambda: verdict(run.verdict_file), Inbox(run), begun)


@contextlib.contextmanager
def _written_by_tensorflow(path: Path) -> Iterator[None]:
    """TensorFlow's errors of writing as ours, in one line."""
    try:
        yield
    except tf.errors.OpError as error:
        text = re.sub(r"^\{\{.*?\}\} ", "", str(error).strip().splitlines()[0])  # without its name of a node
        raise EnvironmentFailure(f"{path}: cannot write: {text}") from None


def provenance(
    config: Config, comm: Comm, attempt: int, step: int, data: run_data.RunData | None = None
) -> dict[str, Any]:
    """Where, when and with what an attempt runs."""
    job = current_job(os.environ)
    return {
        "attempt": attempt,
        "step": step,
        "time": time.time(),
        "command": shlex.join(sys.argv),
        "host": socket.gethostname(),
        "ranks": comm.size,
        "backend": comm.backend,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "hpcgan": hpcgan.__version__,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "machine": platform.machine(),
        "identity": config.identity_hash(),
        "data": None if data is None else {"path": data.places[0], **data.fingerprints(run_data.SPLITS)},
        "slurm_job": None if job is None else job.id,
    }


def _announce_events(reporter: Reporter, use: Use, training: Source, validation: Source) -> None:
    """How events count, and what is doubtful about them; of both splits alike it is said once."""
    used = weights_used(training)
    if used is not None:
        reporter.message(used)
    for text in doubts(training, use) or doubts(validation, use, trained=False):
        _warn(text)


def _announce(
    reporter: Reporter,
    config: Config,
    run: RunDirectory,
    comm: Comm,
    sharding: Sharding,
    state: TrainState,
    training: Source,
    validation: Source,
) -> None:
    counters, validation_events = state.counters, len(validation)
    reporter.message(
        f"{config.name}: problem {config.problem}, {comm.size} rank{'s' * (comm.size > 1)} ({comm.backend}), "
        f"batch {sharding.batch_size} a rank, {sharding.steps_per_epoch} steps an epoch of {sharding.n} "
        f"events, run {run.path}"
    )
    if comm.is_root:
        _announce_events(reporter, Use.of(config.data), training, validation)
    if counters.step:
        epochs = config.training.epochs
        reporter.message(f"resuming at step {counters.step}, in epoch {min(counters.epoch + 1, epochs)} of {epochs}")
    if counters.global_batch not in (0, sharding.global_batch):
        reporter.message(
            f"the global batch was {counters.global_batch} and is {sharding.global_batch} on this number of ranks: "
            "the training goes on, but not as it would have (training.global_batch_size keeps it the same)"
        )
    if config.scoring.every_epochs and validation_events < config.scoring.events:
        reporter.message(
            f"scoring with N={validation_events}, all validation events there are: "
            f"not comparable with scores at N={config.scoring.events}"
        )
