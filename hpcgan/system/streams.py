"""Standard output and standard error of a process, which may be closed, full or go away while it works. A leaf.

`guard` puts streams in their place that everything goes through, `print`, rich, warnings and logging alike. What such a
stream does when it cannot be written depends on what the output is worth:

- Of a command whose output is all that it makes (`hpcgan data info`, `hpcgan jobs`), a failure is an `OutputError`
  (`insist`).
- Where the work is in files and the output only tells of it, text is dropped and the work goes on (`go_on`).
- Standard error is for people: what cannot be written there is dropped.

No character is too much for them either: what the encoding lacks is written as an escape.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
from typing import Any

_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.ENOBUFS)
"""Failures that may pass: a later write is tried again."""


class OutputError(OSError):
    """Standard output cannot be written, and nothing comes of the command without it."""

    @property
    def reader_left(self) -> bool:
        """Whether who read the output has enough of it, as in `| head`."""
        return self.errno == errno.EPIPE


class Stream(io.FileIO):
    """A file descriptor that takes everything, whether it can be written or not.

    Parameters
    ----------
    descriptor : int
        It stays open.

    Attributes
    ----------
    vital : bool
        A failure is an `OutputError` for who writes.
    instead : str
        If it is not: what happens all the same, for the one line that is said of the first failure. Without it
        nothing is said.
    closed_by : OSError or None
        What nothing can be written for any more.
    lost : OutputError or None
        The failure of a vital stream.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.closed_by: OSError | None = None
        self.lost: OutputError | None = None
        self.vital, self.instead = False, ""
        self._told = False

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        failure = self.closed_by
        if failure is None:
            try:
                _write_all(self.fileno(), view)
            except OSError as error:
                failure = error
        if failure is not None:
            self._fail(failure)
        return len(view)

    def _fail(self, error: OSError) -> None:
        if self.vital or error.errno not in _PASSING:
            self.closed_by = error
        if self._told:
            return
        self._told = True
        if self.vital:
            self.lost = OutputError(error.errno, error.strerror)
            raise self.lost from None
        if self.instead:
            # Not through sys.stderr: a live display sends that to standard output, which is being written just now.
            line = f"hpcgan: warning: standard output is gone ({error.strerror}); {self.instead}\n"
            write(2, line.encode("ascii", "backslashreplace"))


_streams: dict[int, Stream] = {}


def guard() -> None:
    """Put the streams of this module in the place of the process's own, and see to it that there are three.

    A descriptor that is closed is the next one that a file gets: without this, what C code prints would go into a data
    file. Streams that somebody else has put into `sys.stdout` or `sys.stderr` (tests, notebooks) stay. What cannot be
    written is dropped, unless `insist` says otherwise.
    """
    closed = _fill()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = _streams.get(descriptor)
        if stream is None:
            stream = _streams[descriptor] = Stream(descriptor)
            original = getattr(sys, f"__{name}__")
            if original is not None:
                with contextlib.suppress(OSError, ValueError):
                    original.flush()
            text = _as_text(stream, original)
            if getattr(sys, name) is original:
                setattr(sys, name, text)
            setattr(sys, f"__{name}__", text)
        if descriptor in closed:
            stream.closed_by = OSError(errno.EBADF, "it is closed")


def insist() -> None:
    """From here on, standard output is what the command is for: an `OutputError` if it cannot be written."""
    if 1 in _streams:
        _streams[1].lost, _streams[1].vital, _streams[1].instead = None, True, ""


def go_on(instead: str) -> None:
    """From here on, standard output only tells of the work: what cannot be written is dropped.

    Parameters
    ----------
    instead : str
        What happens all the same, and where it can be seen: the end of the one line that is then said on standard
        error.
    """
    if 1 in _streams:
        _streams[1].vital, _streams[1].instead = False, instead


def finish() -> None:
    """Write what a buffer still holds.

    Raises
    ------
    OutputError
        Standard output could not be written, now or earlier: argparse keeps that to itself.
    """
    sys.stdout.flush()
    if 1 in _streams and (lost := _streams[1].lost) is not None:
        raise lost


def settle() -> None:
    """The command has ended: what a buffer still holds may be lost. The interpreter would fail of it."""
    if 1 in _streams:
        _streams[1].vital, _streams[1].instead = False, ""


def write(descriptor: int, data: bytes) -> None:
    """Write to a standard stream what another process has printed; what cannot be written is dropped."""
    stream = _streams.get(descriptor)
    if stream is not None:
        stream.write(data)
        return
    with contextlib.suppress(OSError):
        _write_all(descriptor, memoryview(data))


def _write_all(descriptor: int, view: memoryview) -> None:
    """Write everything, also where somebody else has made the descriptor one that does not wait."""
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


def _fill() -> set[int]:
    """Open standard descriptors that are closed, on nothing; which they were."""
    closed = set()
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            closed.add(descriptor)
            nothing = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            if nothing != descriptor:
                os.dup2(nothing, descriptor)
                os.close(nothing)
            os.set_inheritable(descriptor, True)
    return closed


def _as_text(stream: Stream, original: Any) -> io.TextIOWrapper:
    """A text stream with the settings of the one that Python has made, but for characters that it cannot show."""
    encoding = getattr(original, "encoding", None) or "utf-8"
    errors = getattr(original, "errors", None) or "strict"
    unbuffered = bool(getattr(original, "write_through", False))
    if errors in ("strict", "surrogateescape") and not (errors == "surrogateescape" and encoding == "utf-8"):
        errors = "backslashreplace"
    return io.TextIOWrapper(
        stream if unbuffered else io.BufferedWriter(stream),
        encoding=encoding,
        errors=errors,
        line_buffering=bool(getattr(original, "line_buffering", True)),
        write_through=unbuffered,
    )
