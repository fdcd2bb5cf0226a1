"""The process that tells a tracker of a run, beside the training or for `hpcgan track`.

The training writes its records and knows nothing of trackers: a library that fails, hangs, or needs other versions than
TensorFlow does so in a process of its own, with the lowest priority, maybe in another Python (`tracking.python`). The
process reads what rank 0 appends. It ends when its standard input does, also because rank 0 was killed, and at the
latest `tracking.wait_s` after that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcgan.config import TrackingConfig, validated
from hpcgan.config.registries import TRACKERS
from hpcgan.errors import EXIT_DONE, EXIT_FAILED, HpcganError, InputError
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempt_state
from hpcgan.system.files import Locked, file_lock, warn
from hpcgan.tracking.base import Tracker
from hpcgan.tracking.memory import Memory
from hpcgan.tracking.mirror import Mirror

#: Seconds between looks; after a failure, until the next try.
LOOK_S, AGAIN_S = 2.0, 30.0
#: What rank 0 says before its end of the pipe closes: that it waits, or that it does not.
WAITS, LEAVES = b"waits\n", b"leaves\n"
#: In another Python maybe, which finds this package and no other one of the training's; folders of the working
#: directory are none (`wandb`, say).
PROGRAM = """import importlib.util, sys
sys.path = [place for place in sys.path if place]
spec = importlib.util.spec_from_file_location("hpcgan", sys.argv[1] + "/__init__.py")
sys.modules["hpcgan"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["hpcgan"])
from hpcgan.tracking import process
process.start(sys.argv[2:])"""


class Busy(InputError):
    """Another process has the mirror of a run."""


def command(settings: TrackingConfig, run: Path, *words: str) -> list[str]:
    """The command line of the process."""
    package = str(Path(__file__).resolve().parents[1])
    python = sys.executable if settings.python is None else str(settings.python)
    return [python, "-c", PROGRAM, package, str(run), settings.model_dump_json(), *words]


def main(argv: Sequence[str]) -> int:
    """`RUN SETTINGS` follows a run until standard input ends; with `once` or `anew`, `hpcgan track`."""
    run, settings, *words = argv
    directory, tracking = RunDirectory(Path(run)), validated(TrackingConfig, json.loads(settings), "tracking")
    if words:
        try:
            print(track(directory, tracking, anew="anew" in words))
        except HpcganError as error:
            print(f"hpcgan: error: {error}", file=sys.stderr)
            return error.exit_code
        return EXIT_DONE
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they are meant for the training, whose end ends the pipe
    os.nice(19)
    try:
        with _quiet(directory.path / "tracking"):
            return follow(directory, tracking)
    except OSError as error:  # of the run directory
        warn(f"{error.filename or directory.path}: {error.strerror}; the training goes on, and is not tracked")
        return EXIT_FAILED


def start(argv: Sequence[str]) -> None:
    """`main`, as a program."""
    sys.exit(main(argv))


def track(run: RunDirectory, settings: TrackingConfig, *, anew: bool = False) -> str:
    """Tell a tracker what it does not know yet of a run; a line that says what there is now.

    Parameters
    ----------
    run : RunDirectory
    settings : TrackingConfig
    anew : bool
        Whether to begin another tracked run, and put one that is there aside.

    Raises
    ------
    InputError
        The tracker's package is missing, or the run directory is broken or followed by another process.
    HpcganError
        The tracker fails.
    """
    with opened(run, settings) as (mirror, tracker), told(settings):
        if anew:
            mirror.forget()
        mirror.look(alive=attempt_state(run) == "running")
        tracker.close()
        return f"{settings.to}: {mirror.points} points of {run.path} are tracked: {tracker.address()}"


@contextlib.contextmanager
def opened(run: RunDirectory, settings: TrackingConfig) -> Iterator[tuple[Mirror, Tracker]]:
    """The mirror of a run, which no other process has meanwhile.

    Raises
    ------
    InputError
        There is no such tracker, its package is missing, another process has the mirror, or the run directory cannot
        be written.
    """
    name = str(settings.to)
    with told(settings):
        tracker: Tracker = TRACKERS.get(name)(settings, run.path)
    memory = Memory(run.path / "tracking", name)
    try:
        memory.path.parent.mkdir(exist_ok=True)
        with file_lock(memory.path.with_suffix(".lock")):
            try:
                yield Mirror(run, tracker, memory), tracker
            finally:
                with contextlib.suppress(Exception):  # of somebody else's library, at an end
                    tracker.close()
    except Locked:
        raise Busy(f"{run.path}: another process tracks it, beside its training perhaps; wait for it") from None
    except OSError as error:
        raise InputError(f"{memory.path.parent}: cannot be written: {error.strerror}") from None


@contextlib.contextmanager
def told(settings: TrackingConfig) -> Iterator[None]:
    """Whatever a tracker raises, in one line.

    Raises
    ------
    InputError
        A package is missing.
    HpcganError
        Anything else.
    """
    try:
        yield
    except HpcganError:
        raise
    except ModuleNotFoundError as error:
        python = sys.executable if settings.python is None else settings.python
        raise InputError(
            f"tracking.to={settings.to}: {python} has no {error.name}: pip install {error.name}, or name another "
            "Python that has it with tracking.python"
        ) from None
    except Exception as error:  # of somebody else's library
        lines = str(error).strip().splitlines() or [""]
        raise HpcganError(f"tracking.to={settings.to}: {type(error).__name__}: {lines[0][:300]}") from None


def follow(run: RunDirectory, settings: TrackingConfig) -> int:
    """Tell a tracker of a run that is trained, until standard input ends."""
    parent = Parent(settings.wait_s)
    failure, pause = "", LOOK_S
    while True:
        ended = parent.ended  # before the look, which then sees all that there will be
        try:
            with opened(run, settings) as (mirror, _), told(settings):
                while True:
                    mirror.look(alive=not parent.died)
                    failure = ""
                    if ended:
                        return EXIT_DONE
                    parent.wait(LOOK_S)
                    ended = parent.ended
        except Busy:  # that of an attempt which was killed just now, and has its limit of time
            pause = LOOK_S
        except HpcganError as error:
            pause = AGAIN_S
            if not failure and not parent.left:
                warn(f"{error}; the training goes on, 'hpcgan track {run.path}' tells what is missing")
            failure = str(error)
        if ended:
            return EXIT_FAILED
        parent.wait(pause)


class Parent:
    """Rank 0, as this process hears of it through its standard input, whatever the tracker is at.

    Parameters
    ----------
    limit : float
        Seconds that this process has after the end of the pipe.

    Attributes
    ----------
    died : bool
        It said no word before.
    left : bool
        It does not wait, or has died: nobody reads what would be said.
    """

    def __init__(self, limit: float) -> None:
        self._limit, self._end = limit, threading.Event()
        self.died = self.left = False
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether the pipe has ended."""
        return self._end.is_set()

    def wait(self, seconds: float) -> None:
        """Until the pipe ends, and no longer than that."""
        self._end.wait(seconds)

    def _listen(self) -> None:
        heard = b""
        while data := os.read(0, 4096):
            heard += data
        self.died, self.left = heard not in (WAITS, LEAVES), heard != WAITS
        if self.left:  # a launcher reads this rank's messages to their end
            silence = os.open(os.devnull, os.O_WRONLY)
            for descriptor in (sys.stderr.fileno(), 2):
                os.dup2(silence, descriptor)
        self._end.set()
        time.sleep(self._limit)
        if os.getpgrp() == os.getpid():  # with what the library has started
            os.killpg(0, signal.SIGKILL)
        os._exit(EXIT_FAILED)


@contextlib.contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """Send what libraries print to a file; lines of this process go to standard error."""
    folder.mkdir(exist_ok=True)
    own = os.dup(2)
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    with os.fdopen(own, "w", buffering=1) as stream, contextlib.redirect_stderr(stream):
        yield


def read_settings(run: RunDirectory) -> TrackingConfig:
    """The section `tracking:` of a run's configuration, whatever else is in there.

    Raises
    ------
    InputError
        There is no run here, or the section is broken.
    """
    return validated(TrackingConfig, run.read_config().get("tracking", {}), str(run.config_file), "tracking")
