"""Errors with a meaning for the user, and the exit codes they map to.

A leaf module: everything may import it, it imports nothing.
"""

from typing import Literal

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: there is a checkpoint, the same command resumes

FailureKind = Literal["user", "training", "environment"]
"""Whose failure it is: the user's input, the work's own (a loss of NaN), or that of what it runs on (a full disk)."""


class HpcganError(Exception):
    """A failure that is not the user's input; one line that says what happened and what to do.

    Parameters
    ----------
    text : str
    collective : bool
        All ranks raise this error together, so that they may leave in order and one of them speaks for
        all. Any other error in a job of several ranks ends the whole job at once.
    """

    exit_code = EXIT_FAILED
    kind: FailureKind = "training"

    def __init__(self, text: str, *, collective: bool = False) -> None:
        super().__init__(text)
        self.collective = collective

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show in place of a traceback; `%hpcgan traceback` shows that."""
        return [f"{type(self).__name__}: {self}"]


class Unwritten(HpcganError):
    """Something was worked out, and a file of it could not be written.

    Parameters
    ----------
    text : str
        One line that says which file, and why.
    output : str
        What was worked out, as a command would print it.
    """

    def __init__(self, text: str, output: str) -> None:
        super().__init__(text)
        self.output = output


class EnvironmentFailure(HpcganError):
    """Something around the work failed, such as a disk that is full: the same may succeed later, or elsewhere."""

    kind: FailureKind = "environment"


class InputError(HpcganError):
    """Bad input: a file, a key or an argument. The message names it and the remedy, in one line."""

    exit_code = EXIT_BAD_INPUT
    kind: FailureKind = "user"


class Interrupted(HpcganError):
    """Stopped on request after writing a checkpoint; running the same command again resumes."""

    exit_code = EXIT_INTERRUPTED


class Stopped(Interrupted):
    """Stopped by a command to the run: nobody is to go on with it unasked."""
