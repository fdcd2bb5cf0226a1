"""What a module of tests cannot do without."""

from __future__ import annotations

from typing import Any

import pytest

from hpcgan.comm import lean


def tensorflow() -> Any:
    """TensorFlow as trainings import it, without Keras: half a second less. Without it the module is skipped."""
    try:
        return lean.tensorflow()
    except ImportError as error:
        pytest.skip(f"could not import 'tensorflow': {error}", allow_module_level=True)
