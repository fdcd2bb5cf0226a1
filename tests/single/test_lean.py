"""TensorFlow and Horovod as ranks import them: without Keras and Setuptools, which are there for whoever wants them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import needs
import pytest

needs.tensorflow()

ROOT = Path(__file__).resolve().parents[2]

LOADED = """
import gc, json, sys, warnings
from hpcgan.comm import import_tensorflow
collected = []
gc.callbacks.append(lambda phase, info: collected.append("tensorflow" in sys.modules))
tf = import_tensorflow.tensorflow()
assert not any(collected) and gc.isenabled() and gc.get_freeze_count() > 100_000
if "horovod" in sys.argv:
    with import_tensorflow.for_horovod(tf):
        import horovod.tensorflow as hvd
    assert callable(hvd.allreduce)
found = {name.split(".")[0] for name in sys.modules} & {"keras", "pandas", "setuptools", "tensorflow_estimator"}
assert float(tf.reduce_sum(tf.constant([1.0, 2.0]))) == 3.0
import keras
from tensorflow.keras.layers import Dense
assert tf.keras.layers.Dense is keras.layers.Dense is Dense
assert import_tensorflow.tensorflow() is tf
warnings.filterwarnings("error", "Distutils was imported before")
import setuptools
import distutils
assert distutils.__file__.startswith(setuptools.__path__[0])
print(json.dumps(sorted(found)))
"""


@pytest.mark.parametrize("what", ["tensorflow", "horovod"])
def test_neither_imports_keras_and_it_can_be_imported_afterwards(what):
    pytest.importorskip(what)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", LOADED, what], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_keras_that_is_there_already_stays():
    code = (
        "import keras; from hpcgan.comm import import_tensorflow as lean; "
        "assert lean.tensorflow().keras.layers.Dense is keras.layers.Dense"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
