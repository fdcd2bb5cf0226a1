"""What a module of tests cannot do without."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, NoReturn

import pytest

from hpcgan.comm import import_tensorflow


def lacking(reason: str) -> NoReturn:
    """The test is skipped, with what this machine lacks; in CI, which has to have it, it fails."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    raise AssertionError("neither returns")


def tensorflow() -> Any:
    """TensorFlow as trainings import it, without Keras: half a second less. Without it the module is skipped."""
    try:
        return import_tensorflow.tensorflow()
    except ImportError as error:
        pytest.skip(f"could not import 'tensorflow': {error}", allow_module_level=True)


def found(*names: str) -> None:
    """Packages, which are not imported yet: those of Jupyter take two seconds, in every process that collects tests."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name}", allow_module_level=True)
