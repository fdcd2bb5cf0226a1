"""A profile of some steps of a training: `profile.steps`. Nothing that is computed changes.

Each rank times its loop and its collectives and has TensorFlow trace its operations. Rank 0 gets all of that over the
communicator, since no other rank need see the run directory, and writes it into `RUN/profile/`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from hpcgan.comm.spans import ClockOffset, compare_clocks
from hpcgan.runs.directory import RunDirectory
from hpcgan.system.failure import in_one_line
from hpcgan.system.files import warn, write_atomic
from hpcgan.training.assembly import Assembly, Batch
from hpcgan.training.output import Output
from hpcgan.training.profile_summary import PARTS, RankTimes, summarise, text, trace, verdict
from hpcgan.training.progress import Clock


class Profile:
    """Profiles steps of an attempt, if the configuration asks for it; on all ranks together.

    To be made before the first step: graphs that were made without it do not say when their collectives begin.

    Parameters
    ----------
    assembly : Assembly
    run : RunDirectory
    output : Output
    clock : Clock
        Of the rate of an epoch, of which a profile's own work is no part.
    """

    def __init__(self, assembly: Assembly, run: RunDirectory, output: Output, clock: Clock) -> None:
        self._assembly, self._comm, self._output, self._clock = assembly, assembly.comm, output, clock
        self._settings, self._run = assembly.config.profile, run
        self._left = self._settings.after  # steps until it begins
        self._recording: _Recording | None = None
        self._is_wanted = self._settings.steps > 0
        if self._is_wanted:
            self._has_spans = self._comm.record_spans()

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; a profile begins and ends between two steps."""
        while True:
            if self._is_wanted:
                self._turn()
            begun = time.time()
            try:
                batch = next(batches)
            except StopIteration:
                return
            if self._recording is not None:
                self._recording.fetches.append((begun, time.time()))
            yield batch

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """A step."""
        self._left -= 1
        if self._recording is None:
            yield
            return
        begun = time.time()
        with tf.profiler.experimental.Trace("step", step_num=self._assembly.state.counters.step + 1, _r=1):
            yield
        self._recording.steps.append((begun, time.time()))

    def finish(self) -> None:
        """The training is at its end; a profile that is under way ends, too."""
        if self._recording is not None and self._recording.steps:
            self._end(self._recording)
        elif self._is_wanted:
            after = self._settings.after
            self._output.message(f"no profile: the training ended before its step {after + 1} (profile.after: {after})")

    def close(self) -> None:
        """Leave nothing behind, however the training has ended."""
        if self._recording is not None:
            self._recording.stop()
            self._recording = None

    def _turn(self) -> None:
        started = time.monotonic()
        if self._recording is None:
            if self._left > 0:
                return
            self._begin()
        elif len(self._recording.steps) == self._settings.steps:
            self._end(self._recording)
        else:
            return
        self._clock.exclude(time.monotonic() - started)

    def _begin(self) -> None:
        step = self._assembly.state.counters.step + 1
        self._comm.beat(f"the beginning of a profile at step {step}")
        self._comm.take_spans()
        self._recording = _Recording(step, compare_clocks(self._comm))

    def _end(self, recording: _Recording) -> None:
        """Gather and write."""
        comm, self._recording, self._is_wanted = self._comm, None, False
        comm.beat(f"the profile from step {recording.first_step} on")
        traces = recording.stop()
        times = {
            "node": platform.node(),
            "fetches": recording.fetches[: len(recording.steps)],
            "steps": recording.steps,
            "spans": comm.take_spans(),
            "problem": recording.problem,
            "files": [[name, len(content)] for name, content in traces.items()],
        }
        after = compare_clocks(comm)
        everyone = comm.gather_json(times)
        contents = comm.gather_array(np.frombuffer(b"".join(traces.values()), np.uint8))
        if everyone is None or contents is None:
            return
        folder = self._run.profile / f"attempt-{self._output.attempt:04d}"
        try:
            summary = self._write(folder, recording, after, everyone)
            _write_traces(folder / "tensorboard", everyone, contents)
        except OSError as error:  # a training does not end for its profile
            warn(f"{folder}: cannot write the profile: {error.strerror}")
            return
        self._output.message(f"profile of {summary['title_steps']}: {verdict(summary)}; see {folder / 'summary.html'}")

    def _write(
        self, folder: Path, recording: _Recording, after: list[ClockOffset], everyone: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Summary, page and trace of all ranks."""
        from hpcgan.report.output import stamp
        from hpcgan.report.page import render

        clocks = list(zip(recording.clocks, after, strict=True))
        ranks = [RankTimes.read(times).by_clock(*pair) for times, pair in zip(everyone, clocks, strict=True)]
        error = max(clock.error for pair in clocks for clock in pair)
        last_step = recording.first_step + len(recording.steps) - 1
        steps = f"steps {recording.first_step} to {last_step}"
        config = self._assembly.config
        summary = {
            **stamp(),
            "name": config.name,
            "run": str(self._run.path),
            "backend": self._comm.backend,
            "first_step": recording.first_step,
            "last_step": last_step,
            "title_steps": steps,
            "title": f"Profile of {config.name}, {steps}, {len(ranks)} rank{'s' * (len(ranks) > 1)} "
            f"({self._comm.backend})",
            **summarise(ranks, error),
            "clocks": [[dataclasses.asdict(clock) for clock in pair] for pair in clocks],
        }
        summary["notices"] = _notices(summary, self._has_spans, everyone)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / "trace.json", json.dumps(trace(ranks, recording.first_step)))
        write_atomic(folder / "summary.json", json.dumps(summary, indent=1))
        write_atomic(folder / "summary.txt", text(summary))
        page = render("profile.html.j2", summary, [], summary["notices"], parts=PARTS, verdict=verdict(summary))
        write_atomic(folder / "summary.html", page)
        return summary


class _Recording:
    """What a rank measures; TensorFlow traces into a folder of this rank's own.

    Parameters
    ----------
    first_step : int
        From 1.
    clocks : list of ClockOffset
        At its beginning.
    """

    def __init__(self, first_step: int, clocks: list[ClockOffset]) -> None:
        self.first_step, self.clocks = first_step, clocks
        self.fetches: list[tuple[float, float]] = []
        self.steps: list[tuple[float, float]] = []
        self.problem: str | None = None
        self._folder: Path | None = None
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="hpcgan-profile-"))
            tf.profiler.experimental.start(str(self._folder))
        except (tf.errors.OpError, OSError) as error:  # a full disk, or somebody else profiles this process
            self.problem = f"TensorFlow traces nothing: {in_one_line(error)}"
            self._remove()

    def stop(self) -> dict[str, bytes]:
        """TensorFlow's files by their names."""
        if self._folder is None:
            return {}
        try:
            tf.profiler.experimental.stop()
            files = sorted(path for path in self._folder.rglob("*") if path.is_file())
            return {path.relative_to(self._folder).as_posix(): path.read_bytes() for path in files}
        except (tf.errors.OpError, OSError) as error:
            self.problem = f"TensorFlow's trace is lost: {in_one_line(error)}"
            return {}
        finally:
            self._remove()

    def _remove(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _notices(summary: dict[str, Any], has_spans: bool, everyone: list[dict[str, Any]]) -> list[str]:
    """What a reader has to know."""
    notices = [
        f"rank {rank}: {times['problem']}" for rank, times in enumerate(everyone) if times["problem"] is not None
    ]
    if len(everyone) > 1:
        notices.append(f"Times of different ranks can be compared to {1e6 * summary['clock_error_s']:.0f} µs.")
        if not has_spans:
            notices.append("This backend does not say when collectives begin and end: compute has them.")
    if summary["unmatched"]:
        notices.append(f"{summary['unmatched']} collectives were not recorded on all ranks, and are left out.")
    return notices


def _write_traces(folder: Path, everyone: list[dict[str, Any]], contents: list[np.ndarray]) -> None:
    """TensorFlow's files of each rank in a folder, which TensorBoard shows as runs."""
    for rank, (times, content) in enumerate(zip(everyone, contents, strict=True)):
        start = 0
        for name, size in times["files"]:
            path = folder / f"rank-{rank}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content[start : start + size].tobytes())
            start += size
