"""TensorFlow and Horovod as ranks import them: without Keras and Setuptools, which are there for whoever wants them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import needs
import pytest

from hpcgan.comm import import_tensorflow
from hpcgan.errors import HpcganError

tf = needs.tensorflow()

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
    # From Python 3.12 on distutils, which TensorFlow 2.18 looks at, is a part of setuptools.
    allowed = {"setuptools"} if sys.version_info >= (3, 12) else set()
    assert set(json.loads(done.stdout.splitlines()[-1])) <= allowed


def test_keras_that_is_there_already_stays():
    code = (
        "import keras; from hpcgan.comm import import_tensorflow as lean; "
        "assert lean.tensorflow().keras.layers.Dense is keras.layers.Dense"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def version(monkeypatch):
    """Sets what TensorFlow says its version is, and forgets what has been said about it."""
    yield lambda text: monkeypatch.setattr(tf, "__version__", text)
    import_tensorflow._check_version.cache_clear()


@pytest.mark.parametrize("text", ["2.15.0", "2.15.1", "2.18.1", "2.21.0", "2.21.0-rc1"])
def test_a_tensorflow_that_is_known_is_used_in_silence(version, text, capsys):
    version(text)
    assert import_tensorflow.tensorflow() is tf
    assert capsys.readouterr().err == ""


def test_an_older_tensorflow_is_refused(version):
    version("2.14.1")
    for _ in range(2):
        with pytest.raises(
            HpcganError, match=r"^TensorFlow 2\.14\.1 is too old: hpcgan needs 2\.15 or newer; run `make"
        ):
            import_tensorflow.tensorflow()


@pytest.mark.parametrize(("rank", "lines"), [(None, 1), ("0", 1), ("1", 0)])
def test_a_newer_tensorflow_is_used_and_rank_0_says_so_once(version, monkeypatch, capsys, rank, lines):
    for name, value in (("OMPI_COMM_WORLD_SIZE", "2"), ("OMPI_COMM_WORLD_RANK", rank)):
        if rank is not None:
            monkeypatch.setenv(name, value)
    version("2.22.0.dev20270101")
    for _ in range(2):
        assert import_tensorflow.tensorflow() is tf
    said = capsys.readouterr().err
    assert said.count("\n") == lines
    assert re.match("hpcgan: warning: TensorFlow 2.22.*newer than 2.21" if lines else "^$", said)
