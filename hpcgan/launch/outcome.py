"""What a job itself says of its end, which is believed before its launcher.

mpirun inside a Slurm allocation ends with exit code 0 when the allocation is taken away from under it, its ranks being
killed. So a code of 0 counts only where the job has left its own record: a training its end in `metrics.jsonl`, a
generation its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcgan.errors import EXIT_DONE, EXIT_INTERRUPTED
from hpcgan.launch.launcher import Record, launch
from hpcgan.runs.directory import RunDirectory
from hpcgan.runs.lease import attempts_made
from hpcgan.runs.records import End, read
from hpcgan.system.files import version


def end_after(run: RunDirectory, attempt: int) -> End | None:
    """The end that the newest of the attempts after a number of them has recorded; None if none has."""
    ends = [end for end in read(run.metrics_file, End) if end.attempt > attempt]
    return ends[-1] if ends else None


def launch_training(argv: Sequence[str], run: RunDirectory, ranks: int, **options: Any) -> int:
    """`launch` a training, and believe what its run directory says of its end.

    Parameters
    ----------
    argv : sequence of str
        Arguments of hpcgan, `train ...`.
    run : RunDirectory
    ranks : int
    **options
        Of `launch`: `place`, `watch`.

    Returns
    -------
    int
        As `launch`, but 0 only if this attempt recorded that the training is over, and 75 if it recorded a checkpoint
        on request, whatever became of the launcher.
    """
    before = attempts_made(run)

    def recorded() -> int | None:
        end = end_after(run, before)
        cause = None if end is None else end.cause
        return EXIT_DONE if cause == "finished" else EXIT_INTERRUPTED if cause == "requested" else None

    missing = (
        f"{run.path} records no end of this attempt: it was ended from outside (a cancelled job, a lost node); "
        "the same command goes on from the last checkpoint"
    )
    return launch(argv, ranks, record=Record(recorded, missing), **options)


def launch_writing(argv: Sequence[str], file: Path, ranks: int, **options: Any) -> int:
    """`launch` a command whose work ends in one file, which appears as a whole.

    Returns
    -------
    int
        As `launch`, but 0 only if the file was written.
    """
    before = version(file)

    def recorded() -> int | None:
        return EXIT_DONE if version(file) not in (None, before) else None

    return launch(argv, ranks, record=Record(recorded, f"{file} was not written"), **options)
