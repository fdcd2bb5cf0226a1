"""Why a process, or a job of several ranks, has failed: a typed record, and a file by which its starter hears of it.

Who starts a process and wants to know names a file in the environment (`VARIABLE`); the first of its ranks that fails
writes the record there. Nobody has to look for a cause in what the ranks have printed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from hpcgan.errors import EnvironmentFailure, FailureKind, HpcganError, InputError
from hpcgan.system.files import write_once

#: Names the file in the environment of a process.
VARIABLE = "HPCGAN_FAILURE_FILE"


@dataclass(frozen=True)
class Failure:
    """Why something failed.

    Attributes
    ----------
    kind : "user", "training" or "environment"
        Whose failure it is (`hpcgan.errors.FailureKind`).
    text : str
        One line.
    rank : int or None
        The rank that failed, where it was not all of them together.
    """

    kind: FailureKind
    text: str
    rank: int | None = None

    @classmethod
    def of(cls, error: BaseException, rank: int | None = None) -> Failure:
        """The failure that an error stands for; `rank` is told unless all ranks raise it together."""
        if isinstance(error, HpcganError):
            return cls(error.kind, str(error), None if error.collective else rank)
        # What the operating system refuses is no fault of a training; all else may be.
        return cls("environment" if isinstance(error, OSError) else "training", in_one_line(error), rank)

    def error(self) -> HpcganError:
        """The error that all ranks raise together when one of them has failed so."""
        classes = {"user": InputError, "training": HpcganError, "environment": EnvironmentFailure}
        return classes[self.kind](str(self), collective=True)

    def __str__(self) -> str:
        return self.text if self.rank is None else f"rank {self.rank}: {self.text}"


def in_one_line(error: BaseException) -> str:
    """What an error says, without the traceback that TensorFlow puts into it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    if lines[0] == "in user code:":  # TensorFlow puts the traceback through a traced function before the message
        return lines[-1]
    return f"{type(error).__name__}: {lines[0]}"


def tell(failure: Failure, env: Mapping[str, str] = os.environ) -> None:
    """Have whoever started this job know of a failure, if it asked to; the first one stays."""
    path = env.get(VARIABLE)
    if path:
        with contextlib.suppress(OSError):  # the failure itself is what counts, and is printed
            write_once(Path(path), json.dumps(asdict(failure)) + "\n")


def read(path: Path) -> Failure | None:
    """The failure that a file tells of; None if there is none."""
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        kind, rank = entry["kind"], entry["rank"]
        if kind not in get_args(FailureKind) or not (rank is None or isinstance(rank, int)):
            return None
        return Failure(kind, str(entry["text"]), rank)
    except (OSError, ValueError, KeyError, TypeError):
        return None
