"""A measured number and its error. A leaf."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, or what its function says the error is."""

    value: float
    error: float
