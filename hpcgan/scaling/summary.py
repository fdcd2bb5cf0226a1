r"""What the measured times of a study mean: rates, efficiency, cost, and the parts of a step.

All from the clocks of the ranks, block by block (`hpcgan.training.timing`). With :math:`r` a rank, :math:`i` a step:

- *rate*: samples of all ranks in a block of real steps over the time of its slowest rank; the median over the blocks
  of a repeat, then the mean over the repeats with its standard error.
- *step*: time of a block's slowest rank over its steps. It is the sum of the four parts:
- *input*: time that a rank waits for the next batch, mean over ranks and steps.
- *compute*: a local step (no collectives, the same batches), mean over ranks and steps.
- *imbalance*: what waiting for the slowest rank costs even if nothing were sent,
  :math:`\langle \max_r t_{ri} - \langle t_{ri} \rangle_r \rangle_i` over local steps.
- *communication*: what is left of the step: packing, transfer, unpacking, waiting beyond the above.

Caveats. The pipeline works in a thread beside the step: what it takes from the step's cores counts as compute. A step
has two collectives and so waits twice, while imbalance is counted once, so some of it appears as communication. Local
steps run freely side by side, real ones in step: contention for memory may differ. Communication is a difference of
two times and can come out below zero by noise. On one rank without collectives it is zero by construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hpcgan.scaling.measure import ISOLATED, Setting

PARTS = ("compute", "imbalance", "communication", "input")


@dataclass(frozen=True)
class Value:
    """A number with its standard error, None where one repeat says nothing about it."""

    value: float
    error: float | None


def mean(values: Sequence[float]) -> Value:
    """Mean and its standard error."""
    array = np.asarray(values, dtype=np.float64)
    error = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else None
    return Value(float(array.mean()), error)


def ratio(a: Value, b: Value, factor: float = 1.0) -> Value:
    """The ratio factor * a / b of independent a and b: relative errors add in squares."""
    value = factor * a.value / b.value
    if a.error is None or b.error is None:
        return Value(value, None)
    return Value(value, abs(value) * math.hypot(a.error / a.value, b.error / b.value))


@dataclass(frozen=True)
class Blocks:
    """Times of one point (one repeat) as arrays.

    Attributes
    ----------
    real_s : (blocks,) float64
        Seconds of each real block on its slowest rank.
    steps : int
        Steps of a block.
    wait_s : (ranks, blocks, steps) float64
        Waiting for the pipeline, in real blocks.
    step_s : (ranks, blocks, steps) float64
        Real steps without that wait.
    local_s : (ranks, blocks, steps) float64
        Local steps. On one rank without collectives, the real ones.
    batch_size : int
        Samples of a rank and step.
    together : bool
        Whether the ranks step together; else they are isolated processes, whose rates add up.
    """

    real_s: np.ndarray
    steps: int
    wait_s: np.ndarray
    step_s: np.ndarray
    local_s: np.ndarray
    batch_size: int
    together: bool

    @property
    def rates(self) -> np.ndarray:
        """(blocks,) samples a second."""
        samples = self.steps * self.batch_size
        return samples * len(self.wait_s) / self.real_s

    @property
    def rate(self) -> float:
        """Samples a second over all ranks, median over the blocks."""
        return float(np.median(self.rates))


def blocks(result: Mapping[str, Any]) -> Blocks:
    """The arrays of a point's file."""
    ranks = result["ranks_measured"]
    first = ranks[0]
    together = result["comm"] != ISOLATED
    seconds = np.array([[b["seconds"] for b in r["blocks"]["real"]] for r in ranks])
    # Isolated processes: harmonic mean, so that ranks * samples / seconds is the sum of their rates.
    slowest = seconds.max(axis=0) if together else 1.0 / (1.0 / seconds).mean(axis=0)
    real = np.array([[b["step_s"] for b in r["blocks"]["real"]] for r in ranks])
    local = [[b["step_s"] for b in r["blocks"]["local"]] for r in ranks]
    return Blocks(
        real_s=slowest,
        steps=int(first["block_steps"]),
        wait_s=np.array([[b["wait_s"] for b in r["blocks"]["real"]] for r in ranks]),
        step_s=real,
        local_s=np.array(local) if local[0] else real,
        batch_size=int(first["batch_size"]),
        together=together,
    )


