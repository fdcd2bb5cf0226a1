"""Ctrl-C, where something must be put in order before it may have its way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import FrameType

from hpcgan.launch.process import handling


class Interrupts:
    """The interrupts of a block.

    Parameters
    ----------
    held : bool
        None of them raises anything before the end of the block; otherwise the first one raises KeyboardInterrupt
        where it comes, and later ones do not, so that what the first one has begun to clean up is cleaned up.

    Attributes
    ----------
    asked : int
        How many there were.
    """

    def __init__(self, *, held: bool) -> None:
        self._held = held
        self._raised = False
        self.asked = 0

    @property
    def hurry(self) -> bool:
        """Whether somebody has no patience with the cleaning up."""
        return self.asked > (1 if self._raised else 0)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Let an interrupt wait for the end of this block."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        self._raise_if_asked()

    def _take(self, signum: int, frame: FrameType | None) -> None:
        self.asked += 1
        self._raise_if_asked()

    def _raise_if_asked(self) -> None:
        if self.asked and not self._raised and not self._held:
            self._raised = True
            raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts(*, held: bool = False) -> Iterator[Interrupts]:
    """Take SIGINT over for a block. Elsewhere than in the main thread there are none.

    Raises
    ------
    KeyboardInterrupt
        There was one.
    """
    block = Interrupts(held=held)
    with handling(("SIGINT",), block._take):
        yield block
    block._held = False
    block._raise_if_asked()
