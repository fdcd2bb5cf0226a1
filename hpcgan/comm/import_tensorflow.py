"""TensorFlow and Horovod without Keras, which nothing here uses, and TensorFlow without Setuptools.

TensorFlow imports Keras, and Keras pandas, when it is imported itself, and Horovod asks for a layer of Keras and for
TensorFlow's estimators: a fifth of what the start of a rank takes, and a thousand files that every rank would read.
What wants Keras later in the same process gets it as ever. The garbage collector stays out of it: what is imported is
not garbage, and looking through it again and again, then and in all that follows, is an eighth of a start.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

from hpcgan.errors import HpcganError
from hpcgan.launch.world import expected_world
from hpcgan.system import files

#: The release lines of TensorFlow between which hpcgan is tested.
OLDEST, NEWEST = (2, 15), (2, 21)

_KERAS = "keras.src"  # all of Keras is in it; `keras` itself has to be found, or TensorFlow would never look for it
_LAYER = "horovod.tensorflow.sync_batch_norm"


def tensorflow() -> Any:
    """TensorFlow.

    Raises
    ------
    ImportError
        It is not installed.
    HpcganError
        It is older than hpcgan can use. Of a newer one than is known, rank 0 says so once.
    """
    module = _imported()
    _check_version(module.__version__)
    return module


def age(version: str) -> Literal["older", "known", "newer"]:
    """Whether a TensorFlow of this version is older than those that hpcgan runs with, or newer than those tested."""
    major, minor = (int(number) for number in version.split(".")[:2])
    if (major, minor) < OLDEST:
        return "older"
    return "known" if (major, minor) <= NEWEST else "newer"


@functools.cache  # said once in a process
def _check_version(version: str) -> None:
    if age(version) == "older":
        raise HpcganError(
            f"TensorFlow {version} is too old: hpcgan needs {release_text(OLDEST)} or newer; run `make setup`"
        )
    if age(version) == "newer":
        world = expected_world(os.environ)
        if world is None or world.rank == 0:
            files.warn(
                f"TensorFlow {version} is newer than {release_text(NEWEST)}, the newest that hpcgan was tested with"
            )


def release_text(release: tuple[int, int]) -> str:
    """A release line as a person writes it."""
    return ".".join(map(str, release))


def _imported() -> Any:
    if "tensorflow" in sys.modules or "keras" in sys.modules:
        return importlib.import_module("tensorflow")
    with _uncollected(), _in_place_of(_KERAS, None), _python_distutils():  # TensorFlow goes on without Keras
        module = importlib.import_module("tensorflow")
    for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
        del sys.modules[name]  # what was imported before it came to what was not there
    return module


@contextlib.contextmanager
def for_horovod(tf: Any) -> Iterator[None]:
    """Horovod is imported in here without its batch norm for Keras.

    Parameters
    ----------
    tf : module
        TensorFlow.
    """
    if "keras" in sys.modules or "horovod.tensorflow" in sys.modules:
        yield
        return
    layer = ModuleType(_LAYER)
    layer.SyncBatchNormalization = None  # type: ignore[attr-defined]
    estimators = vars(tf).get("estimator")  # imports Keras when it is asked for anything; gone in TensorFlow 2.16
    if estimators is not None:
        tf.estimator = SimpleNamespace(SessionRunHook=tf.compat.v1.train.SessionRunHook)
    try:
        with _in_place_of(_LAYER, layer):
            yield
    finally:
        if estimators is not None:
            tf.estimator = estimators


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """What is there at the end is never looked through for garbage again."""
    enabled = gc.isenabled()
    gc.collect()  # what is garbage before can still be told from what is not
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def _python_distutils() -> Iterator[None]:
    """Whoever imports `distutils` meanwhile gets Python's; to put its own there, Setuptools would have to be imported.

    TensorFlow asks it for one path: a tenth of its import. What comes later gets that of Setuptools as ever. From
    Python 3.12 on there is no other.
    """
    shim = sys.modules.get("_distutils_hack")
    if shim is None or "distutils" in sys.modules or sys.version_info >= (3, 12):
        yield
        return
    shim.remove_shim()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The distutils package is deprecated", DeprecationWarning)
            yield
    finally:
        shim.add_shim()
        for name in [name for name in sys.modules if name.partition(".")[0] == "distutils"]:
            del sys.modules[name]  # or Setuptools would warn that it comes too late


@contextlib.contextmanager
def _in_place_of(name: str, module: ModuleType | None) -> Iterator[None]:
    """Whoever imports this name meanwhile gets the module; None: an ImportError."""
    sys.modules[name] = module  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name, None)
