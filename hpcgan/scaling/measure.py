"""The points of a scaling study: which there are, how each is measured, what is kept.

A study is a directory: `config.yaml` and `setting.json` say what is measured, `points/` has one file a point (number
of ranks, backend, repeat), written when the point is done, `logs/` what the ranks of failed points printed. The same
study again measures what is missing. The measuring itself is `hpcgan.training.timing`, started on all ranks by the
launcher that starts trainings.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hpcgan.config import Config, Section
from hpcgan.errors import HpcganError, InputError, Interrupted
from hpcgan.launch.launcher import Launcher, Place, Watch, launch
from hpcgan.problems import run_data
from hpcgan.runs.directory import RunDirectory
from hpcgan.system import failure
from hpcgan.system.files import write_atomic

#: What a point of isolated processes is called in place of a backend.
ISOLATED = "isolated"
#: Bytes of the buffers whose average is timed: 1 KiB to 64 MiB.
SWEEP_SIZES = tuple(1024 * 4**k for k in range(9))
MODULE = "hpcgan.training.timing"


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes
    ----------
    ranks : int
    comm : str
        `comm.backend`, or `isolated`: as many processes of one rank each at the same time, without communication.
    repeat : int
        From 0.
    """

    ranks: int
    comm: str
    repeat: int

    @property
    def key(self) -> str:
        """Name of its file."""
        return f"{self.comm}-{self.ranks}-{self.repeat}"


class Setting(Section):
    """What must be the same for all points of a study."""

    identity: str = Field(description="hash of the configuration and of the data: `identity_of`")
    mode: Literal["weak", "strong"] = Field(description="the batch that is the same at every point, as `scaling.mode`")
    batch: int = Field(description="that batch: of a rank, or of all ranks together")
    steps: int = Field(description="timed steps of a point")
    warm_up: int = Field(description="steps before those, which do not count")
    synthetic: bool = Field(description="random samples instead of data")
    threads: int = Field(description="compute threads of a rank")
    cores: int = Field(description="cores of a node")

    def oversubscribed(self, ranks: int, nodes: int) -> bool:
        """Whether so many ranks on so many nodes have more threads than cores."""
        return ranks * self.threads > self.cores * nodes

    def fullest(self, counts: Iterable[tuple[int, int]]) -> int:
        """Of some numbers of ranks and their nodes, the most ranks that share no core; if all do, the fewest."""
        counts = list(counts)
        fitting = [ranks for ranks, nodes in counts if not self.oversubscribed(ranks, nodes)]
        return max(fitting) if fitting else min(ranks for ranks, _ in counts)


