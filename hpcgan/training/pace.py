"""When a checkpoint is due besides those after epochs: `checkpoint.every`. Rank 0 decides, a step tells the others."""

from __future__ import annotations

import math
import time
from collections import deque

from hpcgan.config import CheckpointConfig
from hpcgan.runs import records
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.goodput import time_spent
from hpcgan.runs.records import Checkpoint

#: Checkpoints whose mean cost counts.
RECENT = 5
#: Cost of a checkpoint before any was written, s.
FIRST_COST_S = 1.0
#: Time between failures of a run that has had none, s, unless it has run for longer.
UNDISTURBED_S = 86400.0


def interval(cost: float, mtbf: float) -> float:
    """Time of training between two checkpoints that loses the least time to checkpoints and failures.

    Young's sqrt(2 C M) (CACM 17 (1974) 530), with the terms of higher order that Daly's model adds to it (Future
    Generation Computer Systems 22 (2006) 303, eq. 37).

    Parameters
    ----------
    cost : float
        C: what the training waits for a checkpoint, s.
    mtbf : float
        M: mean time between failures, s.

    Returns
    -------
    float
        In seconds, without the checkpoint itself; M where a checkpoint costs more than 2 M.
    """
    if cost >= 2 * mtbf:
        return mtbf
    ratio = cost / (2 * mtbf)
    return math.sqrt(2 * cost * mtbf) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


class Pace:
    """Says when the next checkpoint is due.

    Parameters
    ----------
    settings : CheckpointConfig
    run : RunDirectory
        What has failed so far, and what checkpoints cost, is read from its records.
    """

    def __init__(self, settings: CheckpointConfig, run: RunDirectory) -> None:
        self._settings = settings
        self._began = self._last = time.monotonic()
        self._costs: deque[float] = deque(maxlen=RECENT)
        self._ran, self._failures = 0.0, 0
        if settings.every == "auto":
            self._costs.extend(record.seconds for record in records.read(run.metrics_file, Checkpoint)[-RECENT:])
            spent = time_spent(run, until=time.time())
            if spent is not None:
                self._ran, self._failures = spent.held - spent.seconds["down"], spent.failures

    @property
    def mtbf(self) -> float:
        """Mean time between failures, s: as configured, else that of this run so far."""
        if self._settings.mtbf is not None:
            return self._settings.mtbf
        ran = self._ran + time.monotonic() - self._began
        return ran / self._failures if self._failures else max(ran, UNDISTURBED_S)

    @property
    def interval(self) -> float:
        """Seconds from the end of a checkpoint to the next one; infinite where there are none in between epochs."""
        every = self._settings.every
        if every != "auto":
            return math.inf if every is None else every
        cost = sum(self._costs) / len(self._costs) if self._costs else FIRST_COST_S
        return interval(cost, self.mtbf)

    def due(self) -> bool:
        """Whether a checkpoint is to be written now."""
        return time.monotonic() - self._last >= self.interval

    def saved(self, seconds: float) -> None:
        """One was written, for whatever reason, and took so long."""
        self._costs.append(seconds)
        self._last = time.monotonic()
