"""The commands as Python functions: `hpcgan.train`, `hpcgan.generate`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from hpcgan import config as configuration
from hpcgan.comm import select
from hpcgan.config import Config
from hpcgan.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, HpcganError, InputError, Interrupted
from hpcgan.problems import run_data
from hpcgan.runs import pretrained, records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.records import Best, Epoch
from hpcgan.system.console import quiet_tensorflow

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from hpcgan.data.schema import Sample


@dataclass(frozen=True)
class TrainResult:
    """A finished training.

    Attributes
    ----------
    run : Path
        The run directory.
    best : Best or None
        `score`, `epoch` and `step` of the best model; None if it was never scored.
    epochs : list of Epoch
        What was recorded after each epoch (`hpcgan.runs.records.Epoch`).
    """

    run: Path
    best: Best | None
    epochs: list[Epoch]


def resolve(config: Path | str | Mapping[str, Any] | Config, overrides: Sequence[str] = ()) -> Config:
    """A configuration from a YAML file, its content, or an earlier result, with `key.path=value` on top.

    Raises
    ------
    InputError
        One line that names file and key.
    """
    if not isinstance(config, Config):
        return configuration.load(config, overrides)
    return configuration.load(config.dump(), overrides) if overrides else config


def default_directory(config: Config) -> Path:
    """`runs/NAME-HASH`, the hash being that of the identity keys and of the data's content, wherever these lie."""
    return Path("runs") / f"{config.name}-{run_data.run_hash(config)}"


def train(
    config: Path | str | Mapping[str, Any] | Config,
    overrides: Sequence[str] = (),
    *,
    run: Path | str | None = None,
    ranks: int = 1,
) -> TrainResult:
    """Train a model, or resume it: the same call again goes on from the last checkpoint.

    Parameters
    ----------
    config : path, mapping or Config
        A YAML file, its content, or what `hpcgan.config.load` made of them.
    overrides : sequence of str
        `key.path=value`, as on the command line.
    run : path, optional
        Run directory; default `runs/NAME-HASH`.
    ranks : int
        Number of ranks. They are started under mpirun as processes of their own, so that this one
        (a notebook, say) keeps its cores and its TensorFlow to itself.

    Returns
    -------
    TrainResult

    Raises
    ------
    InputError
        Bad configuration or data, one line that names file and key.
    Interrupted
        Stopped on request, with a checkpoint to resume from.
    HpcganError
        Any other failure; the ranks have printed the cause.
    """
    config = resolve(config, overrides)
    directory = RunDirectory(Path(run) if run is not None else default_directory(config))
    preflight(config, directory, ranks)
    with tempfile.TemporaryDirectory(prefix="hpcgan-") as folder:
        file = Path(folder) / f"{config.name}.yaml"
        file.write_text(config.to_yaml(), encoding="utf-8")
        command = ["train", str(file), "--run", str(directory.path)]
        if ranks == 1:  # needs no MPI
            code = subprocess.run([sys.executable, "-m", "hpcgan", *command], check=False).returncode
        else:
            from hpcgan.launch.outcome import launch_training

            code = launch_training(command, directory, ranks)
    if code == EXIT_INTERRUPTED:
        raise Interrupted(f"{directory.path}: stopped on request; call again to resume")
    if code == EXIT_BAD_INPUT:
        raise InputError(f"{directory.path}: the training refused its input, see above")
    if code:
        raise HpcganError(f"{directory.path}: the training failed with exit code {code}, see above")
    epochs = records.read(directory.metrics_file, Epoch)
    return TrainResult(directory.path, epochs[-1].best if epochs else None, epochs)


def preflight(config: Config, directory: RunDirectory, ranks: int, *, here: bool = True) -> str | None:
    """Refuse once, before ranks start, what each of them would refuse.

    Parameters
    ----------
    config : Config
    directory : RunDirectory
    ranks : int
    here : bool
        Whether they start where this runs: a `comm.backend` of somebody's own is loaded then, which may need modules
        that a login node has not.

    Returns
    -------
    str or None
        What rank 0 is going to warn of, for whoever does not see what it prints.

    Raises
    ------
    InputError
        Missing or broken data, fewer events than a global batch, a run directory of another configuration or with other
        data, a `comm.backend` of somebody's own that cannot be loaded.
    """
    if ranks < 1:
        raise InputError(f"--ranks {ranks}: give at least 1")
    from hpcgan.training.inputs import Inputs

    if here:
        select.check(config.comm.backend)
    with Inputs.open(config) as inputs:
        inputs.batch_size(ranks)
        return inputs.check(directory)


def generate(
    run: Path | str,
    n: int | None = None,
    *,
    seed: int = 1,
    checkpoint: Literal["best", "latest"] = "best",
    conditions: Mapping[str, Any] | Sequence[Mapping[str, float]] | ArrayLike | None = None,
    batch_size: int | None = None,
) -> Sample:
    """Sample the generator of a run.

    Samples are made in full batches, each of which may hold any mixture of conditions.

    Parameters
    ----------
    run : path
        Run directory.
    n : int, optional
        Number of events; default: that of `conditions`.
    seed : int
        Of the noise; the first events of a longer sample are those of a shorter one.
    checkpoint : "best" or "latest"
    conditions : array, mapping, or sequence of mappings, optional
        For a conditional model, in physical units. An array (n, k) has a row for each event and a column for each of
        the problem's conditions, in the order of its schema (`conditional`: mGlu, mNeu); with one condition (n,) will
        do. A mapping has a number for all events or an array with one for each, `{"mGlu": 1600.0, "mNeu": masses}`;
        several points, `[{"mGlu": 1400, "mNeu": 850}, ...]`, take turns. By default an event has those of a random
        training event. Values beyond the training data's are warned of.
    batch_size : int, optional
        Events made at a time; by default `training.batch_size` of the run.

    Returns
    -------
    dict of str to array
        The tensors of the problem in physical units, conditions included; for `rpv`, `hist` (n, 64, 64) float32 in MeV.

    Raises
    ------
    InputError
        Not a run directory, no checkpoint yet, n < 1, conditions that are not the model's, that are not finite, that no
        event can have, or of which there are not n, or a batch size that the run's statistics do not allow.
    """
    if n is None and conditions is None:
        raise InputError("n is missing: give the number of events")
    if n is not None and n < 1:
        raise InputError(f"n={n}: give at least 1")
    quiet_tensorflow()
    from hpcgan.evaluation import conditions as asking
    from hpcgan.evaluation.sampling import load_sampler

    sampler = load_sampler(Path(run), checkpoint, batch_size=batch_size)
    if conditions is None:
        return sampler.sample(cast("int", n), seed)
    problem = sampler.problem
    points = isinstance(conditions, Sequence) and all(isinstance(point, Mapping) for point in conditions)
    if points and not conditions:
        raise InputError("conditions: give at least one point")
    if points:
        values = asking.of_points(problem, cast("Sequence[Mapping[str, float]]", conditions))
    elif isinstance(conditions, Mapping):
        values = asking.of_arrays(problem, conditions)
    else:
        values = asking.of_rows(problem, cast("ArrayLike", conditions))
    rows = len(next(iter(values.values())))
    if n is not None and rows not in (1, n) and not points:
        raise InputError(f"conditions: there are {rows}, n is {n}")
    for text in asking.warnings(problem, sampler.config, values, pretrained.ranges(run)):
        warnings.warn(text, stacklevel=2)
    return sampler.sample(rows if n is None else n, seed, conditions=asking.each(values))
