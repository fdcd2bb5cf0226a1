"""Find the launcher's settings for this machine by measuring (`hpcgan doctor --tune`).

Every candidate is a real job of the training's own steps (`hpcgan.training.timing`), started by the launcher that
starts trainings. Candidates take turns, round after round, and each is compared with the default of the same round, so
that a machine that gets slower hits all alike. A setting is taken only if chance hardly makes it as fast, and settings
that are taken are measured once more together.
"""

from __future__ import annotations

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hpcgan
from hpcgan.config import Config
from hpcgan.errors import HpcganError, Interrupted
from hpcgan.launch import tuned
from hpcgan.launch.launcher import Launcher, launch
from hpcgan.launch.topology import OPEN_MPI_4, OPEN_MPI_5
from hpcgan.launch.tuned import Tuned
from hpcgan.scaling.measure import Resources, request_of_ranks
from hpcgan.system.files import write_atomic

#: A setting that gains less than this is not worth remembering.
LEAST_GAIN = 0.01
STEPS, WARM_UP = 40, 12


@dataclass(frozen=True)
class Candidate:
    """One way to run a job on a node."""

    name: str
    ranks: int
    threads: int
    settings: Tuned = field(default_factory=Tuned)


def layouts(cores: int) -> list[Candidate]:
    """One rank a core, and fewer ranks with more threads, down to one."""
    divisors = [n for n in range(1, cores + 1) if cores % n == 0]
    # Of many divisors the extremes and those around a rank for four cores say enough.
    kept = sorted({cores, 1, *(n for n in divisors if cores / n in (2, 4))}, reverse=True)
    return [Candidate(f"{_count(n, 'rank')} x {_count(cores // n, 'thread')}", n, cores // n) for n in kept]


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"


def settings(layout: Candidate, flavour: str) -> list[Candidate]:
    """What can be set for jobs of several ranks of this layout, one thing at a time."""
    if layout.ranks < 2:
        return []
    found = [
        replace(layout, name=f"HOROVOD_CYCLE_TIME={ms}", settings=Tuned({"HOROVOD_CYCLE_TIME": ms}))
        for ms in ("0.1", "0.3", "3")
    ]
    if flavour in (OPEN_MPI_4, OPEN_MPI_5):
        name = "OMPI_MCA_mpi_yield_when_idle"
        found.append(replace(layout, name=f"{name}=0", settings=Tuned({name: "0"})))
        if layout.threads == 1:
            found.append(replace(layout, name="--bind-to core", settings=Tuned(binding="core")))
    return found


@dataclass(frozen=True)
class Gain:
    """How much faster a candidate is than the default of its rounds: mean of the ratios less one, standard error."""

    mean: float
    error: float
    rounds: int

    @property
    def sure(self) -> bool:
        """Worth it, and beyond what chance gives one candidate in a hundred (Student's t)."""
        from scipy import stats

        return self.mean > max(LEAST_GAIN, float(stats.t.ppf(0.99, self.rounds - 1)) * self.error)


def gain(rates: Sequence[float], default: Sequence[float]) -> Gain:
    """Compare rounds in pairs."""
    ratios = [a / b - 1.0 for a, b in zip(rates, default, strict=True)]
    error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else math.inf
    return Gain(statistics.fmean(ratios), error, len(ratios))


def combine(parts: Sequence[Tuned]) -> Tuned:
    """All settings together; of two values for one variable the first counts."""
    env: dict[str, str] = {}
    for part in parts:
        env = {**part.env, **env}
    binding = next((part.binding for part in parts if part.binding != "none"), "none")
    return Tuned(env, binding)


Measure = Callable[[Candidate], float]


def choose(cores: int, flavour: str, rounds: int, measure: Measure, report: Callable[[str], None]) -> Tuned:
    """Find the fastest layout, then the settings that make it faster.

    Parameters
    ----------
    cores : int
    flavour : str
        The MPI.
    rounds : int
        Measurements of each candidate, at least two.
    measure : callable
        Samples a second of a candidate, all ranks together; raises HpcganError if its job fails.
    report : callable
        Takes one line for the user.
    """
    rates: dict[str, list[float]] = {}

    def turns(candidates: Sequence[Candidate]) -> None:
        failed = set()
        for number in range(rounds):
            for candidate in candidates:
                if candidate.name in failed:
                    continue
                try:
                    rate = measure(candidate)
                except Interrupted:
                    raise
                except HpcganError as error:
                    failed.add(candidate.name)
                    rates.pop(candidate.name, None)
                    report(f"{candidate.name}: failed: {error}")
                    continue
                rates.setdefault(candidate.name, []).append(rate)
                report(f"round {number + 1} of {rounds}: {candidate.name}: {rate:.0f} samples/s")

    there = layouts(cores)
    turns(there)
    measured = [layout for layout in there if layout.name in rates]
    if not measured:
        raise HpcganError("no layout could be measured: see 'hpcgan doctor'")
    best = max(measured, key=lambda layout: statistics.fmean(rates[layout.name]))
    report(f"fastest: {best.name}")

    default = replace(best, name="defaults")
    candidates = settings(best, flavour)
    if candidates:
        turns([default, *candidates])
    gains = {c.name: gain(rates[c.name], rates["defaults"]) for c in candidates if c.name in rates}
    taken = sorted((c for c in candidates if c.name in gains and gains[c.name].sure), key=lambda c: -gains[c.name].mean)
    for candidate in candidates:
        if candidate.name in gains:
            found = gains[candidate.name]
            verdict = "taken" if candidate in taken else "left as it is"
            report(f"{candidate.name}: {found.mean:+.1%} +- {found.error:.1%}: {verdict}")
    chosen = taken[0].settings if taken else Tuned()
    if len(taken) > 1:
        together = replace(best, name="together", settings=combine([c.settings for c in taken]))
        turns([taken[0], together])
        if "together" in rates and gain(rates["together"], rates[taken[0].name][-rounds:]).mean > 0:
            chosen = together.settings
    notes = {
        "samples_per_s": rates,
        "gains": {name: [found.mean, found.error] for name, found in gains.items()},
        "date": time.strftime("%Y-%m-%d"),
        "hpcgan": hpcgan.__version__,
    }
    return replace(chosen, ranks=best.ranks, threads=best.threads, measured=notes)


class Trial:
    """Measures candidates on this machine, with random data.

    Parameters
    ----------
    config : Config
        Whose steps are taken; the batch of a core stays the same whatever the layout.
    launcher : Launcher
    folder : Path
        For what is passed to the ranks.
    cores : int
    """

    def __init__(self, config: Config, launcher: Launcher, folder: Path, cores: int) -> None:
        self._launcher, self._folder, self._cores = launcher, folder, cores
        self._machine = tuned.machine(cores, launcher.flavour)
        self._batch = config.training.batch_size
        self._file = folder / "tuned.json"
        write_atomic(folder / "config.yaml", config.to_yaml())

    def __call__(self, candidate: Candidate) -> float:
        """Samples a second of all ranks, from the median over blocks of steps."""
        tuned.save(self._file, self._machine, candidate.settings)
        request = {
            "kind": "steps",
            "overrides": [
                "comm.backend=auto",
                "training.global_batch_size=null",
                f"training.batch_size={self._batch * candidate.threads}",
            ],
            "steps": STEPS,
            "warm_up": WARM_UP,
            "synthetic": True,
            "processes": 0,
            "local": False,
        }
        ranks = request_of_ranks(
            self._folder, request, candidate.ranks, "tune", candidate.threads, Resources(self._launcher),
            lambda line: None, self._start,
        )  # fmt: skip
        return rate(ranks)

    def _start(self, argv: Sequence[str], ranks: int, **options: Any) -> int:
        return launch(argv, ranks, env={**os.environ, "HPCGAN_TUNED": str(self._file)}, **options)


def rate(ranks: Sequence[Mapping[str, Any]]) -> float:
    """Samples a second of a job from what its ranks measured: blocks begin together, the slowest ends one."""
    blocks = zip(*(rank["blocks"]["real"] for rank in ranks), strict=True)
    seconds = statistics.median(max(part["seconds"] for part in block) for block in blocks)
    samples = sum(rank["batch_size"] for rank in ranks) * ranks[0]["block_steps"]
    return float(samples / seconds)


def tune(
    config: Config, launcher: Launcher, cores: int, rounds: int, file: Path, report: Callable[[str], None]
) -> Tuned:
    """Measure, and remember what was found in `file`.

    Raises
    ------
    InputError
        The file cannot be read or written; found out before anything is measured.
    HpcganError
        No job could be measured.
    Interrupted
        A person asked to stop; nothing is written.
    """
    name = tuned.machine(cores, launcher.flavour)
    tuned.save(file, name, tuned.load({"HPCGAN_TUNED": str(file)}, name) or Tuned())
    with tempfile.TemporaryDirectory(prefix="hpcgan-tune-") as folder:
        measure = Trial(config, launcher, Path(folder), cores)
        found = choose(cores, launcher.flavour, rounds, measure, report)
    tuned.save(file, name, found)
    return found
