"""What a data set means: its unit, its axes, and what else a file may say of it. A leaf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Numbers:
    """What an attribute with numbers must say.

    Attributes
    ----------
    allowed : tuple of tuples of float
        Any of these.
    tolerance : float
    last : bool
        Of more numbers the last ones count, and one stands for all (shapes).
    loose : bool
        A common name: something of another form is about something else.
    """

    allowed: tuple[tuple[float, ...], ...]
    tolerance: float = 0.0
    last: bool = False
    loose: bool = False

    def accepts(self, numbers: NDArray[np.float64] | None) -> bool:
        """Whether numbers, or what is none, say the same."""
        for choice in self.allowed:
            values = numbers
            if self.last and values is not None:
                values = np.repeat(values, len(choice)) if len(values) == 1 else values[-len(choice) :]
            if values is not None and len(values) == len(choice):
                return bool((np.abs(values - choice) <= self.tolerance * (1 + 1e-9)).all())
        return self.loose

    def __str__(self) -> str:
        texts = [f"{value:g}" for value in self.allowed[0]]
        return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


@dataclass(frozen=True)
class Meaning:
    """What a data set is.

    Attributes
    ----------
    unit : str or None
        "" where it has none; None: whatever the file says.
    axes : tuple of str
        Of one sample.
    synonyms : mapping of str to str
        Other names of these axes.
    numbers : mapping of str to Numbers
        Attributes by their names in small letters, without anything between words.
    """

    unit: str | None = None
    axes: tuple[str, ...] = ()
    synonyms: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, Numbers] = field(default_factory=dict)
