"""The one seam to other ranks.

`Comm` is everything the engine may ask of its peers. Only `comm/horovod.py` imports Horovod and only
`comm/mpi.py` imports mpi4py; without a launcher everything runs on `SerialComm`.

Tensors are passed through opaquely here (no TensorFlow import), so that configuration, launch and
analysis code can hold a `Comm` on a machine that has neither TensorFlow nor MPI.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hpcgan.comm.spans import Span
from hpcgan.comm.watchdog import Watchdog
from hpcgan.errors import FailureKind
from hpcgan.system import failure
from hpcgan.system.failure import Failure


class Comm(ABC):
    """Communicator over the ranks of one training job.

    Attributes
    ----------
    rank, size : int
        This rank and the world size.
    local_rank, local_size : int
        The same among the ranks of this node; `local_rank` picks the GPU.
    backend : str
        `serial`, `horovod`, `mpi`, or the name of somebody's own.
    supports_half : bool
        Whether it averages tensors in half precision.
    advice : str
        On rank 0: what would be faster here, in one sentence; empty: nothing that is known.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    backend: str
    supports_half = True
    advice = ""
    _watchdog: Watchdog | None = None

    @property
    def is_root(self) -> bool:
        """True on the rank that writes files and prints."""
        return self.rank == 0

    # --- inside the compiled training step -------------------------------------------------------

    @abstractmethod
    def begin_average(self, tensor: Any, name: str) -> Callable[[], Any]:
        """Start to average a floating-point tensor over all ranks, where the backend can start and wait apart.

        What is returned waits and gives the average. Not differentiable. `name` identifies the collective and must be
        the same on all ranks, which begin, and finish, in the same order.
        """

    @abstractmethod
    def allreduce(self, tensor: Any, name: str) -> Any:
        """Average one tensor over all ranks; the gradient is averaged over the ranks, too."""

    @abstractmethod
    def allgather(self, tensor: Any, name: str) -> Any:
        """Concatenate along the first axis in rank order; the gradient sums each rank's share of it."""

    # --- on the host -----------------------------------------------------------------------------

    @abstractmethod
    def broadcast_variables(self, variables: Sequence[Any]) -> None:
        """Overwrite the variables of all ranks by those of rank 0."""

    @abstractmethod
    def gather_array(self, array: np.ndarray) -> list[np.ndarray] | None:
        """Collect one array a rank on rank 0 (lengths may differ in the first axis); None elsewhere."""

    @abstractmethod
    def gather_json(self, value: Any) -> list[Any] | None:
        """Collect one JSON value a rank on rank 0, in rank order; None elsewhere."""

    @abstractmethod
    def broadcast_json(self, value: Any) -> Any:
        """The JSON value of rank 0 on every rank (what the others pass is ignored)."""

    @abstractmethod
    def barrier(self) -> None:
        """Return when every rank has come here."""

    def abort(self, cause: str, code: int = 1, details: str = "", kind: FailureKind = "training") -> NoReturn:
        """Print the cause and end this process at once, taking the whole job down.

        Never waits for other ranks: one of them may be the reason. The launcher sees a rank that
        ended without finalising MPI and kills the rest.

        Parameters
        ----------
        cause : str
            One line.
        code : int
            Exit code.
        details : str
            What follows the cause, such as a traceback; in one piece with it, as several ranks may print.
        kind : "user", "training" or "environment"
            Whose failure it is, for whoever has started the job.
        """
        failure.tell(Failure(kind, cause, self.rank))
        text = f"hpcgan: rank {self.rank}: {cause}" + (f"\n{details.rstrip()}" if details else "")
        print(text, file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(code)

    def close(self) -> None:
        """Leave the job in order; nothing may be called afterwards."""
        self.unwatch()

    def collective(self) -> str | None:
        """Name of the collective in which this rank is now, as far as it can be told; any thread may ask."""
        return None

    # --- for a profile ---------------------------------------------------------------------------

    def record_spans(self) -> bool:
        """Remember when collectives of training steps begin and end, in graphs that are made from now on.

        False where the backend has no such record. What is computed stays the same.
        """
        return False

    def take_spans(self) -> list[Span]:
        """What was remembered since the last call, in the order of the ends."""
        return []

    # --- watching over the peers -----------------------------------------------------------------

    def watch(self, timeout: float, folder: Path) -> None:
        """End the job when it gets on no more, naming the rank that is to blame (`hpcgan.comm.watchdog`).

        Parameters
        ----------
        timeout : float
            Seconds without a `beat`; 0: never.
        folder : Path
            Common to the ranks of this job and to no other; need not exist.
        """
        if timeout > 0 and self.size > 1:
            self._watchdog = Watchdog(self.rank, self.size, timeout, folder, self.collective)

    def beat(self, activity: str, may_take: float = 0.0) -> None:
        """Tell the watchdog that this rank gets on, and what it does now.

        Parameters
        ----------
        activity : str
        may_take : float
            Seconds that this may take beyond the timeout: all ranks say it of what any of them waits for.
        """
        if self._watchdog is not None:
            self._watchdog.beat(activity, may_take)

    def unwatch(self) -> None:
        """Watch no longer."""
        if self._watchdog is not None:
            self._watchdog.close()
            self._watchdog = None


class SerialComm(Comm):
    """One rank: every collective is the identity. Collectives return copies where callers may modify."""

    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    backend = "serial"

    def begin_average(self, tensor: Any, name: str) -> Callable[[], Any]:
        return lambda: tensor

    def allreduce(self, tensor: Any, name: str) -> Any:
        return tensor

    def allgather(self, tensor: Any, name: str) -> Any:
        return tensor

    def broadcast_variables(self, variables: Sequence[Any]) -> None:
        pass

    def gather_array(self, array: np.ndarray) -> list[np.ndarray] | None:
        return [array]

    def gather_json(self, value: Any) -> list[Any] | None:
        return [value]

    def broadcast_json(self, value: Any) -> Any:
        return value

    def barrier(self) -> None:
        pass
