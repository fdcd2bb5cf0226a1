"""Trainings on the ranks of a cluster, started from a notebook that stays free meanwhile."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcgan import api
from hpcgan.config import Config
from hpcgan.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_INTERRUPTED, HpcganError, InputError
from hpcgan.interactive import ranks
from hpcgan.interactive.cluster_client import SETTLE, ClusterClient, root_cause
from hpcgan.interactive.processes import until
from hpcgan.interactive.training import RESTS, Training, attach
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state, attempts_made
from hpcgan.system.files import warn

#: How a training ends in order.
GOOD = ("done", "pruned", "stopped", "interrupted")


class Session:
    """Trains on a cluster, one training at a time.

    Parameters
    ----------
    cluster : ClusterClient
    """

    def __init__(self, cluster: ClusterClient) -> None:
        self.cluster = cluster

    #: The training of any run directory, also of a batch job.
    attach = staticmethod(attach)

    def train(
        self,
        config: Path | str | Mapping[str, Any] | Config,
        overrides: Sequence[str] = (),
        *,
        run: Path | str | None = None,
    ) -> EngineTraining:
        """Train on all ranks of the cluster, or resume; returns at once.

        Parameters
        ----------
        config : path, mapping or Config
            A YAML file, its content, or what `hpcgan.config.load` made of them.
        overrides : sequence of str
            `key.path=value`, as on the command line.
        run : path, optional
            Run directory, which the ranks must see, too; by default `runs/NAME-HASH`.

        Raises
        ------
        InputError
            Bad configuration or data, or the ranks are busy or have ended.
        """
        config = api.resolve(config, overrides)
        cluster = self.cluster
        state = cluster.state
        if state in ("lost", "stopped"):
            cause = f" ({cluster.cause()})" if state == "lost" and cluster.cause() else ""
            raise InputError(f"cluster {cluster.id} is {state}{cause}: Cluster.start() makes another one")
        if state == "busy":
            raise InputError(f"the ranks of cluster {cluster.id} are busy: stop what they train, or wait for it")
        directory = RunDirectory(Path(run if run is not None else api.default_directory(config)).absolute())
        if doubt := api.preflight(config, directory, cluster.size, here=False):
            warn(doubt)
        directory.create(config)  # so that there is something to see and to command from now on
        return EngineTraining(directory, cluster, config)


class EngineTraining(Training):
    """A training that this kernel has started on a cluster."""

    def __init__(self, run: RunDirectory, cluster: ClusterClient, config: Config) -> None:
        super().__init__(run)
        self._cluster = cluster
        self._attempts = attempts_made(run)
        view = cluster.client.direct_view([rank["engine"] for rank in cluster.ranks])
        view.block = False
        self._result = view.apply_async(ranks.train, config.dump(), str(run.path), os.getcwd())
        self._over = threading.Event()
        cluster.occupy(lambda: not self._over.is_set())
        self._error: HpcganError | None = None
        threading.Thread(target=self._watch, name="hpcgan-training", daemon=True).start()

    def attempt_state(self) -> str:
        """As that of any training; `starting` until the ranks have begun, also with one that had ended before."""
        over, state = self._over.is_set(), super().attempt_state()
        if not over:
            return state if state == "running" else "starting"
        # The lease of a rank that died is believed for a while; here it is known better.
        return "lost" if state in ("running", "not started") and self._error is not None else state

    @property
    def error(self) -> str | None:
        """Why the training ended, if that was not its last epoch or a command; None as long as it runs."""
        return None if self._error is None else str(self._error)

    def wait(self, timeout: float | None = None, every: float = 0.5) -> str:
        """Until the ranks are done with it; how it stands then.

        An interrupt (the kernel's stop button, Ctrl-C) reaches the ranks: they write a checkpoint and stop, and are
        waited for. A second one leaves them to themselves.

        Raises
        ------
        InputError
            The ranks refused the training.
        HpcganError
            It failed, with the cause; or it still goes on after `timeout` seconds.
        """
        try:
            ended = self._over.wait(timeout)
        except KeyboardInterrupt:
            print("hpcgan: stopping after this step; interrupt again to leave the training alone", file=sys.stderr)
            self.stop(wait=0)
            ended = self._over.wait(timeout)
        if not ended:
            raise HpcganError(f"{self.run.path}: still {self.state} after {timeout:.0f} s")
        if self._error is not None:
            raise self._error
        return self.state

    def _why(self) -> str | None:
        """Why a rank has ended; the launcher tells it a moment after the rank is missed."""
        until(lambda: self._cluster.cause() is not None, SETTLE, 0.2)
        return self._cluster.cause() or self._cluster.end_of_job()

    def _answered(self) -> bool:
        """Until the engines have answered; False if the training has ended, and the controller is not heard of."""
        ended = math.inf
        while not self._result.ready():
            self._result.wait(1.0)
            over = attempts_made(self.run) > self._attempts and attempt_state(self.run) in RESTS
            ended = min(ended, time.monotonic()) if over else math.inf
            if time.monotonic() - ended > SETTLE:
                return False
        return True

    def _judge(self, answers: list[dict[str, Any]]) -> None:
        self._cluster.settle()
        code = next((answer["code"] for answer in answers if answer["code"] != EXIT_DONE), EXIT_DONE)
        reason = next((answer["error"] for answer in answers if answer["error"]), None)
        if code not in (EXIT_DONE, EXIT_INTERRUPTED):
            kind = InputError if code == EXIT_BAD_INPUT else HpcganError
            self._error = kind(reason or f"{self.run.path}: exit code {code}")

    def _watch(self) -> None:
        import ipyparallel

        lost = "train it again on another cluster to go on from its last checkpoint"
        try:
            if not self._answered():
                if attempt_state(self.run) not in GOOD:
                    self._error = HpcganError(f"{self.run.path}: {self._why() or 'its ranks are gone'}; {lost}")
            else:
                self._judge(self._result.get())
        except ipyparallel.error.IPythonError as error:
            self._error = HpcganError(f"{self.run.path}: {self._why() or root_cause(error)}; {lost}")
        except Exception as error:  # the client was closed: nothing is known of the training any more
            self._error = HpcganError(f"{self.run.path}: not followed any more ({error}); attach() to it")
        try:
            # Before anybody who waits is told: whoever sees that it has ended has seen why.
            if self._error is not None:
                print(f"hpcgan: error: {self._error}", file=sys.stderr, flush=True)
        finally:
            self._over.set()
