"""What killed attempts leave in a run directory, and that it goes: files in the making, heartbeats, last words."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

from hpcgan.runs.directory import RunDirectory

#: Age from which on a file in the making is nobody's any more, s: the content is there when it is made.
ABANDONED_S = 60.0

_IN_THE_MAKING = re.compile(r"\..+\.(?:\d+-)?[0-9a-f]{8}\.tmp")
_BEAT = re.compile(r"(\d{4,})\.beat")
_LAST_WORDS = re.compile(r"stalled-[0-9a-f]+")


def remove(run: RunDirectory, attempt: int) -> None:
    """Remove what earlier attempts than one have left; files in the making only if they have been there for a while.

    Checkpoints in the making are removed by `hpcgan.runs.checkpoint.prune`.

    Parameters
    ----------
    run : RunDirectory
    attempt : int
        The newest one, whose file is there. Its time is compared with those of others: all are stamped by one clock.
    """
    own = run.attempts / f"{attempt:04d}.json"
    with contextlib.suppress(OSError):  # what cannot be removed disturbs nobody
        for path in list(run.attempts.iterdir()):
            beat = _BEAT.fullmatch(path.name)
            if beat is not None and int(beat[1]) < attempt:
                path.unlink(missing_ok=True)
            elif _LAST_WORDS.fullmatch(path.name) and _older(path, own):
                shutil.rmtree(path, ignore_errors=True)
    for folder in (run.path, run.attempts, run.commands, run.samples):
        with contextlib.suppress(OSError):
            for path in list(folder.iterdir()):
                if _IN_THE_MAKING.fullmatch(path.name) and path.is_file() and _older(path, own):
                    path.unlink(missing_ok=True)


def _older(path: Path, own: Path) -> bool:
    return own.stat().st_mtime - path.stat().st_mtime > ABANDONED_S
