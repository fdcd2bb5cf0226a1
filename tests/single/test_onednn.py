"""TensorFlow computes with oneDNN's kernels, whichever processor it is on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's kernels are left to TensorFlow here")
VARIABLE = "TF_ENABLE_ONEDNN_OPTS"
KERNELS = "from tensorflow.python.util import _pywrap_util_port; print(_pywrap_util_port.IsMklEnabled())"


def said(program, **more):
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", f"import os, hpcgan; {program}"]
    return subprocess.run(
        command, env={**env, **more}, capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()


def test_they_are_on():
    assert said(f"import tensorflow; {KERNELS}") == ["True"]


def test_they_are_off_where_the_user_has_switched_them_off():
    assert said(f"print(os.environ[{VARIABLE!r}])", **{VARIABLE: "0"}) == ["0"]
