"""Ends a job in which a rank has stopped, and says which.

A rank that is stopped, swapped out or on a lost node makes all others wait in a collective, for ever. Each rank
has a thread that looks whether the rank gets on. When it has not for too long, the rank leaves its *last words*
in a folder that all ranks see: what it was doing, and in which collective it waits. After a moment the ranks
read one another's words: who has left none does not run, who was not in a collective keeps the others waiting.
Nothing is written or sent as long as all is well.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hpcgan.errors import EXIT_FAILED
from hpcgan.system import failure
from hpcgan.system.failure import Failure


@dataclass(frozen=True)
class Words:
    """What a rank says when it does not get on.

    Attributes
    ----------
    rank : int
    activity : str
        What it was doing, e.g. `step 120`.
    collective : str or None
        The collective it waits in.
    """

    rank: int
    activity: str
    collective: str | None


def diagnose(size: int, words: Mapping[int, Words], timeout: float) -> str:
    """One line: the cause first.

    Parameters
    ----------
    size : int
        World size.
    words : mapping
        Last words by rank; who is missing does not run.
    timeout : float
        Seconds without progress.
    """
    silent = [rank for rank in range(size) if rank not in words]
    busy = [words[rank] for rank in sorted(words) if words[rank].collective is None]
    waiting = [words[rank] for rank in sorted(words) if words[rank].collective is not None]
    parts = []
    if silent:
        parts.append(f"{_ranks(silent)} {'does' if len(silent) == 1 else 'do'} not answer (stopped, or node lost)")
    by_activity: dict[str, list[int]] = {}
    for entry in busy:
        by_activity.setdefault(entry.activity, []).append(entry.rank)
    parts += [f"{_ranks(ranks)} {_is(ranks)} busy with {activity}" for activity, ranks in by_activity.items()]
    by_place: dict[str, list[int]] = {}
    for entry in waiting:
        by_place.setdefault(f"'{entry.collective}' ({entry.activity})", []).append(entry.rank)
    parts += [f"{_ranks(ranks)} {_is(ranks)} waiting in {place}" for place, ranks in by_place.items()]
    return f"no progress for {timeout:g} s: {'; '.join(parts)}; the job is ended, resume with the same command"


def _ranks(ranks: list[int]) -> str:
    numbers = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank{'s' * (len(ranks) > 1)} {numbers}"


def _is(ranks: list[int]) -> str:
    return "is" if len(ranks) == 1 else "are"


class Watchdog:
    """Watches this rank.

    Parameters
    ----------
    rank, size : int
    timeout : float
        Seconds without progress after which the job is ended.
    folder : Path
        Where last words go, the same for all ranks of this job and no other; made when needed.
    collective : callable
        Name of the collective this rank is in, or None.
    exit_process : callable
        Ends the process; another one in tests.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        timeout: float,
        folder: Path,
        collective: Callable[[], str | None],
        exit_process: Callable[[int], object] = os._exit,
    ) -> None:
        self._rank, self._size, self._timeout = rank, size, timeout
        self._folder, self._collective, self._exit = folder, collective, exit_process
        self._activity, self._last = "the start", time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self, activity: str, may_take: float = 0.0) -> None:
        """This rank gets on, and what it does now; that may take some seconds more than the timeout."""
        self._activity, self._last = activity, time.monotonic() + may_take

    def close(self) -> None:
        """Watch no longer."""
        self._stop.set()
        self._thread.join(timeout=5.0)

    def _watch(self) -> None:
        pause = min(1.0, self._timeout / 10)
        before = time.monotonic()
        while not self._stop.wait(pause):
            now = time.monotonic()
            if now - before > self._timeout / 2:
                # This process itself was stopped and goes on: the others decide, and they may have.
                self._last = max(self._last, now - self._timeout / 2)
            before = now
            waited = now - self._last
            # Another one that has given up wants to know what this one does, and ends the job anyway.
            if waited > self._timeout or (waited > 2 * pause and self._folder.exists()):
                self._end()
                return

    def _end(self) -> None:
        """Leave last words, hear the others', say what is the matter, end."""
        own_words = Words(self._rank, self._activity, self._collective())
        words = {self._rank: own_words}
        with contextlib.suppress(OSError):  # without a common folder: what this rank knows itself
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"rank-{self._rank}.json"
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(asdict(own_words)))
            temporary.replace(path)
        # All ranks fall silent at nearly the same time, but look at their clocks at different ones.
        time.sleep(2.5 * min(1.0, self._timeout / 10) + 1.0)
        with contextlib.suppress(OSError):
            for path in self._folder.glob("rank-*.json"):
                with contextlib.suppress(ValueError, TypeError, OSError):
                    other = Words(**json.loads(path.read_text()))
                    words[other.rank] = other
        if self._rank == min(words):
            diagnosis = diagnose(self._size, words, self._timeout)
            failure.tell(Failure("environment", diagnosis))
            print(f"hpcgan: error: {diagnosis}", file=sys.stderr, flush=True)
        else:
            time.sleep(1.0)  # the launcher ends the job with the first rank that ends
        self._exit(EXIT_FAILED)
