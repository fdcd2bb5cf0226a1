"""Attributes of HDF5 files as plain Python values, whoever wrote them.

The same text comes as str, as bytes, of fixed length with zeros or blanks behind it, as an array of one string (R,
MATLAB, Java, Fortran), or as an empty value; a number as a NumPy scalar or as an array of one.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from hpcgan.errors import InputError

SHOWN = 60
"""Characters of a value in a message, at most."""


class Unreadable:
    """Stands for a value of a type that h5py does not know."""

    def __repr__(self) -> str:
        return "(of a type that cannot be read)"


def plain(value: Any) -> Any:
    """A value as h5py gives it, as the text, number or array that it stands for.

    Returns
    -------
    str, int, float, bool, complex, list of str, ndarray of numbers; None for an empty value or an array of no element;
    anything else (references, compounds) as it is.
    """
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray):
        if value.size == 0:
            return None
        if value.dtype.kind in "SUO":
            if value.size == 1:
                return plain(value.reshape(-1)[0])
            items = [plain(item) for item in value.reshape(-1)]
            return items if all(isinstance(item, str) for item in items) else value
        return value
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        # What is no UTF-8 comes as lone surrogates, which cannot be printed.
        value = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return value.split("\0", 1)[0].strip()
    return value


def read(holder: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """All attributes of a group or data set that hold something, as :func:`plain` makes them.

    Raises
    ------
    Exception
        Whatever h5py raises on damaged files: for use within :func:`hpcgan.data.storage.readable`.
    """
    values = {}
    for name in list(holder.attrs):
        try:
            value = plain(holder.attrs[name])
        except (TypeError, NotImplementedError):  # no NumPy type stands for it
            value = Unreadable()
        if value is not None:
            values[plain(str(name))] = value
    return values


def show(value: Any) -> str:
    """A value for a message: one line, not too long."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def text(value: Any, whose: str) -> str:
    """A value that must be text.

    Parameters
    ----------
    value : anything
        As :func:`read` gives it.
    whose : str
        What the message begins with, e.g. ``a.h5: attribute particle of the file``.

    Raises
    ------
    InputError
        It is not.
    """
    if not isinstance(value, str):
        raise InputError(f"{whose} is {show(value)}, not text")
    return value


def single(value: Any) -> Any:
    """The element of an array of one; anything else as it is."""
    return value.reshape(-1)[0].item() if isinstance(value, np.ndarray) and value.size == 1 else value


def number(value: Any, whose: str) -> float:
    """A value that must be one finite number; otherwise as :func:`text`."""
    value = single(value)
    try:
        number_or_nan = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else np.nan
    except (ValueError, OverflowError):
        number_or_nan = np.nan
    if not np.isfinite(number_or_nan):
        raise InputError(f"{whose} is {show(value)}, not a number")
    return number_or_nan
