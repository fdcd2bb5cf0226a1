"""`Comm` over Horovod; the only module that imports it."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcgan.comm import import_tensorflow
from hpcgan.comm.collectives import TensorComm, prepare
from hpcgan.comm.libraries import loaded, loaded_mpi
from hpcgan.comm.spans import CAPACITY, Span
from hpcgan.errors import EnvironmentFailure, HpcganError
from hpcgan.launch.world import check_world

_CHUNK = 1 << 28  # bytes in one collective: MPI counts elements in 32 bits
_WAKES = b"HOROVOD_IDLE_CYCLE_TIME"  # the variable that only a changed Horovod reads: tools/horovod_wake.py
POLLS = (
    "this Horovod's thread looks for work every millisecond, on the cores that compute: comm.backend=mpi, or the "
    "Horovod that `make setup` builds, would gain 2% to 12%, the more the shorter a step is"
)
AS_FAST = "on CPUs comm.backend=mpi is as fast, within 6%"  # of one that sleeps: docs/performance.md
MISSING = (
    "Horovod with TensorFlow is not installed ({}): run `make setup`, or pip install 'hpcgan[train]'; "
    "comm.backend=mpi does without Horovod"
)


class HorovodComm(TensorComm):
    """The ranks of a job under mpirun or srun, through Horovod.

    Parameters
    ----------
    env : mutable mapping, optional
        The environment, by default `os.environ`; settings that nobody made are added to it before MPI
        starts, so that a bare `mpirun` runs with the same ones as `hpcgan ... --ranks`.

    Raises
    ------
    HpcganError
        If Horovod is not installed or was built against another TensorFlow, or if MPI reports another
        world than the launcher promised.
    """

    backend = "horovod"

    def __init__(self, env: MutableMapping[str, str] | None = None) -> None:
        expected = prepare(os.environ if env is None else env)
        try:
            super().__init__()
            with import_tensorflow.for_horovod(self._tf):
                import horovod.tensorflow as hvd
        except HpcganError:
            raise  # of TensorFlow
        except OSError as error:
            if error.errno is None:  # a library that it needs is not there
                raise HpcganError(MISSING.format(str(error).strip().splitlines()[0])) from error
            raise EnvironmentFailure(f"Horovod cannot be loaded: {error.strerror}") from error  # a full disk, say
        except Exception as error:  # a wheel built for another TensorFlow fails with its own error types
            reason = str(error).strip().splitlines()
            raise HpcganError(MISSING.format(reason[0] if reason else type(error).__name__)) from error
        self._hvd = hvd
        hvd.init()
        self.rank = hvd.rank()
        self.size = hvd.size()
        self.local_rank = hvd.local_rank()
        self.local_size = hvd.local_size()
        self._names: weakref.WeakKeyDictionary[Any, dict[str, int]] = weakref.WeakKeyDictionary()
        self._known = [""]  # collectives in graphs, by number; 0: none
        self._number: Any = None  # of the collective that a graph waits in
        self._record: _Record | None = None
        if self.size > 1 and self.is_root and not hvd.nccl_built() and not wakes():  # reads a file
            self.advice = POLLS
        try:
            check_world(expected, self.size, self.rank)
        except HpcganError:
            hvd.shutdown()
            raise

    # --- inside the compiled training step -------------------------------------------------------

    def collective(self) -> str | None:
        in_graph = "" if self._number is None else self._known[int(self._number.numpy())]
        return self._host or in_graph or None

    def _average(self, tensor: Any, name: str) -> Any:
        hvd, unique = self._hvd, self._unique(name)
        return self._announced(
            lambda x: hvd.allreduce(x, op=hvd.Average, name=unique, ignore_name_scope=True), tensor, name
        )

    def _concatenate(self, tensor: Any, name: str) -> Any:
        hvd, unique = self._hvd, self._unique(name)
        return self._announced(lambda x: hvd.allgather(x, name=unique, ignore_name_scope=True), tensor, name)

    def _announced(self, collective: Callable[[Any], Any], tensor: Any, name: str) -> Any:
        """A collective that can be named while it waits: its number stands in a variable."""
        tf = self._tf
        if name not in self._known:
            self._known.append(name)
        if self._number is None:  # made late: TensorFlow's devices must be configured before the first of them
            with tf.init_scope(), tf.device("/CPU:0"):
                self._number = tf.Variable(0, dtype=tf.int64, trainable=False, name="hpcgan_collective")
        number = self._known.index(name)
        with tf.device("/CPU:0"), tf.control_dependencies([tensor]):
            before = self._number.assign(number, read_value=False)
            begun = None if self._record is None else tf.timestamp()
        with tf.control_dependencies([op for op in (before, begun) if op is not None]):
            result = collective(tf.identity(tensor))
        with tf.device("/CPU:0"), tf.control_dependencies([result]):
            after = self._number.assign(0, read_value=False)
            if self._record is not None:
                after = self._record.add(number, begun)
        with tf.control_dependencies([after] if after is not None else []):
            return tf.identity(result)

    def record_spans(self) -> bool:
        if self._record is None:
            self._record = _Record(self._tf)
        return True

    def take_spans(self) -> list[Span]:
        rows = [] if self._record is None else self._record.take()
        return [Span(self._known[int(number)], begun, begun, ended) for number, begun, ended in rows]

    def _unique(self, name: str) -> str:
        """`name`, numbered when it occurs again in the same graph.

        Two collectives in flight under one name are an error in Horovod, and a layer that is applied to
        a real and to a fake batch makes two. Ranks trace the same code, so they count alike.
        """
        tf = self._tf
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
        if tf.executing_eagerly():
            return f"hpcgan.{safe}"
        counts = self._names.setdefault(tf.compat.v1.get_default_graph(), {})
        counts[safe] = counts.get(safe, 0) + 1
        return f"hpcgan.{safe}" if counts[safe] == 1 else f"hpcgan.{safe}.{counts[safe]}"

    # --- on the host -----------------------------------------------------------------------------

    def barrier(self) -> None:
        # Horovod starts no collective before every rank has joined it, so any of them is a barrier.
        with self._on_host("barrier"):
            self._hvd.allreduce(self._tf.zeros(1), op=self._hvd.Sum, name="hpcgan.host.barrier")

    def close(self) -> None:
        """Wait for the other ranks, then leave Horovod and MPI."""
        if self._hvd.is_initialized():
            self.barrier()
            self.unwatch()
            self._hvd.shutdown()

    def _broadcast_length(self, length: int) -> int:
        own_length = self._tf.constant([length], self._tf.int64)
        return int(self._hvd.broadcast(own_length, 0, name="hpcgan.host.length")[0])

    def _broadcast_bytes(self, data: bytes, length: int) -> bytes:
        tf, hvd = self._tf, self._hvd
        source = np.frombuffer(data, np.uint8) if self.rank == 0 else np.zeros(length, np.uint8)
        pieces = []
        for start in range(0, length, _CHUNK):
            with tf.device("/CPU:0"):
                piece = tf.constant(source[start : start + _CHUNK])
                pieces.append(hvd.broadcast(piece, 0, name="hpcgan.host.bytes").numpy().tobytes())
        return b"".join(pieces)

    def _gather_bytes(self, data: bytes) -> list[bytes] | None:
        """The bytes of every rank on rank 0, in rank order; None elsewhere.

        An all-to-all in which everything goes to rank 0: unlike an allgather it costs the other ranks no
        memory. In rounds, so that what rank 0 receives at once stays bounded.
        """
        tf, hvd = self._tf, self._hvd
        chunk = max(1, _CHUNK // self.size)
        with tf.device("/CPU:0"), self._on_host("gather on rank 0"):
            lengths = hvd.allgather(tf.constant([len(data)], tf.int64), name="hpcgan.host.lengths").numpy()
            source = np.frombuffer(data, np.uint8)
            parts: list[list[bytes]] = [[] for _ in range(self.size)]
            for start in range(0, int(lengths.max()), chunk):
                piece = source[start : start + chunk]
                splits = [len(piece)] + [0] * (self.size - 1)
                received, counts = hvd.alltoall(tf.constant(piece), tf.constant(splits), name="hpcgan.host.gather")
                if self.rank == 0:
                    ends = np.cumsum(counts.numpy())
                    for rank, piece_of_rank in enumerate(np.split(received.numpy(), ends[:-1])):
                        parts[rank].append(piece_of_rank.tobytes())
        if self.rank != 0:
            return None
        return [b"".join(pieces) for pieces in parts]


class _Record:
    """Beginnings and ends of collectives in graphs, written by the graphs themselves: no Python in between.

    Parameters
    ----------
    tf : module
        TensorFlow.
    """

    def __init__(self, tf: Any) -> None:
        self._tf, self._taken = tf, 0
        with tf.init_scope(), tf.device("/CPU:0"):
            self._rows = tf.Variable(tf.zeros([CAPACITY, 3], tf.float64), trainable=False, name="hpcgan_spans")
            self._count = tf.Variable(0, dtype=tf.int64, trainable=False, name="hpcgan_spans_count")

    def add(self, number: int, begun: Any) -> Any:
        """Collective `number`, which began at a time, has ended; what to wait for."""
        tf = self._tf
        row = tf.stack([tf.constant(number, tf.float64), begun, tf.timestamp()])
        place = (self._count.assign_add(1) - 1) % CAPACITY
        return self._rows.scatter_nd_update(place[None, None], row[None])

    def take(self) -> list[list[float]]:
        """Number, beginning and end of those that have come since the last call."""
        count = int(self._count.numpy())
        first, self._taken = max(self._taken, count - CAPACITY), count
        rows = self._rows.numpy()
        return [rows[place % CAPACITY].tolist() for place in range(first, count)]


def build_info() -> dict[str, Any]:
    """What this Horovod is: version, what it was built with and for, and the MPI library it has loaded.

    Starts neither Horovod nor MPI.

    Raises
    ------
    Exception
        Whatever the import raises where Horovod is missing or does not fit its TensorFlow.
    """
    import horovod
    import horovod.tensorflow as hvd

    built = {name: bool(getattr(hvd, f"{name}_built")()) for name in ("mpi", "gloo", "nccl", "cuda")}
    metadata = Path(horovod.__file__).parent / "metadata.json"
    tensorflow = json.loads(metadata.read_text()).get("tensorflow") if metadata.is_file() else None
    described = {"version": horovod.__version__, "built_with": built, "tensorflow": tensorflow, "wakes": wakes()}
    return described | loaded_mpi()


def wakes() -> bool:
    """Whether the thread of the Horovod that is loaded sleeps until there is work; True where that cannot be seen."""
    try:
        return any(_WAKES in Path(path).read_bytes() for path in loaded("mpi_lib"))
    except OSError:  # its file was replaced since
        return True
