"""How many steps one call of the compiled function takes: as many as requests can wait for. A leaf."""

from __future__ import annotations

from typing import Literal

CALL_S = 0.5  # of steps in a call: signals and commands are heard between two
CALL_BYTES = 32 << 20  # of batches that are handed over in a call
MOST = 64  # steps in a call, where nobody says: more of them gain nothing measurable


class Pace:
    """The number of steps of the next call, by the time that those of the last one took.

    It is a rank's own affair: ranks end a call at the same step, however many each had planned (`Method.steps`).

    Parameters
    ----------
    asked : int or "auto"
        `training.steps_per_call`.
    """

    def __init__(self, asked: int | Literal["auto"]) -> None:
        self._limit = MOST if asked == "auto" else asked
        self._steps = 1  # until it is known what one takes

    def steps(self, batch_bytes: int) -> int:
        """Steps of the next call, at least one.

        Parameters
        ----------
        batch_bytes : int
            Size of the batch of a step.
        """
        return min(self._steps, max(1, CALL_BYTES // max(1, batch_bytes)))

    def took(self, steps: int, seconds: float) -> None:
        """A call of some steps is over, waiting for their data included."""
        fitting = int(CALL_S * steps / max(seconds, 1e-9))
        # Twice as many at most: a step that was quick by chance may not make a call of a minute.
        self._steps = max(1, min(self._limit, 2 * self._steps, fitting))