@dataclass(frozen=True)
class Resources:
    """How points are started.

    Attributes
    ----------
    launcher : Launcher or None
        mpirun or srun; None for this environment's mpirun.
    nodes, ranks_per_node : int
        Of the allocation. A point takes as many nodes as its ranks fill.
    limit_s : float
        Seconds after which a point is ended and counts as failed.
    start : callable
        `hpcgan.launch.launcher.launch`, or what stands in for it.
    """

    launcher: Launcher | None = None
    nodes: int = 1
    ranks_per_node: int = 1
    limit_s: float = 1800.0
    start: Callable[..., int] = launch

    def nodes_for(self, ranks: int) -> int:
        """Nodes of a point."""
        return max(1, min(self.nodes, -(-ranks // self.ranks_per_node)))


def setting_of(config: Config, batch: int, threads: int, cores: int) -> Setting:
    """What the points of a configuration's study have in common."""
    scaling = config.scaling
    return Setting(
        identity=identity_of(config),
        mode=scaling.mode,
        batch=batch,
        steps=scaling.steps,
        warm_up=scaling.warm_up,
        synthetic=scaling.synthetic_data,
        threads=threads,
        cores=cores,
    )


def backends_of(config: Config) -> tuple[str, ...]:
    """What is measured, each once: `scaling.comm`, or the configuration's own backend."""
    return tuple(dict.fromkeys(config.scaling.comm)) or (config.comm.backend,)


def plan(config: Config) -> list[Point]:
    """All points in the order of measuring: repeats outside, so that a drift of the machine hits all alike."""
    scaling = config.scaling
    kinds = [*backends_of(config), *([ISOLATED] if scaling.isolated else [])]
    return [Point(n, comm, repeat) for repeat in range(scaling.repeats) for n in scaling.ranks for comm in kinds]


def study_batch(config: Config) -> int:
    """Batch that stays the same: of a rank (weak), or of all ranks together (strong).

    Raises
    ------
    InputError
        Some number of ranks cannot share it evenly, or the configuration contradicts the mode.
    """
    training, ranks = config.training, config.scaling.ranks
    if config.scaling.mode == "weak":
        if training.global_batch_size is not None:
            raise InputError(
                "--mode weak keeps the batch of a rank, but training.global_batch_size is set: "
                "use --mode strong, or training.global_batch_size=null"
            )
        return training.batch_size
    batch = training.global_batch_size or training.batch_size
    odd = [n for n in ranks if batch % n]
    if odd:
        fitting = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
        raise InputError(
            f"--mode strong: {', '.join(map(str, odd))} ranks cannot share a global batch of {batch} evenly; "
            f"ranks that can: {fitting}"
        )
    if training.schedule.scaling != "none":
        raise InputError("--mode strong keeps the global batch: training.schedule.scaling must be none")
    return batch


def overrides(point: Point, setting: Setting) -> list[str]:
    """What a point changes in the configuration."""
    if setting.mode == "weak":
        batch = ["training.global_batch_size=null", f"training.batch_size={setting.batch}"]
    elif point.comm == ISOLATED:
        batch = ["training.global_batch_size=null", f"training.batch_size={setting.batch // point.ranks}"]
    else:
        batch = [f"training.global_batch_size={setting.batch}"]
    return [f"comm.backend={'serial' if point.comm == ISOLATED else point.comm}", *batch]


class Study:
    """The directory of a study.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path, self.points, self.sweeps = path, path / "points", path / "allreduce"

    @property
    def exists(self) -> bool:
        """True if there is a study here."""
        return (self.path / "setting.json").is_file()

    def prepare(self, config: Config, setting: Setting) -> None:
        """Make the directory, or check that it holds this study.

        Raises
        ------
        InputError
            It holds another study, or cannot be written.
        """
        if self.exists:
            earlier, other = self.setting(), "with other settings"
            differing = [
                f"{name.replace('_', '-')} {getattr(earlier, name)} there, {value} now"
                for name, value in setting.model_dump().items()
                if getattr(earlier, name) != value
            ]
            if earlier.identity != setting.identity:
                same = self.config().identity() == config.identity()
                other = "with other data" if same else "of another configuration"
                differing = [f"{earlier.identity} there, {setting.identity} now"]
            if differing:
                text = f"holds a study {other} ({'; '.join(differing)})"
                raise InputError(f"{self.path}: {text}; give another directory with --out")
            if self.config().data.path != config.data.path:  # the same data, elsewhere
                write_atomic(self.path / "config.yaml", config.to_yaml())
            return
        if RunDirectory(self.path).exists:
            raise InputError(f"{self.path}: holds a training, not a study; give another directory with --out")
        try:
            for folder in (self.path, self.points, self.sweeps):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path / "config.yaml", config.to_yaml())
            write_atomic(self.path / "setting.json", setting.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise InputError(f"{self.path}: cannot write the study: {error.strerror}") from None

    def setting(self) -> Setting:
        """What is measured.

        Raises
        ------
        InputError
            This is no study, or not one that this version can read.
        """
        file = self.path / "setting.json"
        try:
            return Setting.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise InputError(f"{self.path}: not a scaling study (no setting.json in it)") from None
        except (OSError, ValueError):
            raise InputError(f"{file}: cannot be read; measure the study again in another directory") from None

    def config(self) -> Config:
        """The configuration, as resolved when the study began."""
        return RunDirectory(self.path).load_config()

    def results(self) -> list[dict[str, Any]]:
        """All points there are, by backend, ranks and repeat; failed ones have `failure`."""
        return sorted(_read_folder(self.points), key=lambda r: (r["comm"], r["ranks"], r["repeat"]))

    def allreduce(self) -> list[dict[str, Any]]:
        """Timings of bare collectives, by backend and ranks; failed ones have `failure`."""
        return sorted(_read_folder(self.sweeps), key=lambda r: (r["comm"], r["ranks"]))


def _read_folder(folder: Path) -> list[dict[str, Any]]:
    entries = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):  # a file that cannot be read is measured again
            entries.append(json.loads(path.read_text(encoding="utf-8")))
    return [entry for entry in entries if isinstance(entry, dict) and {"comm", "ranks"} <= entry.keys()]


def _is_measured(path: Path) -> bool:
    try:
        return "failure" not in json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def measure(
    study: Study,
    points: Sequence[Point],
    resources: Resources,
    report: Callable[[str], None],
) -> None:
    """Measure the points that are missing, one after the other; failed ones are tried again.

    Parameters
    ----------
    study : Study
    points : sequence of Point
    resources : Resources
    report : callable
        Takes one line for the user.

    Raises
    ------
    Interrupted
        A person or Slurm asked to stop; what was measured is kept.
    """
    setting = study.setting()
    missing = [point for point in points if not _is_measured(study.points / f"{point.key}.json")]
    if len(missing) < len(points):
        report(f"{len(points) - len(missing)} of {len(points)} points are measured already")
    once = _once(report)
    for number, point in enumerate(missing, 1):
        request = {
            "kind": "steps",
            "overrides": overrides(point, setting),
            "steps": setting.steps,
            "warm_up": setting.warm_up,
            "synthetic": setting.synthetic,
            "processes": point.ranks if point.comm == ISOLATED else 0,
        }
        started = time.monotonic()
        failed = _measure(study, study.points / f"{point.key}.json", asdict(point), request, resources, once)
        report(f"point {number} of {len(missing)}: {_say(point)}: {failed or f'{time.monotonic() - started:.0f} s'}")


def sweep(
    study: Study,
    config: Config,
    resources: Resources,
    report: Callable[[str], None],
) -> None:
    """Time bare averages of buffers of `SWEEP_SIZES` bytes over several ranks, where that is missing.

    On the most ranks of the study that share no core: ranks that wait for one would be taken for a slow network.

    Raises
    ------
    Interrupted
        A person or Slurm asked to stop.
    """
    several = [(n, resources.nodes_for(n)) for n in config.scaling.ranks if n > 1]
    if not several:
        return
    ranks, once = study.setting().fullest(several), _once(report)
    for comm in backends_of(config):
        file = study.sweeps / f"{comm}-{ranks}.json"
        if comm == "serial" or _is_measured(file):
            continue
        request = {"kind": "allreduce", "overrides": [f"comm.backend={comm}"], "sizes": list(SWEEP_SIZES)}
        failed = _measure(study, file, {"ranks": ranks, "comm": comm}, request, resources, once)
        report(f"allreduce of 1 KiB to 64 MiB on {ranks} ranks ({comm}): {failed or 'done'}")


def _measure(
    study: Study,
    file: Path,
    entry: dict[str, Any],
    request: dict[str, Any],
    resources: Resources,
    report: Callable[[str], None],
) -> str:
    """Have the ranks of an entry obey a request, and write what they say; why that failed, empty if it did not."""
    ranks, threads = entry["ranks"], study.setting().threads
    key = file.stem if file.parent == study.points else f"allreduce-{file.stem}"
    try:
        entry["ranks_measured"] = request_of_ranks(study.path, request, ranks, key, threads, resources, report)
    except Interrupted:
        raise
    except HpcganError as error:
        entry["failure"] = str(error)
    entry.update(nodes=resources.nodes_for(ranks), time=time.time())
    write_atomic(file, json.dumps(entry))
    return f"failed: {entry['failure']}" if "failure" in entry else ""


def _say(point: Point) -> str:
    if point.comm == ISOLATED:
        return f"{point.ranks} isolated process{'es' * (point.ranks > 1)}, repeat {point.repeat + 1}"
    return f"{point.ranks} rank{'s' * (point.ranks > 1)} ({point.comm}), repeat {point.repeat + 1}"


def _once(report: Callable[[str], None]) -> Callable[[str], None]:
    """Says each line of the launcher once, not for every point."""
    return functools.cache(lambda line: report(line.removeprefix("hpcgan: ")))


def request_of_ranks(
    path: Path,
    request: dict[str, Any],
    ranks: int,
    key: str,
    threads: int,
    resources: Resources,
    report: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Have all ranks obey a request to `hpcgan.training.timing`; what each of them says.

    Parameters
    ----------
    path : Path
        A folder with `config.yaml`, which all ranks see; what failed ranks printed is kept in its `logs/`.
    request : dict
    ranks : int
    key : str
        A name for it, unlike that of any other request at the same time.
    threads : int
        Compute threads of a rank.
    resources : Resources
    report : callable
        Takes one line for the user.

    Raises
    ------
    Interrupted
        The ranks were ended by a signal to this process.
    HpcganError
        They failed; why, as far as one of them has told.
    """
    with _workplace(path / "work" / key) as folder:
        request = {**request, "config": str(path / "config.yaml"), "folder": str(folder)}
        file, log, failure_file = folder / "request", folder / "log", folder / "failure"
        env = {**os.environ, failure.VARIABLE: str(failure_file)}
        file.write_text(json.dumps(request), encoding="utf-8")
        with open(log, "wb") as output:
            code = resources.start(
                [str(file)],
                ranks,
                module=MODULE,
                place=Place(resources.launcher, resources.nodes_for(ranks), threads, env),
                watch=Watch(0.0, resources.limit_s, output, output, report),
            )
        if code > 128 and code - 128 in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
            raise Interrupted(f"{path}: stopped; the same command measures what is missing")
        log_file = path / "logs" / f"{key}.log"
        log_file.unlink(missing_ok=True)
        if code:
            log_file.parent.mkdir(exist_ok=True)
            log.replace(log_file)
            cause = failure.read(failure_file)
            raise HpcganError(f"exit code {code}, see {log_file}" if cause is None else str(cause))
        try:
            everyone = [rank for file in sorted(folder.glob("*.json")) for rank in json.loads(file.read_bytes())]
        except (OSError, ValueError) as error:
            raise HpcganError(f"the ranks left no result: {error}") from None
        if len(everyone) != ranks:
            raise HpcganError(f"{len(everyone)} of {ranks} ranks left a result")
        return everyone


@contextlib.contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder that all ranks see, empty at the beginning and gone at the end."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield path.absolute()
    finally:
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are at work in it
            path.parent.rmdir()


def identity_of(config: Config) -> str:
    """Hash of what is measured: the configuration, and the content of the data, if these are read."""
    return config.identity_hash() if config.scaling.synthetic_data else run_data.run_hash(config)


def default_directory(config: Config) -> Path:
    """`runs/scaling-NAME-MODE-HASH`."""
    return Path("runs") / f"scaling-{config.name}-{config.scaling.mode}-{identity_of(config)}"


def default_threads(ranks: Sequence[int], resources: Resources, cores: int) -> int:
    """Threads of a rank at every point: the cores of a node over the ranks of the fullest one.

    A rank that had more threads on few ranks than on many would make the one-rank point another program.
    """
    fullest = max(-(-n // resources.nodes_for(n)) for n in ranks)
    return max(1, cores // fullest)
