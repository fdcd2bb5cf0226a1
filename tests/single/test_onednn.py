"""TensorFlow computes with oneDNN's kernels, whichever processor it is on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's kernels are left to TensorFlow here")
VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
ASK = (
    "import hpcgan, tensorflow; from tensorflow.python.util import _pywrap_util_port; "
    "print(_pywrap_util_port.IsMklEnabled())"
)


@pytest.mark.parametrize(("of_the_user", "on"), [(None, "True"), ("0", "False")])
def test_they_are_on_unless_the_user_has_switched_them_off(of_the_user, on):
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if of_the_user is not None:
        env[VARIABLE] = of_the_user
    done = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == [on]