def split(times: Blocks) -> dict[str, float]:
    """Seconds of a step and its parts (see the module); the parts add up to `step`."""
    step = float(times.real_s.mean() / times.steps)
    waiting, compute, imbalance = float(times.wait_s.mean()), float(times.local_s.mean()), 0.0
    if len(times.local_s) > 1 and times.together:
        imbalance = float((times.local_s.max(axis=0) - times.local_s.mean(axis=0)).mean())
    communication = step - compute - imbalance - waiting
    if times.local_s is times.step_s:  # no collectives: what is left of the step is the step
        compute, imbalance, communication = step - waiting, 0.0, 0.0
    return {
        "step": step,
        "compute": compute,
        "imbalance": imbalance,
        "communication": communication,
        "input": waiting,
    }


def summarise(results: Sequence[Mapping[str, Any]], setting: Setting) -> dict[str, Any]:
    """Everything a report shows, as plain values.

    Parameters
    ----------
    results : sequence of mapping
        Points, as `Study.results` gives them.
    setting : Setting

    Returns
    -------
    dict
        `points`: one entry for each backend and number of ranks with `rate` (samples/s), `efficiency` (against the
        point of one rank with the same backend), `against_isolated`, `cost` (core-seconds for 1000 samples), `parts`
        (seconds of a step), `step_median_s` and `step_quartiles_s` over single steps and ranks. Each of them is a
        `value` with an `error` (None if it was measured once). `failures`: points that failed, with reason.
    """
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for result in results:
        if "failure" not in result:
            groups.setdefault((result["comm"], result["ranks"]), []).append(result)
    measured = {key: [blocks(result) for result in group] for key, group in groups.items()}
    rates = {key: mean([times.rate for times in repeats]) for key, repeats in measured.items()}
    points = []
    for key in sorted(measured):
        comm, ranks = key
        repeats = measured[key]
        one = rates.get((comm, 1))
        alone = None if comm == ISOLATED or ranks == 1 else rates.get((ISOLATED, ranks))
        efficiency = None if one is None else ratio(rates[key], one, 1.0 / ranks)
        if ranks == 1:
            efficiency = Value(1.0, 0.0)  # by definition
        parts = [split(times) for times in repeats]
        steps = np.concatenate([(times.wait_s + times.step_s).ravel() for times in repeats])
        ranks_info = [r for result in groups[key] for r in result["ranks_measured"]]
        points.append(
            {
                "comm": comm,
                "backend": ranks_info[0]["backend"],
                "ranks": ranks,
                "nodes": len({r["node"] for r in ranks_info}),
                "threads": setting.threads,
                "repeats": len(repeats),
                "batch_size": repeats[0].batch_size,
                "rate": asdict(rates[key]),
                "efficiency": None if efficiency is None else asdict(efficiency),
                "against_isolated": None if alone is None else asdict(ratio(rates[key], alone)),
                "cost": asdict(ratio(Value(1000.0 * ranks * setting.threads, 0.0), rates[key])),
                "parts": {name: asdict(mean([p[name] for p in parts])) for name in ("step", *PARTS)},
                "step_median_s": float(np.median(steps)),
                "step_quartiles_s": [float(q) for q in np.quantile(steps, [0.25, 0.75])],
                "oversubscribed": setting.oversubscribed(ranks, max(r["nodes"] for r in groups[key])),
                "finite": all(r["finite"] for r in ranks_info),
                "payload_bytes": ranks_info[0]["payload_bytes"],
                "parameters": ranks_info[0]["parameters"],
            }
        )
    failures = [
        {"comm": r["comm"], "ranks": r["ranks"], "repeat": r["repeat"], "reason": r["failure"]}
        for r in results
        if "failure" in r
    ]
    return {"points": points, "failures": failures}
